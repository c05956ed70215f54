"""`python -m benchmarks.quality`: the section alone."""

import sys

from benchmarks.quality.run import run

if __name__ == "__main__":
    print(run(sys.argv[1:]))
