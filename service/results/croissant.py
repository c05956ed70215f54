"""`croissant.json`: the curated table described for machines (Croissant 1.0, JSON-LD of schema.org)."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from service.jobs.tables import JobTable
from service.results.bundle import INFLUENCES_FILE, encode_json
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
_INFLUENCE_DESCRIPTIONS = {
    "row": "Number of a suspicious example among the curated rows.",
    "id": "Its identifier.",
    "rank": "Place of the trusted example among those that speak against it; 1 is the strongest.",
    "meta_row": "Number of the trusted example among the rows of the meta set, in input order, from 0.",
    "meta_id": "Identifier of the trusted example.",
    "meta_label": "Its trusted label.",
    "influence": (
        "Fall of the trusted example's loss, in nats, by an optimizer step on the suspicious one alone, to first "
        "order at the final network; negative: the step would raise it."
    ),
}
# Readers of Croissant know Parquet by this name, not by the registered one.
_FORMATS = dict.fromkeys(("rows.parquet", INFLUENCES_FILE), "application/x-parquet")
_FILES = {
    "rows.parquet": "One row for each curated example, kept and dropped.",
    INFLUENCES_FILE: "The trusted examples that speak against the most suspicious examples.",
    "keep.npy": "Row numbers to train on, ascending (NumPy, uint64).",
    "weights.npy": "Weight of every row, 0 where it is dropped (NumPy, float32).",
    "soft_labels.npy": "Probability of each class for every row, in the order of the manifest (NumPy, float32).",
}

# Of each table the columns that tell its records apart, and what every column holds.
_RECORDS = {
    "rows.parquet": (("row",), _DESCRIPTIONS),
    INFLUENCES_FILE: (("row", "rank"), _INFLUENCE_DESCRIPTIONS),
}


def build_croissant(
    job: JobTable,
    result: ResultTable,
    summary: Summary,
    files: Sequence[ExportedFile],
    schemas: Mapping[str, pa.Schema],
) -> bytes:
    """Return the description of these files of a bundle, and of the columns of those that have a schema."""
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
            "recordSet": [_describe_table(file_name, schema) for file_name, schema in schemas.items()],
        }
    )


def _describe_file(file: ExportedFile) -> dict[str, Any]:
    return {
        "@type": "cr:FileObject",
        "@id": file.file_name,
        "name": file.file_name,
        "description": _FILES[file.file_name],
        "contentUrl": file.file_name,
        "contentSize": f"{file.stored.size_bytes} B",
        "encodingFormat": _FORMATS.get(file.file_name, file.media_type),
        "sha256": file.stored.sha256,
    }


def _describe_table(file_name: str, schema: pa.Schema) -> dict[str, Any]:
    name = file_name.partition(".")[0]
    keys, descriptions = _RECORDS[file_name]
    return {
        "@type": "cr:RecordSet",
        "@id": name,
        "name": name,
        "description": _FILES[file_name],
        "key": [{"@id": f"{name}/{key}"} for key in keys] if len(keys) > 1 else {"@id": f"{name}/{keys[0]}"},
        "field": [
            {
                "@type": "cr:Field",
                "@id": f"{name}/{column.name}",
                "name": column.name,
                "description": descriptions[column.name],
                "dataType": _name_type(column.type),
                "source": {"fileObject": {"@id": file_name}, "extract": {"column": column.name}},
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
