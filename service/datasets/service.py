"""The door to inspection for everybody who serves requests."""

from collections.abc import Sequence

from service.datasets.schemas import InspectionReport
from service.errors import Problem
from service.jobs.document import JobDocument
from service.storage.findings import Findings
from service.storage.inputs import DataLimits
from service.storage.inspection import find_file_problems, inspect_dataset


def inspect(document: JobDocument, limits: DataLimits) -> InspectionReport:
    """Open the data of a document and report what it holds; problems are in the report, not raised."""
    return inspect_dataset(document, limits)


def check_files(document: JobDocument, limits: DataLimits) -> Sequence[Problem]:
    """Return the problems of the files a document names - missing, not allowed - without reading a row."""
    findings = Findings()
    find_file_problems(document, limits, findings)
    return findings.list_problems()
