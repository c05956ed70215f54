"""The list of files in a bundle, as SHA256SUMS writes it."""

import re

from service.errors import ServiceError

SUMS_FILE = "SHA256SUMS"
BUNDLE_FILES = (
    "manifest.json",
    "rows.parquet",
    "keep.npy",
    "weights.npy",
    "report.html",
    "croissant.json",
    SUMS_FILE,
)
SOFT_LABELS_FILE, INFLUENCES_FILE = "soft_labels.npy", "influences.parquet"
# Files that a bundle holds where the job was to make them, or could.
EXTRA_FILES = (SOFT_LABELS_FILE, INFLUENCES_FILE)
_LINE = re.compile(r"([0-9a-f]{64}) [ *]([A-Za-z0-9][A-Za-z0-9._-]{0,63})")


def read_sums(text: str) -> dict[str, str]:
    """Return the sha256 of every file that the text of a SHA256SUMS names.

    Raises:
        ServiceError: `damaged_bundle`; a line is no digest and plain file name, or a name stands twice.
    """
    digests: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        found = _LINE.fullmatch(line)
        if found is None or found[2] in digests or found[2] == SUMS_FILE:
            raise ServiceError(
                "damaged_bundle", f"{SUMS_FILE} line {number} is {line[:80]!r}; wanted a sha256 and a file name."
            )
        digests[found[2]] = found[1]
    return digests
