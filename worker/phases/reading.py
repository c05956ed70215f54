"""Reading: tables become encoded data sets, the model is chosen, every hyperparameter is settled."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.metadata import version

import numpy as np
import torch
from numpy.typing import NDArray

from sama_core import AbstractExamples, CurationOptions
from service.jobs.document import parse_document
from service.jobs.state import Phase
from service.settings import Settings
from service.storage.roles import DatasetTables, RoleTable, read_dataset
from worker.context import AttemptContext
from worker.data.arrays import ArrayFolder
from worker.data.examples import AbstractEncoder, Part
from worker.data.unlabelled import UnlabelledRows, encode_unlabelled
from worker.models.choice import ModelChoice, choose_model
from worker.models.defaults import resolve_options
from worker.models.plan import plan_model
from worker.models.registry import NetworkBuilder
from worker.schedule import ScheduleCut

CODE_VERSION = version("sama")


@dataclass(frozen=True)
class JobData:
    """The data of a job, encoded, and what was settled about its training.

    Attributes:
        tables: the rows of every role as read.
        labelled: (N,) positions of the labelled rows among all curated rows; `train` holds these alone.
        train: labelled curated examples.
        meta: trusted examples, or None.
        test: labelled test examples, or None where nothing is evaluated.
        choice: the model and why.
        options: every hyperparameter.
        method_name: the curation method.
        builder: makes the network for a seed.
        notes: what the user should know of the data and its encoding.
        fingerprint: names all that a checkpoint depends on.
        unlabelled: curated rows without a label, where the document asks for labels for them, or None.
        cut: that the training takes fewer epochs than the document and the model would have it, or None.
    """

    tables: DatasetTables
    labelled: NDArray[np.int64]
    train: AbstractExamples
    meta: AbstractExamples | None
    test: AbstractExamples | None
    choice: ModelChoice
    options: CurationOptions
    method_name: str
    builder: NetworkBuilder
    notes: list[str]
    fingerprint: str
    unlabelled: UnlabelledRows | None = None
    cut: ScheduleCut | None = None

    def shorten(self, cut: ScheduleCut | None) -> "JobData":
        """Return the same data with the epochs of a cut, if there is one; what was wanted at first is remembered."""
        if cut is None:
            return self
        whole = cut if self.cut is None else replace(cut, wanted=self.cut.wanted)
        return replace(self, cut=whole, options=replace(self.options, epochs=cut.epochs))


@dataclass(frozen=True)
class DataRequest:
    """All that the data of a job depend on: every process that is given the same reads the same.

    Attributes:
        text: the document as the job's row has it.
        settings: limits, and where data may lie.
        device: where it will be trained on.
        folder: for encoded data.
        check: called now and then; may raise, which ends the reading.
    """

    text: str
    settings: Settings
    device: torch.device
    folder: ArrayFolder
    check: Callable[[], None]


def read_data(context: AttemptContext, notes: list[str]) -> JobData:
    """Read and encode the data of a job; `notes` are what validation has to tell.

    Raises:
        DataError: the data has changed since it was validated, or cannot be read.
        ServiceError: `bad_model`; the folder of a pretrained model cannot be used.
    """
    progress = context.progress
    progress.enter_phase(Phase.READING, "reading and encoding the data")
    request = DataRequest(context.claim.document, context.settings, context.device, context.folder, context.stop.check)
    return load_data(
        request, notes, lambda choice: progress.add_event("model", f"model {choice.name}: {choice.because}")
    )


def load_data(request: DataRequest, notes: list[str], on_choice: Callable[[ModelChoice], None]) -> JobData:
    """Read and encode the data that a request names; `on_choice` hears of the model before the long part begins.

    Raises:
        DataError: the data has changed since it was validated, or cannot be read.
        ServiceError: `bad_model`; the folder of a pretrained model cannot be used.
    """
    document, folder = parse_document(json.loads(request.text)), request.folder
    tables = read_dataset(document, request.settings, folder.path, on_rows=lambda _count: request.check())
    labelled = np.flatnonzero(tables.train.labels >= 0)
    choice = choose_model(document, len(labelled), request.device)
    on_choice(choice)
    part = _select_labelled("train", tables.train)
    plan = plan_model(choice.name, tables.kind, part, request.settings)
    num_classes = tables.label_map.num_classes
    has_meta = tables.meta is not None and document.meta is not None
    options = resolve_options(document, choice.name, len(labelled), judges_itself=not has_meta)
    train = plan.encoder.encode(part, num_classes, folder)
    if document.dataset.source is not None:
        train.sources = _number_sources(tables.train, labelled)
    if tables.train.votes is not None:
        train.votes = torch.from_numpy(tables.train.votes[labelled])
    unlabelled = encode_unlabelled(document, tables.train, plan.encoder, num_classes, folder)
    if unlabelled is not None:
        train.unlabelled = unlabelled.examples
        if tables.train.votes is not None:
            unlabelled.examples.votes = torch.from_numpy(tables.train.votes[unlabelled.rows])
    meta = _encode(folder, plan.encoder, "meta", tables.meta, num_classes)
    if meta is not None:
        _link_trusted(meta, tables, labelled)
        _group(tables, labelled, train, unlabelled)
    return JobData(
        tables=tables,
        labelled=labelled,
        train=train,
        meta=meta,
        test=_encode(folder, plan.encoder, "test", tables.test, num_classes) if document.evaluation else None,
        choice=choice,
        options=options,
        method_name=document.method.name,
        builder=plan.create_builder(num_classes),
        notes=list(dict.fromkeys([*notes, *tables.notes, *plan.encoder.notes])),
        fingerprint=_make_fingerprint(request, tables, choice, options),
        unlabelled=unlabelled,
    )


def _link_trusted(meta: AbstractExamples, tables: DatasetTables, labelled: NDArray[np.int64]) -> None:
    """Tell of each trusted example which training example it is, and which label the data delivered for it."""
    assert tables.meta is not None and tables.meta_train_rows is not None and tables.meta_given_labels is not None
    assert tables.meta_groups is not None
    is_used = tables.meta.labels >= 0
    place_N = np.full(len(tables.train) + 1, -1, dtype=np.int64)  # the last one is that of row -1: none
    place_N[labelled] = np.arange(len(labelled))
    meta.train_rows = torch.from_numpy(place_N[tables.meta_train_rows[is_used]])
    meta.given_labels = torch.from_numpy(tables.meta_given_labels[is_used].astype(np.int64))
    meta.groups = torch.from_numpy(tables.meta_groups[is_used])
    if tables.meta.votes is not None:
        meta.votes = torch.from_numpy(tables.meta.votes[is_used])


def _group(
    tables: DatasetTables, labelled: NDArray[np.int64], train: AbstractExamples, unlabelled: UnlabelledRows | None
) -> None:
    """Tell which curated rows have the content of a trusted one."""
    assert tables.train_groups is not None, "curated rows are compared with the meta set when it is read"
    train.groups = torch.from_numpy(tables.train_groups[labelled])
    if unlabelled is not None:
        unlabelled.examples.groups = torch.from_numpy(tables.train_groups[unlabelled.rows])


def _encode(
    folder: ArrayFolder, encoder: AbstractEncoder, name: str, role: RoleTable | None, num_classes: int
) -> AbstractExamples | None:
    if role is None:
        return None
    return encoder.encode(_select_labelled(name, role), num_classes, folder)


def _select_labelled(name: str, role: RoleTable) -> Part:
    rows = np.flatnonzero(role.labels >= 0)
    return Part(name, role.inputs, rows, role.labels[rows])


def _number_sources(role: RoleTable, labelled: NDArray[np.int64]) -> torch.Tensor:
    """Return the source of each labelled row as a number; rows without one share a number of their own."""
    codes = role.source.combine_chunks().dictionary_encode(null_encoding="encode").indices
    numbers = np.unique(codes.to_numpy(zero_copy_only=False)[labelled], return_inverse=True)[1]
    return torch.from_numpy(numbers.astype(np.int64))


def _make_fingerprint(
    request: DataRequest, tables: DatasetTables, choice: ModelChoice, options: CurationOptions
) -> str:
    roles = [role for role in (tables.train, tables.meta, tables.test) if role is not None]
    parts = {
        "document": request.text,
        "rows": [role.rows_digest for role in roles],
        "labels": [hashlib.sha256(role.labels.tobytes()).hexdigest() for role in roles],
        "votes": [hashlib.sha256(role.votes.tobytes()).hexdigest() for role in roles if role.votes is not None],
        "trusted": [
            hashlib.sha256(rows.tobytes()).hexdigest()
            for rows in (tables.meta_train_rows, tables.meta_given_labels, tables.meta_groups, tables.train_groups)
            if rows is not None
        ],
        "model": choice.name,
        "options": options.to_json(),
        "code": CODE_VERSION,
        "torch": torch.__version__,
        "device": request.device.type,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
