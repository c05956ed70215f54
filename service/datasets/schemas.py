"""The inspection report: what a data set holds and whether a job could run on it, known before it runs."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

from service.errors import Problem
from service.jobs.document_specs import LeakageAction

SchemaRole = Literal["train", "meta", "test"]


class AbstractReport(BaseModel):
    """A part of the report: fixed once made."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ColumnReport(AbstractReport):
    """One column of a file, its type, and what the document uses it for."""

    name: str
    type: str
    used_as: tuple[str, ...] = ()


class FileReport(AbstractReport):
    """One file that the document names."""

    uri: str
    roles: tuple[SchemaRole, ...]
    format: str
    num_rows: int
    num_bytes: int
    columns: tuple[ColumnReport, ...]


class RoleReport(AbstractReport):
    """The rows of one role; missing values by input column.

    `num_excluded` counts test and trusted rows that leak and are left out. A share of the curated rows has no bytes of
    its own.
    """

    role: SchemaRole
    num_rows: int
    num_labelled: int
    num_unlabelled: int
    num_excluded: int = 0
    num_input_bytes: int | None = None
    num_missing: dict[str, int] = {}
    rows_digest: str | None = None


class ClassReport(AbstractReport):
    """One class: its label, its code 0..C-1, and how many labelled rows of each role bear it."""

    label: int | str
    code: int
    num_train: int
    num_meta: int | None = None
    num_test: int | None = None


class DuplicateReport(AbstractReport):
    """Examples with equal or nearly equal inputs: within one role, or in two roles.

    `count` is the number of rows of `second` that stand in `first` (within one role: that repeat an earlier row); near
    duplicates are counted where there is no exact one. `examples` are pairs of row numbers, one in each role.
    """

    first: SchemaRole
    second: SchemaRole
    kind: Literal["exact", "near"] = "exact"
    count: int
    examples: tuple[tuple[int, int], ...]


class LeakageReport(AbstractReport):
    """The guard over test rows that were trained on too, and over trusted rows that stand among the curated ones.

    `action` is what is done about test rows, `trusted` what about trusted ones. `similarity` is how alike two examples
    had to be; without one, `not_searched` says why near duplicates were not looked for.
    """

    action: LeakageAction
    trusted: LeakageAction
    similarity: float | None
    not_searched: str | None
    num_leaking_test_rows: int
    num_excluded_test_rows: int
    num_leaking_trusted_rows: int
    num_excluded_trusted_rows: int


class VoteReport(AbstractReport):
    """The votes of labelling functions: on how many curated rows any votes, and on how many two votes differ."""

    num_functions: int
    num_covered: int
    num_disagreeing: int


class EstimateReport(AbstractReport):
    """Roughly what the job will take, and on what that rests."""

    model: str
    seconds: float
    memory_bytes: int
    basis: str


class InspectionReport(AbstractReport):
    """Everything known before a job runs. With any problem the job would be refused."""

    document_digest: str
    kind: Literal["text", "image", "features"]
    features: dict[str, Literal["numeric", "categorical"]] = {}
    files: tuple[FileReport, ...] = ()
    roles: tuple[RoleReport, ...] = ()
    classes: tuple[ClassReport, ...] = ()
    duplicates: tuple[DuplicateReport, ...] = ()
    leakage: LeakageReport | None = None
    votes: VoteReport | None = None
    estimate: EstimateReport | None = None
    notes: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()

    @property
    def is_valid(self) -> bool:
        """Tell whether a job could run on this data."""
        return not self.problems
