"""`croissant.json`: the curated table described for machines (Croissant 1.0, JSON-LD of schema.org)."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from service.jobs.tables import JobTable
from service.results.bundle import encode_json
from service.results.files import ExportedFile
from service.results.schemas import Summary
from service.results.tables import ResultTable

_TERMS_OF_CROISSANT = (
    "citeAs", "column", "extract", "field", "fileProperty", "fileObject", "fileSet", "format", "includes",
    "isLiveDataset", "jsonPath", "key", "md5", "parentField", "path", "recordSet", "references", "regex",
    "repeated", "replace", "separator", "source", "subField", "transform",
)  # fmt: skip
_CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "dct": "http://purl.org/dc/terms/",
    "sc": "https://schema.org/",
    "conformsTo": "dct:conformsTo",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
    **{term: f"cr:{term}" for term in _TERMS_OF_CROISSANT},
}
_DESCRIPTIONS = {
    "row": "Number of the example among the curated rows, in input order, from 0.",
    "id": "Identifier of the example in the source data.",
    "content_sha256": "SHA-256 of the example's input.",
    "source": "Where the example came from.",
    "given_label": "The label as delivered.",
    "given_weight": "Loss multiplier under the given label; mean 1 over the rows that have one.",
    "given_score": "Worth of keeping the example under the given label; higher is better.",
    "weight": "Loss multiplier; mean 1 over labelled rows.",
    "weight_std": "Spread of the weight over the averaged checkpoints and the seeds.",
    "score": "Worth of keeping the example; higher is better.",
    "rank": "Place in the order of keeping; 0 is kept first.",
    "noise_score": "How doubtful the given label is, 0 to 1: the probability that it is wrong, or a ranking alone.",
    "suggested_label": "The label as the model would have it.",
    "label_confidence": "The model's probability of the suggested label.",
    "label": "The label to train on: the given one, or the corrected one.",
    "corrected": "Whether the label to train on is not the given one.",
    "keep": "Whether to train on the example.",
    "reason": "Why the example is kept, dropped or corrected.",
}
# Readers of Croissant know Parquet by this name, not by the registered one.
_FORMATS = {"rows.parquet": "application/x-parquet"}
_ARRAYS = {
    "keep.npy": "Row numbers to train on, ascending (NumPy, uint64).",
    "weights.npy": "Weight of every row, 0 where it is dropped (NumPy, float32).",
    "soft_labels.npy": "Probability of each class for every row, in the order of the manifest (NumPy, float32).",
}


def build_croissant(
    job: JobTable, result: ResultTable, summary: Summary, files: Sequence[ExportedFile], schema: pa.Schema
) -> bytes:
    """Return the description of `rows.parquet` (with this schema) and of the arrays beside it."""
    name = job.name or job.id
    selection = summary.selection
    return encode_json(
        {
            "@context": _CONTEXT,
            "@type": "sc:Dataset",
            "conformsTo": "http://mlcommons.org/croissant/1.0",
            "name": f"{name}: curated rows",
            "description": (
                f"Decisions about {summary.num_rows} examples: which to train on ({selection.n_kept} of "
                f"{selection.n_total}), how much each counts, and how doubtful its label is."
            ),
            "url": f"urn:sama:job:{job.id}",
            "license": "The licence of the source data applies.",
            "creator": {"@type": "sc:Organization", "name": "sama"},
            "datePublished": f"{datetime.fromtimestamp(result.created_at, UTC):%Y-%m-%d}",
            "version": "1.0.0",
            "isBasedOn": result.manifest.get("source", {}).get("uri"),
            "distribution": [_describe_file(file) for file in files],
            "recordSet": [_describe_rows(schema)],
        }
    )


def _describe_file(file: ExportedFile) -> dict[str, Any]:
    return {
        "@type": "cr:FileObject",
        "@id": file.file_name,
        "name": file.file_name,
        "description": _ARRAYS.get(file.file_name, "One row for each curated example, kept and dropped."),
        "contentUrl": file.file_name,
        "contentSize": f"{file.stored.size_bytes} B",
        "encodingFormat": _FORMATS.get(file.file_name, file.media_type),
        "sha256": file.stored.sha256,
    }


def _describe_rows(schema: pa.Schema) -> dict[str, Any]:
    return {
        "@type": "cr:RecordSet",
        "@id": "rows",
        "name": "rows",
        "description": "One record for each curated example.",
        "key": {"@id": "rows/row"},
        "field": [
            {
                "@type": "cr:Field",
                "@id": f"rows/{column.name}",
                "name": column.name,
                "description": _DESCRIPTIONS[column.name],
                "dataType": _name_type(column.type),
                "source": {"fileObject": {"@id": "rows.parquet"}, "extract": {"column": column.name}},
            }
            for column in schema
        ],
    }


def _name_type(kind: pa.DataType) -> str:
    if pa.types.is_boolean(kind):
        return "sc:Boolean"
    if pa.types.is_integer(kind):
        return "sc:Integer"
    return "sc:Float" if pa.types.is_floating(kind) else "sc:Text"
