"""`python -m benchmarks`: every section, or those named; tables on the terminal and in `benchmarks/results/`."""

import argparse
import sys
from pathlib import Path

import torch

from benchmarks import engine, storage
from benchmarks.machine import describe_machine

SECTIONS = {"engine": engine.run, "storage": storage.run}
RESULTS = Path(__file__).parent / "results"


def main() -> int:
    """Run the sections."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("section", nargs="*", help=f"of {', '.join(SECTIONS)} (default: all)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="torch threads")
    arguments = parser.parse_args()
    unknown = set(arguments.section) - set(SECTIONS)
    if unknown:
        parser.error(f"unknown section {', '.join(sorted(unknown))}; there are {', '.join(SECTIONS)}")
    torch.set_num_threads(arguments.threads)
    RESULTS.mkdir(exist_ok=True)
    for name in arguments.section or SECTIONS:
        text = f"## {name}\n\n{describe_machine()}\n\n{SECTIONS[name]()}\n"
        print(text, flush=True)
        (RESULTS / f"{name}.md").write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
