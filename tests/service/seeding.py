"""A finished job with known results, written the way an attempt writes them."""

import hashlib
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from service.attempts.repository import AttemptRepository
from service.attempts.state import Claim, MetricPoint
from service.db.engine import Database
from service.jobs.document import canonical_json, document_digest, parse_document
from service.jobs.repository import JobRepository, NewJob
from service.results.influences import influences_schema
from service.results.reasons import list_plain_findings
from service.results.rows import FINDING, SOFT_LABEL, apply_num_kept, encode_chunk, stored_schema
from service.results.tables import ChunkTable, InfluencesTable, PreviewTable, ResultTable

CLASSES = ("ham", "spam")
SOURCES = ("mail", "web", None)


def write_data(folder: Path, num_rows: int = 40) -> Path:
    """Write a small text data set with a trusted and a test split."""
    path = folder / "data.csv"
    splits = ["train", "valid", "test", "train"]
    lines = ["id,text,label,split"]
    lines += [f"{row},message number {row},{CLASSES[row // 4 % 2]},{splits[row % 4]}" for row in range(num_rows)]
    path.write_text("\n".join(lines) + "\n")
    return path


def make_document(uri: object, **fields: Any) -> dict[str, Any]:
    """Return a job document over `write_data`'s file."""
    document: dict[str, Any] = {
        "name": "demo",
        "dataset": {
            "uri": str(uri),
            "id": "id",
            "text": "text",
            "label": "label",
            "split": {"column": "split", "value": "train"},
        },
        "meta": {"split": {"column": "split", "value": "valid"}},
        "evaluation": None,
        "labels": {"team": "ads"},
    }
    return document | fields


def add_job(database: Database, **fields: Any) -> str:
    """Store a queued job and return its id."""
    document = parse_document(make_document("data.csv", **fields))
    new = NewJob(
        document=canonical_json(document),
        document_digest=document_digest(document),
        max_attempts=3,
        max_seconds=100.0,
        name=document.name,
        labels=document.labels,
    )
    with database.write() as session:
        return JobRepository(session).add(new).id


def claim_job(database: Database) -> Claim:
    """Take the first queued job as a worker would."""
    with database.write() as session:
        claim = AttemptRepository(session).claim("worker-1", 30.0)
    assert claim is not None
    return claim


def make_rows(
    num_rows: int, *, seed: int = 0, names: Sequence[str] = CLASSES, relabel: bool = False, soft: bool = False
) -> pa.Table:
    """Return rows as stored, with every special case: unlabelled rows, ties, hostile text, several sources.

    With `relabel`, labels with a noise score above 0.6 are corrected, and row 11 is labelled for the first time.
    """
    generator = np.random.default_rng(seed)
    given_labelled = np.ones(num_rows, dtype=bool)
    given_labelled[::11] = False
    labelled = given_labelled.copy()
    labelled[11:12] |= relabel
    order = np.full(num_rows, -1)
    score = np.round(generator.normal(size=num_rows), 1).astype(np.float32)
    places = np.flatnonzero(given_labelled)
    order[places[np.lexsort((places, -score[places]))]] = np.arange(len(places))
    order[labelled & ~given_labelled] = len(places)
    weight = np.round(generator.gamma(2.0, 0.5, num_rows), 2).astype(np.float32)
    noise = np.round(generator.random(num_rows), 2).astype(np.float32)
    given = np.array([names[row % len(names)] for row in range(num_rows)], dtype=object)
    suggested = np.array([names[(row + (noise[row] > 0.6)) % len(names)] for row in range(num_rows)], dtype=object)
    corrected = relabel & labelled & ((noise > 0.6) | ~given_labelled)
    label = np.where(corrected, suggested, given)
    given_worth = np.where(corrected, np.float32(0.1), np.float32(1))
    columns: dict[str, Any] = {
        "row": np.arange(num_rows),
        "id": [f"=cmd({row})" if row % 7 == 0 else f"id-{row}" for row in range(num_rows)],
        "content_sha256": [hashlib.sha256(str(row).encode()).hexdigest() for row in range(num_rows)],
        "source": [SOURCES[row % len(SOURCES)] for row in range(num_rows)],
        "given_label": pa.array(given, pa.string(), mask=~given_labelled),
        "given_weight": pa.array(weight * given_worth, pa.float32(), mask=~given_labelled),
        "given_score": pa.array(score * given_worth, pa.float32(), mask=~given_labelled),
        "weight": pa.array(weight, pa.float32(), mask=~labelled),
        "weight_std": pa.array(weight / 10, pa.float32(), mask=~labelled | corrected),
        "score": pa.array(score, pa.float32(), mask=~labelled),
        "rank": pa.array(order, pa.int64(), mask=~labelled),
        "noise_score": pa.array(noise, pa.float32(), mask=~given_labelled),
        "suggested_label": pa.array(suggested, pa.string(), mask=~labelled),
        "label_confidence": pa.array(noise, pa.float32(), mask=~labelled),
        "label": pa.array(label, pa.string(), mask=~labelled),
        "corrected": corrected,
        "keep": np.zeros(num_rows, dtype=bool),
        "reason": [""] * num_rows,
        FINDING: [""] * num_rows,
    }
    if soft:
        shares = np.stack([np.where(label == name, 0.9, 0.1 / (len(names) - 1)) for name in names], axis=1)
        flat = pa.array(shares.ravel().astype(np.float32))
        columns[SOFT_LABEL] = pa.FixedSizeListArray.from_arrays(flat, len(names), mask=pa.array(~labelled))
    table = pa.table(columns, schema=stored_schema(pa.string(), pa.string(), len(names) if soft else 0))
    findings = [finding for batch in table.to_batches() for finding in list_plain_findings(batch)]
    return table.set_column(table.schema.get_field_index(FINDING), FINDING, pa.array(findings, pa.string()))


def finish_job(
    database: Database, num_rows: int = 60, *, chunk_rows: int = 16, influences: bool = False, **fields: Any
) -> str:
    """Store a job, claim it and complete it with `make_rows`; three quarters of the labelled rows are kept.

    Labels are corrected where the task is relabel, with soft labels where the document asks for them. With
    `influences` it has those of `make_influences`.
    """
    job_id = add_job(database, **fields)
    claim = claim_job(database)
    assert claim.job_id == job_id
    relabel = fields.get("task") == "relabel"
    soft = fields.get("relabel", {}).get("targets") == "soft"
    rows = make_rows(num_rows, relabel=relabel, soft=soft)
    num_labelled = num_rows - rows.column("rank").null_count
    num_kept = num_labelled * 3 // 4
    for index, batch in enumerate(rows.to_batches(max_chunksize=chunk_rows)):
        data = encode_chunk(apply_num_kept(batch, num_kept))
        chunk = ChunkTable(
            job_id=job_id,
            attempt=claim.attempt,
            index=index,
            row_start=index * chunk_rows,
            num_rows=batch.num_rows,
            sha256=hashlib.sha256(data).hexdigest(),
            data=data,
        )
        with database.write() as session:
            AttemptRepository(session).add_chunk(chunk)
    kept = pa.Table.from_batches([apply_num_kept(batch, num_kept) for batch in rows.to_batches()])
    result = ResultTable(
        job_id=job_id,
        attempt=claim.attempt,
        num_rows=num_rows,
        num_labelled=num_labelled,
        num_kept=num_kept,
        summary=_summarise(kept, num_kept) | ({"relabel": _summarise_labels(kept, soft=soft)} if relabel else {}),
        manifest=_make_manifest(num_rows) | ({"influences": {"num_rows": 2}} if influences else {}),
    )
    data = encode_chunk(make_influences())
    sha256 = hashlib.sha256(data).hexdigest()
    traced = InfluencesTable(job_id=job_id, attempt=claim.attempt, sha256=sha256, data=data) if influences else None
    with database.write() as session:
        repository = AttemptRepository(session)
        points = [MetricPoint(step=step, base_loss=1 / step, examples_per_second=100.0) for step in (1, 2, 3)]
        repository.record(job_id, claim.attempt, metrics=points, events=[("note", "half way")])
        repository.complete(result, list(_make_previews(job_id, claim.attempt, kept)), traced)
    return job_id


def make_influences() -> pa.RecordBatch:
    """Return influences on rows 7 and 3 as stored."""
    columns = {
        "row": [7, 7, 3],
        "id": ["=cmd(7)", "=cmd(7)", "id-3"],
        "rank": [1, 2, 1],
        "meta_row": [4, 0, 4],
        "meta_id": ["trusted-4", "trusted-0", "trusted-4"],
        "meta_label": ["ham", "spam", "ham"],
        "influence": [-0.5, -0.125, -0.25],
    }
    return pa.RecordBatch.from_pydict(columns, influences_schema(pa.string(), pa.string(), pa.string()))


def _summarise_labels(rows: pa.Table, *, soft: bool) -> dict[str, Any]:
    changed = [values for values in rows.to_pylist() if values["corrected"]]
    return {
        "targets": "soft" if soft else "hard",
        "min_confidence": 0.6,
        "min_noise": 0.5,
        "rule": "where the suggested label is more probable",
        "num_corrected": sum(values["given_label"] is not None for values in changed),
        "num_labelled": sum(values["given_label"] is None for values in changed),
        "num_kept": sum(values["keep"] for values in changed),
        "expected_right_before": 0.7,
        "expected_right_after": 0.9,
        "num_changes": 3,
        "changes": [
            {"given": "ham", "label": "spam", "count": 12, "mean_confidence": 0.8},
            {"given": None, "label": "<b>spam</b>", "count": 1, "mean_confidence": 0.7},
        ],
    }


def _make_previews(job_id: str, attempt: int, rows: pa.Table) -> list[PreviewTable]:
    picture = io.BytesIO()
    Image.new("RGB", (4, 4), "red").save(picture, "PNG")
    found = [values for values in rows.to_pylist() if values["rank"] is not None]
    found.sort(key=lambda values: -(values["noise_score"] or 0.0))
    names = (
        "row", "given_label", "suggested_label", "label_confidence", "noise_score", "weight", "score", "label",
        "corrected",
    )  # fmt: skip
    return [
        PreviewTable(
            **{name: values[name] for name in names},
            job_id=job_id,
            attempt=attempt,
            suspicion_rank=place,
            example_id=values["id"],
            keep=values["keep"],
            reason=values["reason"],
            text="<script>alert(1)</script> =1+1",
            influences=[_make_influence()] if place == 0 else [],
            image=picture.getvalue() if place == 0 else None,
            image_type="image/png" if place == 0 else None,
        )
        for place, values in enumerate(found[:10])
    ]


def _make_influence() -> dict[str, Any]:
    return {
        "example_id": "trusted-5",
        "label": "<i>ham</i>",
        "strength": 1.0,
        "value": -0.01234,
        "text": "a trusted message",
        "image": None,
    }


def _summarise(rows: pa.Table, num_kept: int) -> dict[str, Any]:
    values = rows.to_pylist()
    labelled = [value for value in values if value["rank"] is not None]
    num_labelled = sum(value["given_label"] is not None for value in values)
    threshold = next(value["score"] for value in labelled if value["rank"] == num_kept - 1)
    arm = {"num_rows": num_kept, "num_steps": 100, "trained_on": "some rows", "interval": [0.7, 0.9]}
    return {
        "num_rows": len(values),
        "num_labelled": num_labelled,
        "num_unlabelled": len(values) - num_labelled,
        "selection": {
            "n_total": len(values),
            "n_labelled": len(labelled),
            "n_kept": num_kept,
            "kept_fraction_of_total": num_kept / len(values),
            "rule": "top",
            "rule_reason": "asked for",
            "class_floor": 0.3,
            "threshold": threshold,
        },
        "weight_histogram": {"edges": [0.0, 1.0, 2.0], "counts": [40, 14]},
        "noise_histogram": {"edges": [0.0, 0.5, 1.0], "counts": [30, 24]},
        "classes": [_group(name, [v for v in labelled if v["given_label"] == name]) for name in CLASSES],
        "sources": [_group(name or "(none)", [v for v in values if v["source"] == name]) for name in SOURCES],
        "num_doubtful": 7,
        "evaluation": {
            "num_test": 10,
            "seeds": [0, 1, 2],
            "arms": [
                arm | {"arm": "full", "accuracy": [0.7, 0.8, 0.9], "mean": 0.8},
                arm | {"arm": "curated", "accuracy": [0.75, 0.85, 0.95], "mean": 0.85},
            ],
            "comparisons": [{"arm": "full", "difference": 0.05, "interval": [0.01, 0.09]}],
            "interval_method": "t over seeds",
            "verdict": "Curated beats full by 5 points <b>for sure</b>.",
        },
        "notes": ["6 rows are unlabelled."],
    }


def _group(name: str, values: list[dict[str, Any]]) -> dict[str, Any]:
    num_kept = sum(value["keep"] for value in values)
    return {
        "name": name,
        "num_rows": len(values),
        "num_kept": num_kept,
        "keep_rate": num_kept / len(values),
        "mean_weight": 1.0,
        "mean_noise_score": 0.25,
    }


def _make_manifest(num_rows: int) -> dict[str, Any]:
    return json.loads(
        json.dumps(
            {
                "source": {
                    "uri": "data.csv",
                    "revision": None,
                    "rows": num_rows,
                    "rows_digest": "sha256:" + "0" * 64,
                    "files": [{"name": "data.csv", "sha256": "1" * 64, "bytes": 100}],
                },
                "selection": {},
                "weights": {
                    "semantics": "multiply each example's loss",
                    "normalisation": "mean 1 over labelled rows",
                    "averaged_over": 5,
                },
                "method": {
                    "name": "sama",
                    "hyperparameters": {"epochs": 2},
                    "model": {"name": "text", "chosen_because": "the inputs are text", "num_parameters": 10},
                    "code_version": "0.1.0",
                    "torch_version": "2.13.0",
                    "device": "cpu",
                    "seed": 0,
                },
                "meta_set": {
                    "kind": "split",
                    "digest": "2" * 64,
                    "n": 10,
                    "overlap_with_train": 0,
                    "overlap_with_test": 0,
                },
                "labels": {"names": list(CLASSES), "type": "string"},
                "evaluation": "not evaluated",
                "document_digest": "sha256:" + "3" * 64,
            }
        )
    )
