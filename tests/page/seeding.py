"""Jobs in every state, written as an attempt writes them, for pages to show."""

import base64
import hashlib
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image
from sqlalchemy import update

from service.attempts.repository import AttemptRepository
from service.attempts.state import Failure, MetricPoint, Progress
from service.db.engine import Database
from service.jobs.document import canonical_json, document_digest, parse_document
from service.jobs.repository import JobRepository, NewJob
from service.jobs.state import Phase
from service.jobs.tables import JobTable
from service.results.reasons import list_plain_findings
from service.results.rows import FINDING, apply_num_kept, encode_chunk, stored_schema
from service.results.tables import ChunkTable, PreviewTable, ResultTable
from tests.page.evaluation_scene import make_evaluation

LEASE_SECONDS = 3600.0
NUM_ROWS = 400
NUM_KEPT = 280
CLASSES = [str(digit) for digit in range(10)]


@dataclass(frozen=True)
class Seeder:
    """Writes jobs into a database."""

    database: Database

    def queue(self, name: str | None = "waiting", labels: Mapping[str, str] | None = None) -> str:
        """Add a job that no worker has taken."""
        document = parse_document(
            {
                "name": name,
                "dataset": {"uri": "/data/digits.parquet", "image": "image", "label": "label"},
                "meta": {"fraction": 0.05},
                "task": "prune",
                "evaluation": None,
                "labels": dict(labels or {}),
            }
        )
        new = NewJob(
            document=canonical_json(document),
            document_digest=document_digest(document),
            max_attempts=3,
            max_seconds=3600.0,
            name=name,
            labels=dict(labels or {}),
        )
        with self.database.write() as session:
            return JobRepository(session).add(new).id

    def train(self, name: str = "training now", labels: Mapping[str, str] | None = None) -> str:
        """Add a job in the middle of its training, with curves."""
        job_id = self.queue(name, labels)
        with self.database.write() as session:
            # Ahead of whatever else is queued, so that the claim takes this one.
            session.execute(update(JobTable).where(JobTable.id == job_id).values(priority=1))
            attempts = AttemptRepository(session)
            claim = attempts.claim("host-1", LEASE_SECONDS)
            assert claim is not None
            assert claim.job_id == job_id
            for phase in (Phase.VALIDATING, Phase.READING, Phase.TRAINING):
                attempts.enter_phase(job_id, 1, phase, f"{phase} began")
            attempts.record(
                job_id,
                1,
                progress=Progress(progress=0.43, rate=1840.0, rate_unit="examples/s", eta_seconds=74.0),
                metrics=list(_make_metrics(160)),
                events=[("note", "model auto chose cnn: images of 8 x 8 pixels")],
            )
        return job_id

    def fail(self, name: str = "failed job") -> str:
        """Add a job that failed with a message a person can act on."""
        job_id = self.train(name)
        failure = Failure("bad_data", "Row 17 has an image that cannot be read.", "Repair or remove row 17.")
        with self.database.write() as session:
            AttemptRepository(session).fail(job_id, 1, failure)
        return job_id

    def succeed(
        self,
        name: str = "digits",
        *,
        labels: Mapping[str, str] | None = None,
        texts: Sequence[str] = (),
        class_names: Sequence[str] = CLASSES,
        relabel: bool = False,
    ) -> str:
        """Add a finished job with rows, previews (of `texts`, or small images) and an evaluation.

        With `relabel`, every label in doubt is corrected.
        """
        job_id = self.train(name, labels)
        rows = _make_rows(class_names, relabel=relabel)
        data = encode_chunk(rows)
        with self.database.write() as session:
            attempts = AttemptRepository(session)
            attempts.add_chunk(
                ChunkTable(
                    job_id=job_id,
                    attempt=1,
                    index=0,
                    row_start=0,
                    num_rows=NUM_ROWS,
                    sha256=hashlib.sha256(data).hexdigest(),
                    data=data,
                )
            )
            result = ResultTable(
                job_id=job_id,
                attempt=1,
                num_rows=NUM_ROWS,
                num_labelled=NUM_ROWS,
                num_kept=NUM_KEPT,
                summary=_make_summary(rows, class_names)
                | ({"relabel": _make_relabel_summary(rows)} if relabel else {}),
                manifest=_make_manifest(class_names),
            )
            attempts.complete(result, list(_make_previews(job_id, rows, texts)))
        return job_id


def _make_metrics(num_points: int) -> Sequence[MetricPoint]:
    generator = np.random.default_rng(1)
    steps = np.arange(num_points) * 10
    wobble = generator.normal(0, 0.03, (num_points, 4))
    return [
        MetricPoint(
            step=int(step),
            base_loss=float(2.2 * np.exp(-step / 500) + 0.3 + wobble[i, 0]),
            meta_loss=float(2.0 * np.exp(-step / 400) + 0.2 + wobble[i, 1]) if i else None,
            hypergradient_norm=float(10 ** (-1 - step / 700 + wobble[i, 2])) if i else None,
            effective_sample_size=float(64 * (0.72 + 0.25 * np.exp(-step / 300) + 0.2 * wobble[i, 3])),
            examples_per_second=1840.0,
        )
        for i, step in enumerate(steps)
    ]


def _make_rows(class_names: Sequence[str], *, relabel: bool) -> pa.RecordBatch:
    generator = np.random.default_rng(0)
    given = generator.integers(0, len(class_names), NUM_ROWS)
    wrong = generator.random(NUM_ROWS) < 0.3
    suggested = np.where(
        wrong, (given + 1 + generator.integers(0, len(class_names) - 1, NUM_ROWS)) % len(class_names), given
    )
    noise = np.where(wrong, generator.beta(8, 2, NUM_ROWS), generator.beta(1.5, 12, NUM_ROWS)).astype(np.float32)
    weight = (1.35 * (1 - noise) + generator.normal(0, 0.05, NUM_ROWS)).clip(0).astype(np.float32)
    rank = np.empty(NUM_ROWS, dtype=np.int64)
    rank[np.argsort(noise, kind="stable")] = np.arange(NUM_ROWS)
    corrected = relabel & (suggested != given) & (noise >= 0.5)
    columns: dict[str, Any] = {
        "row": np.arange(NUM_ROWS),
        "id": np.arange(NUM_ROWS),
        "content_sha256": [hashlib.sha256(str(row).encode()).hexdigest() for row in range(NUM_ROWS)],
        "source": [None] * NUM_ROWS,
        "given_label": [class_names[code] for code in given],
        "given_weight": weight * np.where(corrected, np.float32(0.1), np.float32(1)),
        "given_score": weight * np.where(corrected, np.float32(0.1), np.float32(1)),
        "weight": weight,
        "weight_std": weight * np.float32(0.1),
        "score": weight,
        "rank": rank,
        "noise_score": noise,
        "suggested_label": [class_names[code] for code in suggested],
        "label_confidence": (0.5 + noise / 2).astype(np.float32),
        "label": [class_names[code] for code in np.where(corrected, suggested, given)],
        "corrected": corrected,
        "keep": [False] * NUM_ROWS,
        "reason": [""] * NUM_ROWS,
        FINDING: [""] * NUM_ROWS,
    }
    schema = stored_schema(pa.int64(), pa.string())
    arrays = [pa.array(columns[field.name], field.type) for field in schema]
    batch = pa.RecordBatch.from_arrays(arrays, schema=schema)
    findings = pa.array(list_plain_findings(batch), pa.string())
    return apply_num_kept(batch.set_column(schema.get_field_index(FINDING), FINDING, findings), NUM_KEPT)


def _make_relabel_summary(rows: pa.RecordBatch) -> dict[str, Any]:
    changed = [row for row in rows.to_pylist() if row["corrected"]]
    pairs = Counter((row["given_label"], row["label"]) for row in changed)
    return {
        "targets": "hard",
        "min_confidence": 0.8,
        "min_noise": 0.5,
        "rule": "where the suggested label is more probable than the given one and at least 0.8 probable",
        "num_corrected": len(changed),
        "num_labelled": 0,
        "num_kept": sum(row["keep"] for row in changed),
        "expected_right_before": 0.71,
        "expected_right_after": 0.93,
        "num_changes": len(pairs),
        "changes": [
            {"given": given, "label": label, "count": count, "mean_confidence": 0.9}
            for (given, label), count in pairs.most_common(20)
        ],
    }


def _make_previews(job_id: str, rows: pa.RecordBatch, texts: Sequence[str]) -> Sequence[PreviewTable]:
    items = sorted(rows.to_pylist(), key=lambda item: -item["noise_score"])[: len(texts) or 24]
    previews = []
    for place, item in enumerate(items):
        image = None if texts else _draw_digit(item["row"])
        previews.append(
            PreviewTable(
                job_id=job_id,
                attempt=1,
                row=item["row"],
                suspicion_rank=place,
                example_id=str(item["id"]),
                **{name: item[name] for name in ("given_label", "suggested_label", "label_confidence", "reason")},
                **{name: item[name] for name in ("noise_score", "weight", "score", "label", "corrected", "keep")},
                influences=[_make_influence(item["row"])] if place < 2 else [],
                text=texts[place] if texts else None,
                image=image,
                image_type="image/png" if image else None,
            )
        )
    return previews


def _make_influence(row: int) -> dict[str, Any]:
    image = f"data:image/png;base64,{base64.b64encode(_draw_digit(row + 1)).decode()}"
    return {"example_id": f"trusted-{row}", "label": "7", "strength": 1.0, "text": None, "image": image}


def _draw_digit(seed: int) -> bytes:
    from sklearn.datasets import load_digits

    pixels = 255 - load_digits().images[seed] * 15.9
    buffer = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def _make_summary(rows: pa.RecordBatch, class_names: Sequence[str]) -> dict[str, Any]:
    table = rows.to_pylist()
    return {
        "num_rows": NUM_ROWS,
        "num_labelled": NUM_ROWS,
        "num_unlabelled": 0,
        "selection": {
            "n_total": NUM_ROWS,
            "n_labelled": NUM_ROWS,
            "n_kept": NUM_KEPT,
            "kept_fraction_of_total": NUM_KEPT / NUM_ROWS,
            "rule": "balanced",
            "rule_reason": "a plain cut would have left class 8 with 12% of its rows",
            "class_floor": 0.3,
            "threshold": 0.61,
        },
        "weight_histogram": _make_histogram([row["weight"] for row in table], 2.0),
        "noise_histogram": _make_histogram([row["noise_score"] for row in table], 1.0),
        "classes": [_make_group(name, [row for row in table if row["given_label"] == name]) for name in class_names],
        "sources": [],
        "num_doubtful": sum(row["noise_score"] >= 0.5 for row in table),
        "evaluation": make_evaluation(NUM_ROWS, NUM_KEPT),
        "notes": ["3 test examples stand also among the curated rows; they are left in both."],
    }


def _make_manifest(class_names: Sequence[str]) -> dict[str, Any]:
    return {
        "source": {
            "uri": "/data/digits.parquet",
            "revision": None,
            "rows": NUM_ROWS,
            "rows_digest": "0" * 64,
            "files": [{"name": "digits.parquet", "sha256": "1" * 64, "bytes": 70_000}],
        },
        "weights": {
            "semantics": "multiply each example's loss",
            "normalisation": "mean 1 over labelled rows",
            "averaged_over": 5,
        },
        "method": {
            "name": "sama",
            "hyperparameters": {"epochs": 20},
            "model": {"name": "cnn", "chosen_because": "the examples are small images", "num_parameters": 9000},
            "code_version": "0.1.0",
            "torch_version": "2.13.0",
            "device": "cpu",
            "seed": 0,
        },
        "meta_set": {"kind": "fraction", "digest": "2" * 64, "n": 20, "overlap_with_train": 20, "overlap_with_test": 0},
        "labels": {"names": list(class_names), "type": "string"},
        "evaluation": "not evaluated",
        "document_digest": "sha256:" + "3" * 64,
    }


def _make_histogram(values: Sequence[float], end: float) -> dict[str, list[float] | list[int]]:
    counts, edges = np.histogram(values, bins=25, range=(0.0, end))
    return {"edges": edges.tolist(), "counts": counts.tolist()}


def _make_group(name: str, members: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    num_kept = sum(bool(row["keep"]) for row in members)
    return {
        "name": name,
        "num_rows": len(members),
        "num_kept": num_kept,
        "keep_rate": num_kept / max(len(members), 1),
        "mean_weight": float(np.mean([row["weight"] for row in members])) if members else None,
        "mean_noise_score": float(np.mean([row["noise_score"] for row in members])) if members else None,
    }
