"""The job document: every rule, every message, and the document as the same bytes whichever way it came."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.errors import Problem
from service.jobs.document import (
    META_FREE_BASELINES,
    DocumentError,
    anchor_uris,
    canonical_json,
    document_digest,
    parse_document,
    read_document,
    set_field,
)

EXAMPLES = Path(__file__).parents[3] / "docs" / "examples"


def whole_document() -> dict[str, Any]:
    return {
        "name": "spam",
        "dataset": {
            "uri": "./data.parquet",
            "id": "id",
            "text": "text",
            "label": "noisy_label",
            "source": "source",
            "split": {"column": "split", "value": "train"},
        },
        "meta": {"split": {"column": "split", "value": "valid"}, "label": "label"},
        "test": {"split": {"column": "split", "value": "test"}, "label": "label"},
        "task": "prune",
        "model": {"name": "auto"},
        "method": {"name": "sama"},
        "training": {"epochs": 20, "batch_size": 128, "optimizer": "adamw", "lr": 1e-3, "seed": 0},
        "selection": {"keep_fraction": 0.8, "rule": "auto", "class_floor": 0.3},
        "evaluation": {"arms": ["full", "curated", "random"], "seeds": 3},
        "limits": {"max_seconds": 86400, "max_attempts": 3},
        "resources": {"devices": 1},
        "labels": {"team": "ads"},
    }


def problems_of(**fields: object) -> dict[str, Problem]:
    """Return the problems, by field, of a good document in which these fields (`a__b` for a.b) were changed."""
    data = whole_document()
    for path, value in fields.items():
        set_field(data, path.replace("__", "."), value)
    with pytest.raises(DocumentError) as caught:
        parse_document(data)
    return {problem.param: problem for problem in caught.value.problems}


def test_whole_document_is_taken() -> None:
    document = parse_document(whole_document())
    assert document.dataset.kind == "text"
    assert document.meta_label == document.test_label == "label"
    assert document.keep_fraction == 0.8
    assert document.labels == {"team": "ads"}


def test_least_document_has_defaults() -> None:
    document = parse_document({"dataset": {"uri": "d.csv", "features": "*", "label": "y"}, "meta": {"fraction": 0.1}})
    assert (document.task, document.model.name, document.method.name) == ("reweight", "auto", "sama")
    assert document.dataset.features == ("*",)
    assert document.keep_fraction == 1.0
    assert document.training.epochs is None
    assert document.limits.max_seconds == 86400


def test_relabel_has_defaults_of_its_own_and_keeps_every_row() -> None:
    data = {"dataset": {"uri": "d.csv", "features": "*", "label": "y"}, "meta": {"fraction": 0.1}}
    document = parse_document(data | {"task": "relabel"})
    assert document.relabelling is not None
    assert document.relabelling.model_dump() == {
        "min_confidence": 0.5, "min_noise": 0.5, "unlabelled": False, "targets": "hard",
    }  # fmt: skip
    assert document.keep_fraction == 1.0
    assert parse_document(data).relabelling is None


def test_null_counts_as_not_given() -> None:
    data = whole_document()
    data["training"] = None
    data["dataset"]["source"] = None
    document = parse_document(data)
    assert document.dataset.source is None
    assert document.training.optimizer == "adamw"


@pytest.mark.parametrize(
    ("fields", "param", "message"),
    [
        ({"selection__keep_fraction": 0}, "selection.keep_fraction", "is 0; wanted more than 0 and at most 1."),
        ({"selection__keep_fraction": 1.5}, "selection.keep_fraction", "is 1.5; wanted more than 0 and at most 1."),
        ({"selection__keep_fraction": float("nan")}, "selection.keep_fraction", "is nan; wanted"),
        ({"meta": {"fraction": 1.0}}, "meta.fraction", "is 1.0; wanted more than 0 and less than 1."),
        ({"model__name": "resnet19"}, "model.name", "available: auto, linear, mlp, cnn, resnet18, text or hf:FOLDER."),
        ({"model__name": "hf:bert-base"}, "model.name", "are not available in this version; wanted hf: and"),
        ({"model__name": "cnn"}, "model.name", "'cnn' reads dataset.image, but the document gives dataset.text"),
        ({"method__name": "samaa"}, "method.name", "Did you mean 'sama'?"),
        ({"method__name": "gradn"}, "method.name", "Did you mean 'grand'?"),
        (
            {"method__name": "trusted-model", "meta": {"self": True}},
            "meta.self",
            "trusts no example, but method 'trusted-model' trains on trusted ones; wanted meta.split, meta.uri or",
        ),
        ({"method__name": "recalibrated", "meta": None}, "meta", "meta.split, meta.uri or meta.fraction. Method"),
        ({"method__name": "dual", "training__epochs": 1}, "training.epochs", "is 1, but method 'dual' sees how"),
        ({"task": "relabl"}, "task", "is 'relabl'; available: reweight, relabel or prune. Did you mean 'relabel'?"),
        (
            {"task": "relabel", "method": {"name": "random"}},
            "method.name",
            "task 'relabel' needs suggested labels, but method 'random' learns none; wanted a method that learns",
        ),
        ({"task": "prune", "relabel": {}}, "relabel", "has no effect with the task 'prune'; leave it out or use task:"),
        (
            {"task": "relabel", "relabel": {"min_confidence": 1.2}},
            "relabel.min_confidence",
            "is 1.2; wanted at least 0 and at most 1.",
        ),
        ({"task": "relabel", "relabel": {"min_noise": -1}}, "relabel.min_noise", "is -1; wanted at least 0"),
        (
            {"task": "relabel", "relabel": {"targets": "softish"}},
            "relabel.targets",
            "is 'softish'; available: hard or soft. Did you mean 'soft'?",
        ),
        (
            {"task": "relabel", "method": {"name": "aum"}, "relabel": {"unlabelled": True}},
            "relabel.unlabelled",
            "is true, but method 'aum' judges labelled rows alone; wanted unlabelled: false, or method sama, sama-na,",
        ),
        ({"task": "relabel", "relabel": {"unlabelled": "yes"}}, "relabel.unlabelled", "wanted true or false."),
        (
            {"task": "relabel", "relabel": {"confidence": 1}},
            "relabel.confidence",
            "is not a field of relabel; its fields are min_confidence, min_noise, unlabelled or targets.",
        ),
        (
            {"task": "relabel", "meta": {"self": True}},
            "meta.self",
            "cannot tell which are wrong, so it serves task 'prune' alone; task is 'relabel'.",
        ),
        ({"selection__rule": "best"}, "selection.rule", "is 'best'; available: auto, top, balanced or coverage."),
        ({"selection__noise_cut": 1.5}, "selection.noise_cut", "is 1.5; wanted at least 0 and at most 1."),
        ({"training__optimizer": "lion"}, "training.optimizer", "is 'lion'; available: sgd, adam, adamw, nadam,"),
        ({"training__epochs": 1.5}, "training.epochs", "is 1.5; wanted a whole number."),
        ({"training__epochs": "5"}, "training.epochs", "is '5'; wanted a whole number."),
        ({"training__epochs": True}, "training.epochs", "is true; wanted a whole number."),
        ({"training__lr": "fast"}, "training.lr", "is 'fast'; wanted a number."),
        ({"training__seed": -1}, "training.seed", "is -1; wanted at least 0 and at most 9,007,199,254,740,991."),
        ({"training__momentum": 0.9}, "training.momentum", "has no effect with the optimizer 'adamw'"),
        ({"evaluation__arms": ["full", "curatd"]}, "evaluation.arms[2]", "is 'curatd'; available: full,"),
        ({"evaluation__arms": ["full", "full"]}, "evaluation.arms", "names full twice; wanted each arm once."),
        ({"evaluation__arms": []}, "evaluation.arms", "is a list of 0; wanted at least 1 arm, or evaluation.baseline"),
        ({"resources__devices": 17}, "resources.devices", "is 17; wanted at least 1 and at most 16."),
        (
            {"resources__devices": 2, "method__name": "aum"},
            "resources.devices",
            "is 2, but method 'aum' trains on one device; wanted 1, or method sama or sama-na.",
        ),
        ({"limits": 5}, "limits", "is 5; wanted a section of fields."),
        ({"dataset__uri": "s3://bucket/a.parquet"}, "dataset.uri", "s3:// is not available in this version"),
        ({"dataset__uri": "fil:///a.parquet"}, "dataset.uri", "the unknown scheme fil://; available: a local path"),
        ({"dataset__uri": "file://host/a.parquet"}, "dataset.uri", "names another machine; wanted file:///"),
        ({"dataset__uri": "a\0b.csv"}, "dataset.uri", "holds a zero byte"),
        ({"dataset__uri": ""}, "dataset.uri", "is ''; wanted at least 1 character."),
        ({"dataset__image": "pixels"}, "dataset.image", "gives text and image together; wanted exactly one of"),
        ({"dataset__text": None}, "dataset", "names no input; wanted exactly one of text, image or features."),
        ({"dataset__label": None}, "dataset.label", "dataset.label is missing; it must be given."),
        ({"dataset__text": "label"}, "dataset.text", "is 'label', which is also a label column"),
        ({"dataset__split__value": 1.5}, "dataset.split.value", "wanted text, a whole number, or true or false."),
        ({"meta__split__value": "train"}, "meta.split", "names rows that are curated and trusted at once"),
        ({"test__split__value": "valid"}, "test.split", "names rows that are trusted and tested on at once"),
        ({"meta__uri": "other.parquet"}, "meta", "gives split and uri; wanted exactly one of split, uri,"),
        ({"meta": {"label": "label"}}, "meta", "gives nothing; wanted exactly one of split, uri, fraction or self."),
        ({"meta": {"uri": "./data.parquet"}}, "meta.uri", "is the file of dataset.uri; wanted another file"),
        ({"meta": None}, "meta", "method 'sama' needs it; wanted one of meta.split, meta.uri,"),
        ({"meta": None, "task": "reweight"}, "meta", "wanted one of meta.split, meta.uri or meta.fraction. Method"),
        ({"meta": {"self": True, "label": "y"}}, "meta.label", "has no effect beside meta.self"),
        ({"meta": {"self": False}}, "meta.self", "is false; wanted true."),
        ({"meta": {"self": True}, "task": "reweight"}, "meta.self", "cannot tell which are wrong, so it serves task"),
        ({"test": None}, "test", "evaluation is asked for, but test is missing"),
        ({"method": {"name": "loss", "unroll_steps": 5}}, "method.unroll_steps", "no effect with the method 'loss'"),
        ({"method": {"name": "cg", "nudge": 0.1}}, "method.nudge", "no effect with the method 'cg'"),
        ({"method__terms": 3}, "method.terms", "no effect with the method 'sama'; leave it out or use neumann or cg."),
        ({"method": {"name": "unrolled", "route": "ghost"}}, "method.route", "no effect with the method 'unrolled'"),
        ({"dataset__source": None, "method__learned": "sources"}, "dataset.source", "is 'sources', but dataset.source"),
        ({"training__precision": "int8"}, "training.precision", "available: auto, float32, bfloat16 or float16."),
        ({"training__clip_norm": 0}, "training.clip_norm", "is 0; wanted more than 0"),
        ({"labels": {"b d": "x"}}, "labels", "labels has the key 'b d'; wanted 1 to 63 letters"),
        ({"labels": {"team": 5}}, "labels.team", "is 5; wanted text."),
        ({"labels": {"team": "x" * 257}}, "labels.team", "wanted at most 256 characters."),
        ({"labels": {f"k{n}": "" for n in range(33)}}, "labels", "is a mapping of 33 fields; wanted at most 32"),
        ({"name": "  "}, "name", "wanted printable text of at least one character."),
    ],
)  # fmt: skip
def test_fault_is_named(fields: dict[str, object], param: str, message: str) -> None:
    problems = problems_of(**fields)
    assert message in problems[param].message
    assert problems[param].wanted


@pytest.mark.parametrize(
    ("path", "nearest"),
    [("datset", "dataset"), ("dataset.lable", "label"), ("training.epoch", "epochs"), ("meta.fractoin", "fraction")],
)
def test_unknown_field_names_the_nearest(path: str, nearest: str) -> None:
    data = whole_document()
    set_field(data, path, 1)
    with pytest.raises(DocumentError) as caught:
        parse_document(data)
    (problem,) = caught.value.problems
    assert (problem.param, problem.nearest) == (path, nearest)
    assert f"{path} is not a field of " in problem.message
    assert problem.message.endswith(f"Did you mean {nearest!r}?")


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (["*", "age"], 'mixes "*" with names'),
        (["age", "age"], "names age twice; wanted each column once."),
        (["label"], "names 'label', which holds labels: the model would read the answer."),
        (["id"], "names 'id', which is dataset.id; wanted columns that describe the example."),
        (["split"], "names 'split', which is dataset.split.column"),
        ([], "is a list of 0; wanted at least 1 entry."),
    ],
)
def test_features_fault_is_named(features: list[str], message: str) -> None:
    problems = problems_of(dataset__text=None, dataset__features=features)
    assert message in problems["dataset.features"].message


def test_every_problem_is_listed_at_once() -> None:
    faults = {"datset": 1, "dataset__lbel": 1, "dataset__uri": "s3://x", "model__name": "resnet19"}
    problems = problems_of(**faults, training__epochs=0, test=None, task="x")
    wanted = {"datset", "dataset.lbel", "dataset.uri", "model.name", "training.epochs", "test", "task"}
    assert wanted <= problems.keys()


def test_document_error_tells_first_and_count() -> None:
    with pytest.raises(DocumentError) as caught:
        parse_document({})
    assert caught.value.code == "invalid_document"
    assert caught.value.message == "dataset is missing; it must be given. (1 more)"


@pytest.mark.parametrize("data", [None, [], "text", 5])
def test_document_that_is_no_mapping(data: object) -> None:
    with pytest.raises(DocumentError, match="wanted a mapping of fields"):
        parse_document(data)


@pytest.mark.parametrize("method", META_FREE_BASELINES)
def test_baselines_need_no_meta(method: str) -> None:
    data = whole_document()
    data["method"] = {"name": method}
    del data["meta"]
    assert parse_document(data).meta is None


@pytest.mark.parametrize("model", ["linear", "mlp", "cnn", "resnet18", "hf:./model"])
def test_models_for_images(model: str) -> None:
    data = whole_document()
    data["dataset"]["image"] = data["dataset"].pop("text")
    data["model"]["name"] = model
    assert parse_document(data).model.name == model


def test_self_serves_pruning() -> None:
    data = whole_document()
    data["meta"] = {"self": True}
    meta = parse_document(data).meta
    assert meta is not None
    assert meta.self_ is True


def test_digest_ignores_order_and_defaults() -> None:
    data = whole_document()
    other = dict(reversed(list(copy.deepcopy(data).items())))
    del other["resources"]
    assert document_digest(parse_document(data)) == document_digest(parse_document(other))
    other["training"]["seed"] = 1
    assert document_digest(parse_document(data)) != document_digest(parse_document(other))


TEXT = st.text(min_size=1, max_size=12).filter(lambda text: text.isprintable() and text.strip() == text)
DOCUMENTS = st.fixed_dictionaries(
    {
        "dataset": st.fixed_dictionaries(
            {"uri": st.just("./d.parquet"), "text": st.just("t"), "label": TEXT.filter(lambda name: name != "t")},
            optional={"source": TEXT, "id": st.just("i d"), "split": st.just({"column": "s", "value": 1})},
        ),
        "meta": st.one_of(
            st.builds(lambda share: {"fraction": share}, st.floats(0.001, 0.999)), st.just({"uri": "m.csv"})
        ),
    },
    optional={
        "name": TEXT,
        "task": st.sampled_from(["reweight", "relabel", "prune"]),
        "training": st.fixed_dictionaries({}, optional={"epochs": st.integers(1, 99), "lr": st.floats(1e-6, 1)}),
        "selection": st.fixed_dictionaries({}, optional={"keep_fraction": st.floats(0.01, 1)}),
    },
)


@settings(max_examples=60, deadline=None)
@given(DOCUMENTS)
def test_canonical_json_comes_back_the_same(data: dict[str, Any]) -> None:
    document = parse_document(data)
    text = canonical_json(document)
    again = parse_document(read_document(text))
    assert again == document
    assert canonical_json(again) == text


def test_relative_paths_start_at_the_document() -> None:
    data = whole_document()
    data["model"]["name"] = "hf:./model"
    data["test"] = {"uri": "file:///else/test.csv"}
    anchor_uris(data, Path("/home/user/spam"))
    assert data["dataset"]["uri"] == "/home/user/spam/data.parquet"
    assert data["model"]["name"] == "hf:/home/user/spam/model"
    assert data["test"]["uri"] == "file:///else/test.csv"


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.stem)
def test_examples_are_good_documents(path: Path) -> None:
    document = parse_document(read_document(path.read_bytes()))
    assert document.dataset.uri.startswith("DATA_DIR/")
    assert document.evaluation is not None


def test_there_are_four_examples() -> None:
    names = {path.stem for path in EXAMPLES.glob("*.yaml")}
    assert {"wrench_youtube", "letter", "adult", "cifar10"} <= names


def test_canonical_json_holds_every_default() -> None:
    fields = json.loads(canonical_json(parse_document(whole_document())))
    split = {"column": "split", "value": "valid"}
    assert fields["meta"] == {"split": split, "uri": None, "fraction": None, "self": None, "label": "label"}
    assert fields["method"]["warmup_steps"] == 10


FIELDS = st.sampled_from(
    [
        "name",
        "uri",
        "id",
        "text",
        "features",
        "label",
        "split",
        "column",
        "value",
        "fraction",
        "self",
        "arms",
        "lr",
        "x",
    ]
)
SECTIONS = st.sampled_from(
    ["dataset", "meta", "test", "task", "model", "method", "training", "evaluation", "labels", "x"]
)
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=4), st.just("*"))
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(FIELDS, inner, max_size=4), max_leaves=8
)


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(SECTIONS, VALUES, max_size=6))
def test_any_json_is_a_document_or_refused_in_plain_words(data: dict[str, Any]) -> None:
    try:
        document = parse_document(data)
    except DocumentError as error:
        for problem in error.problems:
            assert problem.param
            assert problem.message.endswith((".", "?"))
            assert "pydantic" not in problem.message
            assert "value of another form" not in problem.message
    else:
        assert document.dataset.uri
