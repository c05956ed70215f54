"""Run a module as `python -m` does, and end with the parent: `python -m service.cli.guarded MODULE [ARGUMENT ...]`.

Standard input is a pipe that the parent holds open. When it closes, the parent is gone, however it died, and
this process is told to stop; if it does not, its whole process group is killed.
"""

import os
import runpy
import signal
import sys
import threading

STOP_SECONDS = 30.0


def _end_with_parent() -> None:
    while os.read(0, 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    threading.Event().wait(STOP_SECONDS)
    os.killpg(os.getpgrp(), signal.SIGKILL)


def main() -> None:
    """Run the module that the arguments name."""
    module, *arguments = sys.argv[1:]
    threading.Thread(target=_end_with_parent, name="end-with-parent", daemon=True).start()
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
