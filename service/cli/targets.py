"""The folder a bundle goes to: checked before the work, filled in one step after it."""

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from service.client.bundle_listing import BUNDLE_FILES, EXTRA_FILES, SUMS_FILE
from service.errors import ServiceError


def check_target(out: Path, *, overwrite: bool) -> None:
    """Refuse a folder that a bundle cannot be put in, before any work is done for it.

    Raises:
        ServiceError: `target_not_usable`, or `target_exists` where a bundle is there and may not be replaced.
    """
    if out.exists() and not out.is_dir():
        raise ServiceError("target_not_usable", f"--out is {str(out)!r}, which is a file; wanted a folder.")
    present = [name for name in (*BUNDLE_FILES, *EXTRA_FILES) if (out / name).exists()]
    if present and not overwrite:
        raise ServiceError(
            "target_exists",
            f"--out {str(out)!r} holds a bundle already ({present[0]}).",
            hint="Name another folder, or replace it with --overwrite.",
        )
    ground = out
    while not ground.exists():
        ground = ground.parent
    try:
        with tempfile.TemporaryFile(dir=ground):
            pass
    except OSError as exc:
        raise ServiceError("target_not_usable", f"--out {str(out)!r} cannot be written to: {exc.strerror}.") from exc


@contextlib.contextmanager
def stage_target(out: Path) -> Iterator[Path]:
    """Lend a folder beside `out`; when the block ends well its files are moved there, else they are removed."""
    out.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=".partial", dir=out.parent))
    try:
        staging.chmod(0o755)
        yield staging
        if out.exists():
            _move_files(staging, out)
        else:
            staging.rename(out)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _move_files(staging: Path, out: Path) -> None:
    # A folder without SHA256SUMS is no bundle: it goes first and comes last.
    (out / SUMS_FILE).unlink(missing_ok=True)
    for path in sorted(staging.iterdir(), key=lambda path: path.name == SUMS_FILE):
        path.replace(out / path.name)
