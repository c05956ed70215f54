"""What binds the files of a bundle together: manifest.json, SHA256SUMS, and the tar of all."""

import json
import tarfile
from collections.abc import Sequence
from typing import Any, BinaryIO

from service.jobs.tables import JobTable
from service.results.files import ExportedFile
from service.results.schemas import Summary
from service.results.tables import ResultTable

SCHEMA_VERSION = "1.2"
SOFT_LABELS_FILE = "soft_labels.npy"
INFLUENCES_FILE = "influences.parquet"
_LISTED_FILES = ("rows.parquet", "keep.npy", "weights.npy", "report.html", "croissant.json")


def list_arrays(result: ResultTable) -> list[str]:
    """Return the names of the arrays in the bundle of a job."""
    relabel = result.summary.get("relabel") or {}
    return ["keep.npy", "weights.npy", *([SOFT_LABELS_FILE] if relabel.get("targets") == "soft" else [])]


def list_tables(result: ResultTable) -> list[str]:
    """Return the names of the Parquet files in the bundle of a job."""
    return ["rows.parquet", *([INFLUENCES_FILE] if result.manifest.get("influences") else [])]


def list_listed_files(result: ResultTable) -> list[str]:
    """Return the names of the files whose digests stand in the manifest."""
    return list(dict.fromkeys([*list_tables(result), *list_arrays(result), *_LISTED_FILES]))


def list_bundle_files(result: ResultTable) -> list[str]:
    """Return the names of all files in the bundle of a job, in order."""
    return ["manifest.json", *list_listed_files(result), "SHA256SUMS"]


def build_manifest(job: JobTable, result: ResultTable, summary: Summary, outputs: Sequence[ExportedFile]) -> bytes:
    """Return `manifest.json`: what was curated, how, with what outcome, and the digests of the outputs."""
    fields = {
        **result.manifest,
        "schema_version": SCHEMA_VERSION,
        "job_id": job.id,
        "job_name": job.name,
        "attempt": result.attempt,
        "document": json.loads(job.document),
        "document_digest": job.document_digest,
        "selection": summary.selection.model_dump(mode="json"),
        "evaluation": summary.model_dump(mode="json", include={"evaluation"})["evaluation"],
        "relabel": _describe_relabelling(result, summary, outputs),
        "notes": summary.notes,
        "outputs": {file.file_name: file.outputs_entry for file in outputs},
    }
    return encode_json(fields)


def _describe_relabelling(
    result: ResultTable, summary: Summary, outputs: Sequence[ExportedFile]
) -> dict[str, Any] | None:
    """Return what was done to labels; None where the job's task leaves them as they are."""
    if summary.relabel is None:
        return None
    soft = [file for file in outputs if file.file_name == SOFT_LABELS_FILE]
    classes = result.manifest["labels"]["names"]
    return {
        **summary.relabel.model_dump(mode="json"),
        "class_order": classes,
        "soft_labels": {
            "file": SOFT_LABELS_FILE,
            "sha256": soft[0].stored.sha256,
            "shape": [result.num_rows, len(classes)],
            "dtype": "float32",
        }
        if soft
        else None,
    }


def build_sums(files: Sequence[ExportedFile]) -> bytes:
    """Return `SHA256SUMS`, as `sha256sum --check` reads it."""
    return "".join(f"{file.stored.sha256}  {file.file_name}\n" for file in files).encode()


def write_tar(target: BinaryIO, files: Sequence[ExportedFile]) -> None:
    """Write a tar of the files, uncompressed, without times and owners."""
    with tarfile.open(fileobj=target, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for file in files:
            entry = tarfile.TarInfo(file.file_name)
            entry.size = file.stored.size_bytes
            entry.mode = 0o644
            with file.stored.path.open("rb") as source:
                tar.addfile(entry, source)


def encode_json(fields: object) -> bytes:
    """Return JSON with sorted keys, for people to read and the same for the same values."""
    text = json.dumps(fields, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False)
    return text.encode() + b"\n"
