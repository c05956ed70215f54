"""Previews: the most suspicious and the lightest examples, each with something to look at."""

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image

from service.results.tables import PreviewTable
from service.storage.images import decode_image
from service.storage.roles import RoleTable
from worker.phases.scoring import Outcome
from worker.results.text import clean_text

NUM_SUSPICIOUS = 200
NUM_LIGHTEST = 100
MAX_CHARACTERS = 500
MAX_SIDE = 96
_LOSSLESS_SIDE = 32


class PreviewBuilder:
    """Chooses the rows to preview, collects what was stored of them, and renders their inputs."""

    def __init__(self, train: RoleTable, labelled: NDArray[np.int64], outcome: Outcome, max_pixels: int) -> None:
        self._train = train
        self._max_pixels = max_pixels
        by_noise = np.argsort(-outcome.decisions.noise_score, kind="stable")
        by_weight = np.argsort(outcome.decisions.weight, kind="stable")
        place = np.empty(len(by_noise), dtype=np.int64)
        place[by_noise] = np.arange(len(by_noise))
        chosen = np.union1d(by_noise[:NUM_SUSPICIOUS], by_weight[:NUM_LIGHTEST])
        self._rows = labelled[chosen]
        self._suspicion_rank = {int(labelled[row]): int(place[row]) for row in chosen}
        self._stored: list[dict[str, Any]] = []

    def add(self, batch: pa.RecordBatch, row_start: int) -> None:
        """Take the rows to preview out of a chunk."""
        inside = self._rows[(self._rows >= row_start) & (self._rows < row_start + batch.num_rows)]
        self._stored += batch.take(inside - row_start).to_pylist()

    def build(self, job_id: str, attempt: int, kind: str) -> list[PreviewTable]:
        """Return the previews, by row."""
        inputs = self._train.inputs.take(self._rows).to_pylist()
        return [
            self._build_one(job_id, attempt, stored, self._render(kind, shown))
            for stored, shown in zip(self._stored, inputs, strict=True)
        ]

    def _build_one(
        self, job_id: str, attempt: int, stored: Mapping[str, Any], rendered: Mapping[str, Any]
    ) -> PreviewTable:
        numbers = ("label_confidence", "noise_score", "weight", "score", "keep")
        return PreviewTable(
            job_id=job_id,
            attempt=attempt,
            row=stored["row"],
            suspicion_rank=self._suspicion_rank[stored["row"]],
            example_id=clean_text(str(stored["id"])),
            given_label=clean_text(str(stored["given_label"])),
            suggested_label=clean_text(str(stored["suggested_label"])),
            reason=clean_text(stored["reason"]),
            **{name: stored[name] for name in numbers},
            **rendered,
        )

    def _render(self, kind: str, shown: Mapping[str, Any]) -> dict[str, Any]:
        if kind == "image":
            data, media_type = make_thumbnail(next(iter(shown.values())), self._max_pixels)
            return {"image": data, "image_type": media_type}
        if kind == "text":
            text = next(iter(shown.values())) or ""
        else:
            text = ", ".join(f"{name}={_write_value(value)}" for name, value in shown.items())
        return {"text": clean_text(text[:MAX_CHARACTERS])}


def make_thumbnail(data: bytes, max_pixels: int) -> tuple[bytes, str]:
    """Return a small PNG or, where it is not tiny, JPEG of an image, and its media type."""
    image: Image.Image = decode_image(data, max_pixels)
    if image.mode.startswith("I"):
        image = Image.fromarray((np.asarray(image).astype(np.float64) / 257.0).clip(0, 255).astype(np.uint8))
    image = image.convert("RGBA" if "transparency" in image.info else image.mode)
    image = image.convert("L" if image.mode in {"1", "L", "LA"} else "RGB")
    image.thumbnail((MAX_SIDE, MAX_SIDE))
    tiny = max(image.size) <= _LOSSLESS_SIDE
    target = io.BytesIO()
    image.save(target, format="PNG" if tiny else "JPEG")
    return target.getvalue(), "image/png" if tiny else "image/jpeg"


def _write_value(value: object) -> str:
    if value is None:
        return "(missing)"
    return f"{value:g}" if isinstance(value, float) else str(value)
