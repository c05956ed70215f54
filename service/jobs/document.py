"""The job document: what a person asks for, shared by HTTP, the client, the CLI and the worker."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Annotated, Any

from pydantic import Field, ValidationError

from service.errors import Problem, ServiceError
from service.jobs.document_faults import list_shape_problems
from service.jobs.document_names import refuse
from service.jobs.document_rules import SCHEME, list_rule_problems
from service.jobs.document_specs import (
    ALL_OTHER_COLUMNS,
    BASELINES,
    META_FREE_BASELINES,
    AbstractSpec,
    DatasetSpec,
    EvaluationSpec,
    LeakageSpec,
    LimitsSpec,
    MetaSpec,
    MethodSpec,
    ModelSpec,
    PlantSpec,
    RelabelSpec,
    ResourcesSpec,
    SelectionSpec,
    SplitSpec,
    Task,
    TestSpec,
    TrainingSpec,
)
from service.jobs.document_text import parse_value, read_document, set_field
from service.jobs.evaluation_rules import fill_arms, fill_evaluation

__all__ = [
    "ALL_OTHER_COLUMNS",
    "BASELINES",
    "META_FREE_BASELINES",
    "DatasetSpec",
    "DocumentError",
    "EvaluationSpec",
    "JobDocument",
    "LeakageSpec",
    "LimitsSpec",
    "MetaSpec",
    "MethodSpec",
    "ModelSpec",
    "PlantSpec",
    "RelabelSpec",
    "ResourcesSpec",
    "SelectionSpec",
    "SplitSpec",
    "TestSpec",
    "TrainingSpec",
    "anchor_uris",
    "canonical_json",
    "document_digest",
    "parse_document",
    "parse_value",
    "read_document",
    "set_field",
]

DEFAULT_PRUNE_FRACTION = 0.8


class DocumentError(ServiceError):
    """A job document that is refused; `problems` lists every fault found in it."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        first = problems[0]
        more = f" ({len(problems) - 1} more)" if len(problems) > 1 else ""
        super().__init__(
            "invalid_document",
            f"{first.message}{more}",
            param=first.param,
            hint="Mend every problem listed, then send the document again.",
            problems=problems,
        )


def _drop_default(schema: dict[str, Any]) -> None:
    """Leave the default out of a field's schema where an absent field is something else than its default value."""
    del schema["default"]


class JobDocument(AbstractSpec):
    """One request for curation, with every default filled in.

    `evaluation` None is a job without one; the one that a document has by default is filled in by `parse_document`.
    """

    name: Annotated[str, Field(max_length=200)] | None = None
    dataset: DatasetSpec
    meta: MetaSpec | None = None
    test: TestSpec | None = None
    leakage: LeakageSpec = LeakageSpec()
    task: Task = "reweight"
    model: ModelSpec = ModelSpec()
    method: MethodSpec = MethodSpec()
    training: TrainingSpec = TrainingSpec()
    selection: SelectionSpec = SelectionSpec()
    relabel: RelabelSpec | None = None
    evaluation: EvaluationSpec | None = Field(
        None,
        description="null: none; absent: all of it where test is given, else the baseline alone",
        json_schema_extra=_drop_default,
    )
    limits: LimitsSpec = LimitsSpec()
    resources: ResourcesSpec = ResourcesSpec()
    labels: dict[str, str] = Field(default_factory=dict)

    @property
    def keep_fraction(self) -> float:
        """The share of all curated rows that is kept: as given, else 0.8 for prune and 1 for the other tasks."""
        if self.selection.keep_fraction is not None:
            return self.selection.keep_fraction
        return DEFAULT_PRUNE_FRACTION if self.task == "prune" else 1.0

    @property
    def relabelling(self) -> RelabelSpec | None:
        """When a label is corrected; None where the task leaves labels as they are."""
        if self.task != "relabel":
            return None
        return self.relabel or RelabelSpec()

    @property
    def has_soft_labels(self) -> bool:
        """True where rows get the probability of every class to train on."""
        return self.relabelling is not None and self.relabelling.targets == "soft"

    @property
    def meta_label(self) -> str:
        """The column with the trusted label of the meta set."""
        return (self.meta.label if self.meta else None) or self.dataset.label

    @property
    def test_label(self) -> str:
        """The column with the label of the test set."""
        return (self.test.label if self.test else None) or self.dataset.label


def parse_document(data: object, *, is_stored: bool = False) -> JobDocument:
    """Check a raw document, as read from YAML or JSON, and fill in its defaults.

    One `is_stored` with a finished job was taken once, maybe by an earlier version: rules between its fields, which may
    have become stricter since, say nothing of it.

    A field that is null counts as not given, but for `evaluation`, where null is none and only an absent field is the
    default one.

    Raises:
        DocumentError: `invalid_document`, with every problem of the document, not the first alone.
    """
    if not isinstance(data, Mapping):
        raise DocumentError([refuse("document", data, "a mapping of fields such as dataset, meta and task")])
    raw = _drop_nulls(data)
    _spread_names(raw)
    if "evaluation" not in data:
        fill_evaluation(raw)
    fill_arms(raw)
    problems: list[Problem] = []
    document: JobDocument | None = None
    try:
        document = JobDocument.model_validate(raw)
    except ValidationError as exc:
        problems = list_shape_problems(exc, JobDocument)
    named = {problem.param for problem in problems}
    if not is_stored:
        problems += [problem for problem in list_rule_problems(raw) if problem.param not in named]
    if problems or document is None:
        raise DocumentError(problems)
    return document


def canonical_json(document: JobDocument) -> str:
    """Return the document, defaults included, as JSON with sorted keys: equal documents give equal text."""
    fields = document.model_dump(mode="json", by_alias=True)
    return json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def document_digest(document: JobDocument) -> str:
    """Return the digest of the canonical JSON, as `sha256:` and 64 hexadecimal digits."""
    return "sha256:" + hashlib.sha256(canonical_json(document).encode()).hexdigest()


def anchor_uris(data: dict[str, Any], folder: PurePath) -> None:
    """Make the relative local paths of a raw document start at `folder`, where the document itself lies."""
    for section in ("dataset", "meta", "test"):
        fields = data.get(section)
        if isinstance(fields, dict) and isinstance(fields.get("uri"), str) and not SCHEME.match(fields["uri"]):
            fields["uri"] = str(folder / fields["uri"])
    model = data.get("model")
    if isinstance(model, dict) and isinstance(model.get("name"), str) and model["name"].startswith(("hf:./", "hf:../")):
        model["name"] = f"hf:{folder / model['name'].removeprefix('hf:')}"


def _drop_nulls(value: Mapping[Any, Any]) -> dict[str, Any]:
    return {
        str(key): _drop_nulls(inner) if isinstance(inner, Mapping) else inner
        for key, inner in value.items()
        if inner is not None
    }


def _spread_names(raw: dict[str, Any]) -> None:
    """Read `features: "*"` and a single column name, of features or of votes, as a list of one."""
    dataset = raw.get("dataset")
    for field in ("features", "votes"):
        if isinstance(dataset, dict) and isinstance(dataset.get(field), str):
            dataset[field] = [dataset[field]]
