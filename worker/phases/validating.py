"""Validating: the data a document names is opened, read through and checked before anything is trained."""

from service.errors import ServiceError
from service.jobs.state import Phase
from service.storage.inspection import inspect_dataset
from worker.context import AttemptContext

_MAX_PROBLEMS_TOLD = 5


def validate(context: AttemptContext) -> list[str]:
    """Inspect the data and return what the user should know of it.

    Raises:
        ServiceError: `bad_data`; every problem is listed.
    """
    context.progress.enter_phase(Phase.VALIDATING, "checking the document and the data")
    report = inspect_dataset(
        context.document, context.settings, on_rows=lambda _count: context.stop.check(), folder=context.folder.path
    )
    if report.problems:
        told = " ".join(problem.message for problem in report.problems[:_MAX_PROBLEMS_TOLD])
        num_more = len(report.problems) - _MAX_PROBLEMS_TOLD
        more = f" And {num_more} more problems." if num_more > 0 else ""
        raise ServiceError(
            "bad_data",
            told + more,
            param=report.problems[0].param,
            hint="Mend the data or the document, then submit the job again; `sama validate` lists every problem.",
            problems=report.problems,
        )
    return list(report.notes)
