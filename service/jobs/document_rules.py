"""Rules that span several fields of a job document.

They read the raw document, so that they speak even where some field has a fault of shape: every problem is
then listed at once. A value of the wrong type counts here as not given; its own message comes from the shape.
"""

import re
from collections.abc import Iterator, Mapping
from itertools import combinations
from typing import Any, get_args
from urllib.parse import urlsplit

from service.errors import Problem
from service.jobs.document_draft import Draft
from service.jobs.document_names import (
    CHOICES,
    URI_SCHEMES,
    find_nearest,
    list_names,
    refuse,
    refuse_name,
    show,
)
from service.jobs.document_specs import (
    ALL_OTHER_COLUMNS,
    BASELINES,
    HARDNESS_BASELINES,
    META_FREE_BASELINES,
    SHARED_METHODS,
    TRUSTING_BASELINES,
    MethodSpec,
    OptimizerName,
)
from service.jobs.evaluation_rules import check_evaluation

NO_FEATURES = ("dataset.id", "dataset.split.column", "meta.split.column", "test.split.column")
VOTE_FREE = (
    "dataset.label", "meta.label", "test.label", "dataset.text", "dataset.image", "dataset.id", "dataset.source",
    *NO_FEATURES[1:],
)  # fmt: skip
INPUT_FIELDS = ("text", "image", "features")
META_SOURCES = ("split", "uri", "fraction", "self")
TEST_SOURCES = ("split", "uri")
META_LEARNING_FIELDS = (
    "learned", "unroll_steps", "every_step", "terms", "damping", "nudge", "neighbours", "check", "meta_lr",
    "meta_batch_size", "warmup_steps", "perturbation_scale", "route",
)  # fmt: skip
META_LEARNING_METHODS = ("sama", "sama-na", "neumann", "cg", "unrolled")
METHODS_KNOWING = {
    "every_step": ("sama", "sama-na"),
    "nudge": ("sama", "sama-na"),
    "terms": ("neumann", "cg"),
    "damping": ("neumann", "cg"),
    "route": ("sama", "sama-na", "neumann", "cg"),
    "perturbation_scale": ("sama", "sama-na", "neumann", "cg"),
}
MODEL_INPUTS = {
    "linear": ("features", "image"),
    "mlp": ("features", "image"),
    "text": ("text",),
    "cnn": ("image",),
    "resnet18": ("image",),
    "hf": ("text", "image"),
}
LOCAL_FOLDER = re.compile(r"^(?:/|\./|\.\./|file://).+")
SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*)://")
LABEL_KEY = re.compile(r"^[A-Za-z0-9](?:[A-Za-z0-9._/-]{0,61}[A-Za-z0-9])?$")
MAX_LABELS = 32
MAX_LABEL_CHARACTERS = 256


def list_rule_problems(data: Mapping[str, Any]) -> list[Problem]:
    """Return every problem that lies between fields of a raw document."""
    draft = Draft(data)
    return [problem for rule in _RULES for problem in rule(draft)]


def _check_inputs(draft: Draft) -> Iterator[Problem]:
    given = [field for field in INPUT_FIELDS if draft.has(f"dataset.{field}")]
    wanted = f"exactly one of {list_names(INPUT_FIELDS)}"
    if isinstance(draft.find("dataset"), Mapping) and not given:
        yield refuse("dataset", None, wanted, f"dataset names no input; wanted {wanted}.")
    if len(given) > 1:
        seen = " and ".join(given)
        yield Problem(f"dataset.{given[1]}", seen, wanted, f"dataset gives {seen} together; wanted {wanted}.")


def _check_columns(draft: Draft) -> Iterator[Problem]:
    columns = _list_texts(draft, "dataset.features")
    votes = _list_texts(draft, "dataset.votes")
    yield from _check_feature_list(columns)
    answers = {draft.find_text(f"{section}.label") for section in ("dataset", "meta", "test")} - {None}
    for name in columns:
        if name in answers:
            why = f"dataset.features names {name!r}, which holds labels: the model would read the answer."
            yield refuse("dataset.features", name, "columns without labels", why)
        field = next((field for field in NO_FEATURES if name == draft.find_text(field)), None)
        field = "one of dataset.votes" if name in votes else field
        if field is not None:
            wanted = "columns that describe the example"
            why = f"dataset.features names {name!r}, which is {field}; wanted {wanted}."
            yield refuse("dataset.features", name, wanted, why)
    for field in ("dataset.text", "dataset.image", "dataset.id"):
        column = draft.find_text(field)
        if column is not None and column in answers:
            why = f"{field} is {column!r}, which is also a label column; wanted another column."
            yield refuse(field, column, "a column without labels", why)


def _list_texts(draft: Draft, path: str) -> list[str]:
    """Return the texts of the list at `path`; a value that is no list has none."""
    values = draft.find(path)
    return [value for value in values if isinstance(value, str)] if isinstance(values, list | tuple) else []


def _check_votes(draft: Draft) -> Iterator[Problem]:
    votes = _list_texts(draft, "dataset.votes")
    repeated = sorted({name for name in votes if votes.count(name) > 1})
    if repeated:
        wanted = "each column once"
        why = f"dataset.votes names {list_names(repeated)} twice; wanted {wanted}."
        yield refuse("dataset.votes", votes, wanted, why)
    taken = [field for field in VOTE_FREE if draft.find_text(field) in votes]
    for field in taken:
        name, wanted = draft.find_text(field), "columns of labelling-function votes alone"
        why = f"dataset.votes names {name!r}, which is {field}; wanted {wanted}."
        yield refuse("dataset.votes", name, wanted, why)


def _check_leakage(draft: Draft) -> Iterator[Problem]:
    if draft.has("leakage.trusted") and not (draft.has("meta.split") or draft.has("meta.uri")):
        wanted = "no leakage.trusted, or a meta set of its own (meta.split or meta.uri)"
        why = f"leakage.trusted has no effect where no trusted row stands apart from the curated ones; wanted {wanted}."
        yield refuse("leakage.trusted", draft.find("leakage.trusted"), wanted, why)
    if draft.has("leakage.similarity"):
        similarity, wanted = draft.find("leakage.similarity"), "no leakage.similarity, or near duplicates to look for"
        if draft.find("leakage.near") is False:
            why = "leakage.similarity has no effect beside leakage.near: false; leave one out."
            yield refuse("leakage.similarity", similarity, wanted, why)
        elif draft.has("dataset.features"):
            why = (
                "leakage.similarity has no effect with dataset.features, whose rows are compared exactly; leave it out."
            )
            yield refuse("leakage.similarity", similarity, wanted, why)


def _check_feature_list(columns: list[str]) -> Iterator[Problem]:
    if ALL_OTHER_COLUMNS in columns and len(columns) > 1:
        wanted = '"*" alone, or names alone'
        yield refuse("dataset.features", columns, wanted, f'dataset.features mixes "*" with names; wanted {wanted}.')
    repeated = sorted({name for name in columns if columns.count(name) > 1})
    if repeated:
        wanted = "each column once"
        why = f"dataset.features names {list_names(repeated)} twice; wanted {wanted}."
        yield refuse("dataset.features", columns, wanted, why)


def _check_uris(draft: Draft) -> Iterator[Problem]:
    for param in ("dataset.uri", "meta.uri", "test.uri"):
        uri = draft.find_text(param)
        if uri is not None:
            yield from _check_uri(param, uri)


def _check_uri(param: str, uri: str) -> Iterator[Problem]:
    wanted = list_names(URI_SCHEMES.available)
    match = SCHEME.match(uri)
    scheme = match.group(1).lower() if match else "file"
    if "\0" in uri:
        yield refuse(param, uri, wanted, f"{param} holds a zero byte; wanted {wanted}.")
    elif scheme in URI_SCHEMES.later:
        why = f"{param}: {scheme}:// is not available in this version; available: {wanted}."
        yield refuse(param, uri, wanted, why)
    elif scheme != "file":
        nearest = "file://" if find_nearest(scheme, ("file",)) else None
        yield refuse(param, uri, wanted, f"{param} has the unknown scheme {scheme}://; available: {wanted}.", nearest)
    elif match and urlsplit(uri).netloc not in {"", "localhost"}:
        wanted = "file:///absolute/path"
        yield refuse(param, uri, wanted, f"{param} names another machine; wanted {wanted}.")


def _check_meta(draft: Draft) -> Iterator[Problem]:
    method = draft.find_text("method.name") or "sama"
    task = draft.find_text("task") or "reweight"
    needs_meta = method not in META_FREE_BASELINES
    judges_itself = task == "prune" and method not in TRUSTING_BASELINES
    sources = [source for source in META_SOURCES if source != "self" or judges_itself]
    wanted = f"one of {list_names(f'meta.{source}' for source in sources)}"
    if draft.find("meta") is None and needs_meta:
        baselines = list_names(META_FREE_BASELINES)
        why = f"meta is missing: method {method!r} needs it; wanted {wanted}. Method {baselines} needs none."
        yield refuse("meta", None, wanted, why)
    if not isinstance(draft.find("meta"), Mapping):
        return
    yield from _check_one_source(draft, "meta", META_SOURCES)
    if draft.has("meta.self") and draft.has("meta.label"):
        why = "meta.label has no effect beside meta.self; leave one out."
        yield refuse("meta.label", draft.find("meta.label"), "no meta.label beside meta.self", why)
    if draft.find("meta.self") is True and method in TRUSTING_BASELINES:
        wanted = "meta.split, meta.uri or meta.fraction"
        why = f"meta.self trusts no example, but method {method!r} trains on trusted ones; wanted {wanted}."
        yield refuse("meta.self", True, wanted, why)
    elif draft.find("meta.self") is True and needs_meta and task != "prune":
        wanted = "meta.split, meta.uri or meta.fraction; or task: prune"
        why = (
            "meta.self takes the given labels as trusted and cannot tell which are wrong, so it serves "
            f"task 'prune' alone; task is {task!r}. Wanted {wanted}."
        )
        yield refuse("meta.self", True, wanted, why)


def _check_test(draft: Draft) -> Iterator[Problem]:
    if isinstance(draft.find("test"), Mapping):
        yield from _check_one_source(draft, "test", TEST_SOURCES)


def _check_one_source(draft: Draft, section: str, sources: tuple[str, ...]) -> Iterator[Problem]:
    given = [source for source in sources if draft.has(f"{section}.{source}")]
    if len(given) != 1:
        wanted = f"exactly one of {list_names(sources)}"
        seen = " and ".join(given) or "nothing"
        yield Problem(section, seen, wanted, f"{section} gives {seen}; wanted {wanted}.")


def _check_splits(draft: Draft) -> Iterator[Problem]:
    meanings = {"dataset": "curated", "meta": "trusted", "test": "tested on"}
    for (first, before), (second, after) in combinations(meanings.items(), 2):
        split = draft.find(f"{second}.split")
        if split is not None and split == draft.find(f"{first}.split"):
            wanted = f"other rows than {first}.split"
            why = f"{second}.split names rows that are {before} and {after} at once; wanted {wanted}."
            yield refuse(f"{second}.split", split, wanted, why)
        uri = draft.find_text(f"{second}.uri")
        if uri is not None and uri == draft.find_text(f"{first}.uri"):
            wanted = f"another file, or rows named by {second}.split"
            yield refuse(f"{second}.uri", uri, wanted, f"{second}.uri is the file of {first}.uri; wanted {wanted}.")


def _check_model(draft: Draft) -> Iterator[Problem]:
    name = draft.find_text("model.name")
    if name is None or name == "auto":
        return
    kind = "hf" if name.startswith("hf:") else name
    if kind not in MODEL_INPUTS:
        yield refuse_name("model.name", name, CHOICES["model.name"])
        return
    if kind == "hf" and not LOCAL_FOLDER.match(name.removeprefix("hf:")):
        wanted = "hf: and a local folder, such as hf:./my-model"
        why = f"model.name {name!r}: names on a model hub are not available in this version; wanted {wanted}."
        yield refuse("model.name", name, wanted, why)
    given = [field for field in INPUT_FIELDS if draft.has(f"dataset.{field}")]
    if len(given) == 1 and given[0] not in MODEL_INPUTS[kind]:
        reads = list_names(f"dataset.{field}" for field in MODEL_INPUTS[kind])
        fitting = [model for model, inputs in MODEL_INPUTS.items() if given[0] in inputs and model != "hf"]
        wanted = f"{list_names(['auto', *fitting])} for dataset.{given[0]}"
        why = f"model.name {name!r} reads {reads}, but the document gives dataset.{given[0]}; wanted {wanted}."
        yield refuse("model.name", name, wanted, why)


def _check_method(draft: Draft) -> Iterator[Problem]:
    method = draft.find_text("method.name") or "sama"
    for field in META_LEARNING_FIELDS:
        value = draft.find(f"method.{field}")
        knowing = METHODS_KNOWING.get(field, META_LEARNING_METHODS)
        if method in knowing or method not in BASELINES + META_LEARNING_METHODS:
            continue
        if value is not None and value != MethodSpec.model_fields[field].default:
            why = f"method.{field} has no effect with the method {method!r}; leave it out or use {list_names(knowing)}."
            yield refuse(f"method.{field}", value, f"no method.{field} beside {method!r}", why)
    seeds = draft.find("method.seeds")
    if method == "random" and isinstance(seeds, int) and seeds > 1:
        why = f"method.seeds is {seeds}, but method 'random' trains nothing: its scores are drawn once; wanted 1."
        yield refuse("method.seeds", seeds, "1 with method 'random'", why)


def _check_relabel(draft: Draft) -> Iterator[Problem]:
    task, method = draft.find_text("task") or "reweight", draft.find_text("method.name")
    if task == "relabel" and method in BASELINES and draft.find("relabel.unlabelled") is True:
        wanted = f"unlabelled: false, or method {list_names(META_LEARNING_METHODS)}"
        why = f"relabel.unlabelled is true, but method {method!r} judges labelled rows alone; wanted {wanted}."
        yield refuse("relabel.unlabelled", True, wanted, why)
    if task == "relabel" and method == "random":
        wanted = "a method that learns what the labels should be"
        why = f"task 'relabel' needs suggested labels, but method 'random' learns none; wanted {wanted}."
        yield refuse("method.name", method, wanted, why)
    if task == "relabel" and method in HARDNESS_BASELINES:
        fitting = [name for name in CHOICES["method.name"].available if name not in ("random", *HARDNESS_BASELINES)]
        wanted = f"one of {list_names(fitting)}"
        why = (
            f"task 'relabel' corrects labels that are wrong, but method {method!r} scores how hard a row is, right or "
            f"wrong alike; wanted {wanted}."
        )
        yield refuse("method.name", method, wanted, why)
    if task in CHOICES["task"].available and task != "relabel" and draft.has("relabel"):
        why = f"relabel has no effect with the task {task!r}; leave it out or use task: relabel."
        yield refuse("relabel", draft.find("relabel"), "no relabel section, or task: relabel", why)


def _check_learned(draft: Draft) -> Iterator[Problem]:
    if draft.find_text("method.learned") == "sources" and not draft.has("dataset.source"):
        wanted = "dataset.source, the column that says where each example came from"
        why = f"method.learned is 'sources', but dataset.source is missing; wanted {wanted}."
        yield refuse("dataset.source", None, wanted, why)


def _check_training(draft: Draft) -> Iterator[Problem]:
    if draft.find_text("method.name") == "dual" and draft.find("training.epochs") == 1:
        why = "training.epochs is 1, but method 'dual' sees how probabilities change; wanted at least 2."
        yield refuse("training.epochs", 1, "at least 2 with method 'dual'", why)
    method = draft.find_text("method.name")
    if method in BASELINES and draft.find("training.stop_when_settled") is True:
        wanted = f"no training.stop_when_settled beside {method!r}"
        fitting = f"leave it out or use {list_names(META_LEARNING_METHODS)}"
        why = f"training.stop_when_settled has no effect with the method {method!r}; {fitting}."
        yield refuse("training.stop_when_settled", True, wanted, why)
    optimizer = draft.find_text("training.optimizer") or "adamw"
    if draft.has("training.momentum") and optimizer in set(get_args(OptimizerName)) - {"sgd", "rmsprop"}:
        why = f"training.momentum has no effect with the optimizer {optimizer!r}; leave it out or use sgd or rmsprop."
        wanted = "no momentum, or optimizer: sgd or rmsprop"
        yield refuse("training.momentum", draft.find("training.momentum"), wanted, why)


def _check_devices(draft: Draft) -> Iterator[Problem]:
    devices, method = draft.find("resources.devices"), draft.find_text("method.name") or "sama"
    if isinstance(devices, int) and devices > 1 and method not in SHARED_METHODS:
        wanted = f"1, or method {list_names(SHARED_METHODS)}"
        why = f"resources.devices is {devices}, but method {method!r} trains on one device; wanted {wanted}."
        yield refuse("resources.devices", devices, wanted, why)


def _check_labels(draft: Draft) -> Iterator[Problem]:
    labels = draft.find("labels")
    if not isinstance(labels, Mapping):
        return
    if len(labels) > MAX_LABELS:
        yield refuse("labels", labels, f"at most {MAX_LABELS} labels")
    for key, value in labels.items():
        if not LABEL_KEY.match(key):
            wanted = "1 to 63 letters, digits, '.', '_', '/' or '-', a letter or digit first and last"
            yield refuse("labels", key, wanted, f"labels has the key {show(key)}; wanted {wanted}.")
        if isinstance(value, str) and len(value) > MAX_LABEL_CHARACTERS:
            yield refuse(f"labels.{key}", value, f"at most {MAX_LABEL_CHARACTERS} characters")
        elif isinstance(value, str) and not value.isprintable():
            yield refuse(f"labels.{key}", value, "printable text on one line")


def _check_name(draft: Draft) -> Iterator[Problem]:
    name = draft.find_text("name")
    if name is not None and (not name.strip() or not name.isprintable()):
        yield refuse("name", name, "printable text of at least one character")


_RULES = (
    _check_inputs,
    _check_columns,
    _check_votes,
    _check_leakage,
    _check_uris,
    _check_meta,
    _check_test,
    _check_splits,
    _check_model,
    _check_method,
    _check_relabel,
    _check_learned,
    _check_training,
    check_evaluation,
    _check_devices,
    _check_labels,
    _check_name,
)
