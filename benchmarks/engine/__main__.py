"""`python -m benchmarks.engine`: the section alone, to the terminal unless --out names a folder."""

import sys

from benchmarks.engine.run import run

if __name__ == "__main__":
    print(run(sys.argv[1:]))
