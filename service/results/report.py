"""`report.html`: one page that shows what was found, readable from a file, with nothing to load."""

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from service.jobs.tables import JobTable
from service.results.chunks import RowReader
from service.results.rows import apply_num_kept
from service.results.schemas import Summary
from service.results.tables import PreviewTable, ResultTable
from service.templating import create_environment

NUM_REPORTED_PREVIEWS = 40
_IMAGE_TYPES = ("image/png", "image/jpeg")


@dataclass(frozen=True, slots=True)
class Suspect:
    """One suspicious example: its preview, and the decision at the selection that is reported."""

    preview: PreviewTable
    keep: bool
    reason: str

    @property
    def image_uri(self) -> str | None:
        """The example's small image as a data URI."""
        preview = self.preview
        if preview.image is None or preview.image_type not in _IMAGE_TYPES:
            return None
        return f"data:{preview.image_type};base64,{base64.b64encode(preview.image).decode()}"


def list_suspects(previews: Sequence[PreviewTable], reader: RowReader, num_kept: int) -> list[Suspect]:
    """Return the previews with `keep` and `reason` for the `num_kept` best-ranked rows."""
    if num_kept == reader.result.num_kept:
        return [Suspect(preview, preview.keep, preview.reason) for preview in previews]
    wanted = np.array([preview.row for preview in previews], dtype=np.int64)
    decided: dict[int, tuple[bool, str]] = {}
    for batch in reader.batches():
        places = np.flatnonzero(np.isin(batch.column("row").to_numpy(), wanted))
        if len(places):
            found = apply_num_kept(batch.take(places), num_kept, reader.terms)
            columns = (found.column(name).to_pylist() for name in ("row", "keep", "reason"))
            decided |= {row: (keep, reason) for row, keep, reason in zip(*columns, strict=True)}
    return [Suspect(preview, *decided[preview.row]) for preview in previews]


def build_report(job: JobTable, result: ResultTable, summary: Summary, suspects: Sequence[Suspect]) -> bytes:
    """Return the page as UTF-8 text."""
    page = _ENVIRONMENT.get_template("report.html").render(
        job=job,
        document=json.loads(job.document),
        manifest=result.manifest,
        summary=summary,
        suspects=suspects,
    )
    return page.encode()


_ENVIRONMENT = create_environment("service.results")
