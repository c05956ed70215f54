"""The rules of a document over votes, leakage, and what learns and when it ends."""

from typing import Any

import pytest

from service.jobs.document import DocumentError, parse_document


def make_document(**fields: Any) -> dict[str, Any]:
    dataset = {"uri": "d.csv", "text": "t", "label": "y", "id": "key", "source": "from"}
    dataset["split"] = {"column": "part", "value": "a"}
    return {"dataset": dataset | fields.pop("dataset", {}), "meta": {"fraction": 0.1, "label": "gold"}} | fields


def test_votes_are_one_column_or_several() -> None:
    assert parse_document(make_document()).dataset.votes is None
    assert parse_document(make_document(dataset={"votes": "w"})).dataset.votes == ("w",)
    assert parse_document(make_document(dataset={"votes": ["a", "b"]})).dataset.votes == ("a", "b")


def test_a_label_corrector_and_an_early_end_may_be_asked_for() -> None:
    document = parse_document(make_document(method={"learned": "corrector"}, training={"stop_when_settled": True}))
    assert (document.method.learned, document.training.stop_when_settled) == ("corrector", True)
    assert parse_document(make_document(training={"stop_when_settled": False}, method={"name": "aum"}))


def test_leakage_has_defaults() -> None:
    leakage = parse_document(make_document()).leakage
    assert (leakage.action, leakage.near, leakage.similarity) == ("exclude", True, None)
    assert parse_document(make_document(leakage={"similarity": 1})).leakage.similarity == 1.0


@pytest.mark.parametrize(
    ("fields", "param", "message"),
    [
        ({"dataset": {"votes": []}}, "dataset.votes", "is a list of 0; wanted at least 1 entry."),
        ({"dataset": {"votes": 5}}, "dataset.votes", "is 5; wanted a list."),
        ({"dataset": {"votes": ["a", "a"]}}, "dataset.votes", "names a twice; wanted each column once."),
        ({"dataset": {"votes": ["y"]}}, "dataset.votes", "names 'y', which is dataset.label; wanted columns of"),
        ({"dataset": {"votes": "gold"}}, "dataset.votes", "names 'gold', which is meta.label; wanted columns of"),
        ({"dataset": {"votes": "t"}}, "dataset.votes", "names 't', which is dataset.text; wanted columns of"),
        ({"dataset": {"votes": "key"}}, "dataset.votes", "names 'key', which is dataset.id; wanted columns of"),
        ({"dataset": {"votes": "from"}}, "dataset.votes", "names 'from', which is dataset.source; wanted"),
        ({"dataset": {"votes": "part"}}, "dataset.votes", "names 'part', which is dataset.split.column; wanted"),
        (
            {"dataset": {"text": None, "features": ["a", "w"], "votes": ["w"]}},
            "dataset.features",
            "names 'w', which is one of dataset.votes; wanted columns that describe the example.",
        ),
        (
            {"method": {"learned": "correcter"}},
            "method.learned",
            "is 'correcter'; available: network, logits, sources or corrector. Did you mean 'corrector'?",
        ),
        (
            {"method": {"name": "aum", "learned": "corrector"}},
            "method.learned",
            "has no effect with the method 'aum'; leave it out or use",
        ),
        ({"training": {"stop_when_settled": 1}}, "training.stop_when_settled", "is 1; wanted true or false."),
        (
            {"method": {"name": "aum"}, "training": {"stop_when_settled": True}},
            "training.stop_when_settled",
            "has no effect with the method 'aum'; leave it out or use sama, sama-na, neumann, cg or unrolled.",
        ),
        ({"method": {"name": "random", "seeds": 3}}, "method.seeds", "its scores are drawn once; wanted 1."),
        ({"method": {"seeds": 0}}, "method.seeds", "is 0; wanted at least 1 and at most 20."),
        ({"leakage": {"action": "drop"}}, "leakage.action", "is 'drop'; available: exclude, refuse or report."),
        ({"leakage": {"action": "exlude"}}, "leakage.action", "Did you mean 'exclude'?"),
        ({"leakage": {"near": 1}}, "leakage.near", "is 1; wanted true or false."),
        ({"leakage": {"similarity": 0.4}}, "leakage.similarity", "is 0.4; wanted at least 0.5 and at most 1."),
        ({"leakage": {"similarity": "high"}}, "leakage.similarity", "is 'high'; wanted a number."),
        (
            {"leakage": {"near": False, "similarity": 0.9}},
            "leakage.similarity",
            "has no effect beside leakage.near: false; leave one out.",
        ),
        (
            {"dataset": {"text": None, "features": "*"}, "leakage": {"similarity": 0.9}},
            "leakage.similarity",
            "has no effect with dataset.features, whose rows are compared exactly; leave it out.",
        ),
        ({"leakage": {"threshold": 0.9}}, "leakage.threshold", "its fields are action, trusted, near or similarity."),
        ({"leakage": {"trusted": "drop"}}, "leakage.trusted", "is 'drop'; available: exclude, refuse or report."),
        (
            {"leakage": {"trusted": "exclude"}},
            "leakage.trusted",
            "has no effect where no trusted row stands apart from the curated ones; wanted no leakage.trusted,",
        ),
    ],
)  # fmt: skip
def test_fault_is_named(fields: dict[str, Any], param: str, message: str) -> None:
    with pytest.raises(DocumentError) as caught:
        parse_document(make_document(**fields))
    found = {problem.param: problem.message for problem in caught.value.problems}
    assert message in found[param]


@pytest.mark.parametrize("method", ["el2n", "grand", "forgetting", "dual"])
def test_scores_of_hardness_correct_no_labels(method: str) -> None:
    with pytest.raises(DocumentError) as caught:
        parse_document(make_document(task="relabel", method={"name": method}))
    (problem,) = caught.value.problems
    assert (problem.param, problem.seen) == ("method.name", repr(method))
    assert (
        f"but method '{method}' scores how hard a row is, right or wrong alike; wanted one of sama," in problem.message
    )
    assert parse_document(make_document(task="relabel", method={"name": "aum"})).task == "relabel"
