"""`python -m benchmarks`: every section, or those named; tables on the terminal and in `benchmarks/results/`.

Further arguments go to the one section named: `python -m benchmarks engine --quick`.
"""

import argparse
import sys
from pathlib import Path

from benchmarks import departures, storage
from benchmarks.engine import run as engine
from benchmarks.quality import run as quality

SECTIONS = {"engine": engine.run, "storage": storage.run, "departures": departures.run, "quality": quality.run}
RESULTS = Path(__file__).parent / "results"


def main() -> int:
    """Run the sections."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__, add_help=len(sys.argv) < 3)
    parser.add_argument("section", nargs="*", help=f"of {', '.join(SECTIONS)} (default: all)")
    given, rest = parser.parse_known_args()
    unknown = set(given.section) - set(SECTIONS)
    if unknown:
        parser.error(f"unknown section {', '.join(sorted(unknown))}; there are {', '.join(SECTIONS)}")
    if rest and len(given.section) != 1:
        parser.error(f"{' '.join(rest)}: wanted the one section that this is for")
    for name in given.section or SECTIONS:
        print(f"## {name}\n\n{SECTIONS[name](rest, RESULTS)}\n", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
