"""Whether a bundle is whole and agrees with itself, and whether its data is still the same."""

import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from service.cli.bundle_influences import check_influences
from service.cli.bundle_labels import LABEL_COLUMNS, WORTH_COLUMNS, check_labels, check_worth
from service.client.bundle_listing import BUNDLE_FILES, SUMS_FILE, read_sums
from service.client.downloads import digest_file
from service.errors import Problem, ServiceError
from service.wording import write_count

_BATCH_ROWS = 65_536
# Bundles of these versions came before labels could be corrected.
VERSIONS_WITHOUT_LABELS = ("1.0",)
# Bundles of these did not say what rows are worth under their given labels.
VERSIONS_WITHOUT_WORTH = (*VERSIONS_WITHOUT_LABELS, "1.1")


class CheckFailedError(ServiceError):
    """A check of a bundle that did not hold; `problems` lists every one of them."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("check_failed", problems[0].message, param=problems[0].param, problems=problems)


@dataclass(frozen=True, slots=True)
class VerifiedBundle:
    """A bundle all of whose checks held."""

    job_id: str
    num_files: int
    num_rows: int
    num_kept: int

    def describe(self) -> str:
        """Return what was checked, in words."""
        files, rows = write_count(self.num_files, "file"), write_count(self.num_rows, "row")
        return f"{files}, {rows}, {self.num_kept:,} kept; every digest holds and the files agree"

    def as_fields(self) -> dict[str, Any]:
        """Return the facts as a JSON object."""
        return asdict(self)


def verify_bundle(directory: Path) -> VerifiedBundle:
    """Check that every file is there with its digest, and that decisions, weights and manifest agree.

    Raises:
        CheckFailedError: with every check that did not hold.
    """
    digests = _check_digests(directory)
    manifest = _read_manifest(directory)
    problems = list(_check_outputs(manifest, digests))
    version = manifest.get("schema_version")
    has_labels, has_worth = version not in VERSIONS_WITHOUT_LABELS, version not in VERSIONS_WITHOUT_WORTH
    columns = (*(LABEL_COLUMNS if has_labels else ()), *(WORTH_COLUMNS if has_worth else ()))
    table = _read_rows(directory / "rows.parquet", columns)
    rows, kept = (table.column(name).to_numpy() for name in ("row", "keep"))
    kept = kept.astype(np.bool_)
    weights = np.nan_to_num(table.column("weight").to_numpy(), nan=0.0)
    problems += _check_rows(manifest, rows, kept)
    problems += _check_arrays(directory, rows, kept, weights)
    if has_labels:
        problems += check_labels(directory, manifest, table)
    if has_worth:
        problems += check_worth(table)
    problems += check_influences(directory, manifest)
    if problems:
        raise CheckFailedError(problems)
    return VerifiedBundle(str(manifest.get("job_id")), len(digests) + 1, len(rows), int(kept.sum()))


def verify_data(directory: Path, uri: str) -> int:
    """Check that `uri` holds the very rows that the bundle was made from; return how many they are.

    Raises:
        CheckFailedError: naming the first row that differs, and in what.
    """
    import pyarrow.parquet as pq

    from service.settings import Settings
    from service.storage.roles import read_dataset

    document = _read_document(_read_manifest(directory), uri)
    roots = (Path(document.dataset.uri).parent,)
    with tempfile.TemporaryDirectory(prefix="sama-verify-") as folder:
        limits = Settings(data_roots=roots)
        try:
            train = read_dataset(document, limits, Path(folder)).train
        except ServiceError as exc:
            raise CheckFailedError(exc.problems or [_refuse("data", exc.message, "", exc.message)]) from exc
        recorded = pq.ParquetFile(directory / "rows.parquet")
        if recorded.metadata.num_rows != len(train):
            seen, wanted = write_count(len(train), "row"), write_count(recorded.metadata.num_rows, "row")
            raise CheckFailedError(
                [_refuse("data", seen, wanted, f"{uri} has {seen} to curate; the bundle has {wanted}.")]
            )
        columns = ["row", "id", "given_label", "content_sha256"]
        for batch in recorded.iter_batches(_BATCH_ROWS, columns=columns):
            start = batch.column("row")[0].as_py()
            found: dict[str, Any] = {
                "id": train.ids.slice(start, batch.num_rows),
                "given_label": train.given_labels.slice(start, batch.num_rows),
                "content_sha256": train.content_sha256.slice(start, batch.num_rows),
            }
            _compare_rows(uri, start, {name: values.to_pylist() for name, values in found.items()}, batch)
    return len(train)


def _compare_rows(uri: str, start: int, found: dict[str, list[Any]], recorded: Any) -> None:
    differing: list[tuple[int, str, Any, Any]] = []
    for name, values in found.items():
        pairs = zip(values, recorded.column(name).to_pylist(), strict=True)
        first = next(((at, seen, wanted) for at, (seen, wanted) in enumerate(pairs) if seen != wanted), None)
        if first is not None:
            differing.append((first[0], name, first[1], first[2]))
    if differing:
        at, name, seen, wanted = min(differing, key=lambda difference: difference[0])
        what = "content" if name == "content_sha256" else name.replace("_", " ")
        message = f"row {start + at} of {uri} differs in its {what}: {seen!r}, but {wanted!r} when the bundle was made."
        raise CheckFailedError([_refuse("data", repr(seen), repr(wanted), message)])


def _check_digests(directory: Path) -> dict[str, str]:
    sums_path = directory / SUMS_FILE
    if not directory.is_dir() or not sums_path.is_file():
        seen = "no folder" if not directory.is_dir() else f"a folder without {SUMS_FILE}"
        raise CheckFailedError([_refuse(str(directory), seen, "a bundle", f"{directory} is {seen}; wanted a bundle.")])
    digests = read_sums(sums_path.read_text(encoding="utf-8", errors="replace"))
    problems = [
        _refuse(name, "nothing", "a digest", f"{SUMS_FILE} names no {name}.")
        for name in BUNDLE_FILES
        if name != SUMS_FILE and name not in digests
    ]
    for name, wanted in digests.items():
        path = directory / name
        if not path.is_file():
            problems.append(_refuse(name, "nothing", f"sha256 {wanted}", f"{name} is missing."))
        elif (seen := digest_file(path)) != wanted:
            message = f"{name} was changed: its sha256 is {seen[:12]}..., wanted {wanted[:12]}..."
            problems.append(_refuse(name, seen, wanted, message))
    if problems:
        raise CheckFailedError(problems)
    return digests


def _check_outputs(manifest: dict[str, Any], digests: dict[str, str]) -> Iterator[Problem]:
    outputs = manifest.get("outputs")
    if not isinstance(outputs, dict) or not outputs:
        yield _refuse("manifest.json", "no outputs", "digests", "manifest.json names no outputs with their digests.")
        return
    for name, output in outputs.items():
        seen = output.get("sha256") if isinstance(output, dict) else None
        if seen != digests.get(name):
            message = f"manifest.json gives {name} another sha256 than {SUMS_FILE}."
            yield _refuse(name, str(seen), str(digests.get(name)), message)


def _check_rows(
    manifest: dict[str, Any], rows: npt.NDArray[np.int64], kept: npt.NDArray[np.bool_]
) -> Iterator[Problem]:
    if not np.array_equal(rows, np.arange(len(rows))):
        first = int(np.flatnonzero(rows != np.arange(len(rows)))[0])
        seen = str(int(rows[first]))
        yield _refuse("rows.parquet", seen, str(first), f"rows.parquet has row {seen} in place {first}.")
    selection = manifest.get("selection") or {}
    for name, seen_count in (("n_total", len(rows)), ("n_kept", int(kept.sum()))):
        if selection.get(name) != seen_count:
            message = f"manifest.json says {name} is {selection.get(name)}; rows.parquet has {seen_count}."
            yield _refuse("manifest.json", str(selection.get(name)), str(seen_count), message)


def _check_arrays(
    directory: Path,
    rows: npt.NDArray[np.int64],
    kept: npt.NDArray[np.bool_],
    weights: npt.NDArray[np.float32],
) -> Iterator[Problem]:
    wanted = {"keep.npy": rows[kept].astype(np.uint64), "weights.npy": np.where(kept, weights, np.float32(0))}
    for name, expected in wanted.items():
        try:
            found = np.load(directory / name)
        except (OSError, ValueError) as exc:
            yield _refuse(name, str(exc), "an array", f"{name} cannot be read as an array.")
            continue
        if found.dtype != expected.dtype or not np.array_equal(found, expected):
            yield _refuse(name, str(found.dtype), str(expected.dtype), f"{name} does not agree with rows.parquet.")


def _read_rows(path: Path, columns: Sequence[str]) -> Any:
    """Return the table with `row`, `keep`, `weight` and these columns."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    wanted = list(dict.fromkeys(["row", "keep", "weight", *columns]))
    try:
        file = pq.ParquetFile(path)
        missing = [name for name in wanted if name not in file.schema_arrow.names]
        if not missing:
            return file.read(columns=wanted)
    except (pa.ArrowException, OSError) as exc:
        message = "rows.parquet cannot be read as the table of a bundle."
        raise CheckFailedError([_refuse("rows.parquet", str(exc), "a table", message)]) from exc
    message = f"rows.parquet has no column {missing[0]!r}; wanted {', '.join(wanted)}."
    raise CheckFailedError([_refuse("rows.parquet", "no such column", missing[0], message)])


def _read_manifest(directory: Path) -> dict[str, Any]:
    try:
        manifest = json.loads((directory / "manifest.json").read_bytes())
    except (OSError, ValueError) as exc:
        message = "manifest.json cannot be read as JSON."
        raise CheckFailedError([_refuse("manifest.json", str(exc), "JSON", message)]) from exc
    if not isinstance(manifest, dict):
        raise CheckFailedError([_refuse("manifest.json", "no object", "an object", "manifest.json is no JSON object.")])
    return manifest


def _read_document(manifest: dict[str, Any], uri: str) -> Any:
    """Return the job document of a bundle with its data set at another place, and without files of its own."""
    from service.cli.specs import read_path
    from service.jobs.document import parse_document

    document = parse_document(manifest.get("document"), is_stored=True)
    own_files = {
        name: None
        for name in ("meta", "test")
        if (section := getattr(document, name)) is not None and section.uri is not None
    }
    dataset = document.dataset.model_copy(update={"uri": str(read_path(uri).resolve())})
    return document.model_copy(update={"dataset": dataset, **own_files})


def _refuse(param: str, seen: str, wanted: str, message: str) -> Problem:
    return Problem(param=param, seen=seen, wanted=wanted, message=message)
