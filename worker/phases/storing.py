"""Storing: chunks under the fence, then one transaction that makes everything visible and the job succeeded."""

import hashlib

from service.attempts.repository import AttemptRepository
from service.jobs.state import Phase
from service.results.rows import encode_chunk
from service.results.schemas import EvaluationSummary
from service.results.tables import ChunkTable, InfluencesTable, ResultTable
from worker.context import AttemptContext
from worker.phases.reading import JobData
from worker.phases.scoring import Outcome
from worker.results.changes import LabelChanges
from worker.results.facts import build_facts
from worker.results.groups import GroupCounts
from worker.results.influences import tabulate_influences
from worker.results.previews import PreviewBuilder
from worker.results.rows import Chunk, RowBuilder
from worker.results.summary import Counts, build_summary


def store_results(
    context: AttemptContext, data: JobData, outcome: Outcome, evaluation: EvaluationSummary | None
) -> None:
    """Store the rows, the previews, the summary and the facts, and end the job in success.

    Raises:
        StaleAttemptError: the attempt does not hold the job any more, or a cancel came first.
    """
    context.progress.enter_phase(Phase.STORING, "storing the results")
    train, claim = data.tables.train, context.claim
    previews = PreviewBuilder(data.tables, data.labelled, outcome, context.settings.max_image_pixels)
    classes, sources, changes = GroupCounts("given_label"), GroupCounts("source"), LabelChanges()
    num_soft = data.tables.label_map.num_classes if context.document.has_soft_labels else 0
    for chunk in RowBuilder(train, data.labelled, outcome, num_soft=num_soft).chunks():
        context.stop.check()
        _store_chunk(context, chunk)
        previews.add(chunk.batch, chunk.row_start)
        classes.add(chunk.batch)
        sources.add(chunk.batch)
        changes.add(chunk.batch)
        context.progress.advance((chunk.row_start + chunk.batch.num_rows) / len(train))
    document = context.document
    summary = build_summary(document, data, outcome, evaluation, Counts(classes, sources, changes))
    result = ResultTable(
        job_id=claim.job_id,
        attempt=claim.attempt,
        num_rows=len(train),
        num_labelled=outcome.num_labels,
        num_kept=outcome.num_kept,
        summary=summary.model_dump(mode="json"),
        manifest=build_facts(document, data, outcome, summary, context.device),
    )
    shown = previews.build(claim.job_id, claim.attempt)
    influences = _build_influences(context, data, outcome)
    with context.database.write() as session:
        AttemptRepository(session).complete(result, shown, influences)


def _build_influences(context: AttemptContext, data: JobData, outcome: Outcome) -> InfluencesTable | None:
    if outcome.influences is None:
        return None
    content = encode_chunk(tabulate_influences(outcome.influences, data.tables, data.labelled))
    return InfluencesTable(
        job_id=context.claim.job_id,
        attempt=context.claim.attempt,
        sha256=hashlib.sha256(content).hexdigest(),
        data=content,
    )


def _store_chunk(context: AttemptContext, chunk: Chunk) -> None:
    content = encode_chunk(chunk.batch)
    row = ChunkTable(
        job_id=context.claim.job_id,
        attempt=context.claim.attempt,
        index=chunk.index,
        row_start=chunk.row_start,
        num_rows=chunk.batch.num_rows,
        sha256=hashlib.sha256(content).hexdigest(),
        data=content,
    )
    with context.database.write() as session:
        AttemptRepository(session).add_chunk(row)
