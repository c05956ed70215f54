"""The section `evaluation`: what it is by default, every message, and the trainings it costs."""

from typing import Any

import pytest

from service.jobs.document import DocumentError, JobDocument, canonical_json, parse_document, read_document
from service.jobs.document_specs import PLAIN_BASELINES
from service.jobs.evaluation_plan import find_twins, plan_evaluation
from service.storage.estimates import estimate_job

PLAIN = ("full", "curated", "random")
WHOLE = (*PLAIN, "meta", "full-and-meta", "curated-and-meta")


def make_document(**sections: Any) -> dict[str, Any]:
    """Return a document; a section that is None is left out, but for `evaluation`, which is then null."""
    usual: dict[str, Any] = {
        "dataset": {"uri": "d.csv", "features": ["x"], "label": "y"},
        "meta": {"uri": "m.csv"},
        "test": {"uri": "t.csv"},
        "evaluation": {},
    }
    return {
        name: section for name, section in (usual | sections).items() if section is not None or name == "evaluation"
    }


def make_silent(**sections: Any) -> dict[str, Any]:
    """Return a document that does not say whether it wants an evaluation."""
    return {name: section for name, section in make_document(**sections).items() if name != "evaluation"}


def find_messages(**sections: Any) -> dict[str, str]:
    with pytest.raises(DocumentError) as caught:
        parse_document(make_document(**sections))
    return {problem.param: problem.message for problem in caught.value.problems}


@pytest.mark.parametrize(
    ("sections", "arms"),
    [
        ({}, WHOLE),
        ({"meta": None, "method": {"name": "loss"}}, PLAIN),
        ({"meta": {"self": True}, "task": "prune"}, PLAIN),
        ({"meta": {"fraction": 0.1}}, (*PLAIN, "meta")),
        ({"meta": {"fraction": 0.1, "label": "y"}}, (*PLAIN, "meta")),
        ({"meta": {"fraction": 0.1, "label": "checked"}}, WHOLE),
        ({"evaluation": {"arms": ["curated", "loss"]}}, ("curated", "loss")),
        ({"test": None, "evaluation": {"plant": {}}}, ()),
        ({"test": None, "evaluation": {"baseline": True}}, ()),
    ],
)
def test_arms_are_filled_in_by_what_is_trusted(sections: dict[str, Any], arms: tuple[str, ...]) -> None:
    document = parse_document(make_document(**sections))
    assert document.evaluation is not None
    assert document.evaluation.arms == arms
    text = canonical_json(document)
    assert canonical_json(parse_document(read_document(text))) == text


def test_a_job_with_a_test_set_is_evaluated_as_a_whole_unless_it_says_no() -> None:
    document = parse_document(make_silent())
    assert document == parse_document(make_document(evaluation={}))
    assert document.evaluation is not None
    assert (document.evaluation.arms, document.evaluation.seeds, document.evaluation.baseline) == (WHOLE, 3, True)
    assert parse_document(make_document(evaluation=None)).evaluation is None


@pytest.mark.parametrize("method", ["sama", "confident-learning", "trusted-model"])
def test_without_a_test_set_the_baseline_is_run_alone(method: str) -> None:
    silent = make_silent(test=None, method={"name": method})
    document = parse_document(silent)
    assert document == parse_document(silent | {"evaluation": {"baseline": True}})
    assert plan_evaluation(document).num_plain == 1
    assert parse_document(silent | {"evaluation": None}).evaluation is None


@pytest.mark.parametrize("method", PLAIN_BASELINES)
def test_beside_what_is_itself_one_plain_training_no_other_is_run(method: str) -> None:
    assert parse_document(make_silent(test=None, meta=None, method={"name": method})).evaluation is None
    assert parse_document(make_silent(meta=None, method={"name": method})).evaluation is not None


def test_the_schema_gives_an_absent_evaluation_no_default_of_null() -> None:
    field = JobDocument.model_json_schema()["properties"]["evaluation"]
    assert "default" not in field
    assert {"type": "null"} in field["anyOf"]


@pytest.mark.parametrize("section", [None, {}, {"arms": ["curated"], "seeds": 1}])
def test_a_stored_document_is_read_as_it_was_taken(section: dict[str, Any] | None) -> None:
    text = canonical_json(parse_document(make_document(evaluation=section)))
    assert canonical_json(parse_document(read_document(text))) == text


NO_TEST = {"test": None}
PRUNE = {"task": "prune"}


@pytest.mark.parametrize(
    ("evaluation", "others", "param", "message"),
    [
        ({}, NO_TEST, "test", "evaluation is asked for, but test is missing"),
        ({"arms": ["full"], "plant": {}}, NO_TEST, "test", "need no test, where no arms are named."),
        ({"keep_fractions": [0.5], "plant": {}}, NO_TEST | PRUNE, "test", "test is missing"),
        ({"arms": []}, {}, "evaluation.arms", "wanted at least 1 arm, or evaluation.baseline: true or"),
        ({"arms": ["full", "full"]}, {}, "evaluation.arms", "names full twice; wanted each arm once."),
        ({"arms": ["full", "mta"]}, {}, "evaluation.arms[2]", "Did you mean 'meta'?"),
        (
            {"arms": ["full-and-meta", "meta"]},
            {"meta": None, "method": {"name": "aum"}},
            "evaluation.arms",
            "names full-and-meta and meta: they train on the meta set, but the document has none. Wanted meta.split,",
        ),
        ({"arms": ["meta"]}, {"meta": {"self": True}} | PRUNE, "evaluation.arms", "but meta.self trusts no row."),
        ({"keep_fractions": [0.5]}, {}, "evaluation.keep_fractions", "task is 'reweight'. Wanted task: prune."),
        ({"keep_fractions": [0.5, 0.3, 0.5]}, PRUNE, "evaluation.keep_fractions", "names 0.5 twice; wanted each"),
        ({"keep_fractions": []}, PRUNE, "evaluation.keep_fractions", "is a list of 0; wanted at least 1 entry."),
        ({"keep_fractions": [0.5, 1.0]}, PRUNE, "evaluation.keep_fractions[2]", "is 1.0; wanted less than 1."),
        ({"keep_fractions": 0.5}, PRUNE, "evaluation.keep_fractions", "is 0.5; wanted a list."),
        ({"seeds": 0}, {}, "evaluation.seeds", "is 0; wanted at least 1 and at most 100."),
        ({"baseline": "loss"}, {}, "evaluation.baseline", "is 'loss'; wanted true or false."),
        ({"plant": True}, {}, "evaluation.plant", "is true; wanted a section of fields."),
        ({"plant": {"rate": 0.6}}, {}, "evaluation.plant.rate", "is 0.6; wanted more than 0 and at most 0.5."),
        ({"plant": {"kind": "rule"}}, {}, "evaluation.plant.kind", "is 'rule'; available: uniform or confusion."),
        ({"plant": {"share": 0.1}}, {}, "evaluation.plant.share", "its fields are rate or kind."),
        (
            {"plant": {"kind": "confusion"}},
            {"method": {"name": "random"}},
            "evaluation.plant.kind",
            "but method 'random' finds none; wanted uniform.",
        ),
    ],
)
def test_fault_is_named(evaluation: dict[str, Any], others: dict[str, Any], param: str, message: str) -> None:
    assert message in find_messages(evaluation=evaluation, **others)[param]


@pytest.mark.parametrize(
    ("evaluation", "num_plain", "num_method"),
    [
        ({}, 18, 0),
        ({"arms": ["full", "curated", "random"]}, 9, 0),
        ({"arms": ["curated", "random"], "seeds": 2}, 5, 0),
        ({"arms": ["curated", "random"], "seeds": 2, "baseline": False}, 4, 0),
        ({"arms": ["curated", "loss"], "seeds": 2, "baseline": False}, 5, 0),
        ({"arms": ["full"], "plant": {}}, 4, 1),
        ({"arms": ["full"], "plant": {}, "baseline": False}, 3, 1),
        ({"arms": ["full", "curated", "random"], "keep_fractions": [0.3, 0.5]}, 21, 0),
        ({"arms": ["full", "curated", "random"], "keep_fractions": [0.3, 0.8]}, 15, 0),
    ],
)
def test_trainings_are_counted(evaluation: dict[str, Any], num_plain: int, num_method: int) -> None:
    plan = plan_evaluation(parse_document(make_document(evaluation=evaluation, task="prune")))
    assert (plan.num_plain, plan.num_method) == (num_plain, num_method)


@pytest.mark.parametrize(
    ("sections", "num_plain", "twins"),
    [
        ({"method": {"name": "aum"}}, 9, {"curated": "full", "random": "full", "curated-and-meta": "full-and-meta"}),
        (
            {"task": "prune", "selection": {"keep_fraction": 1.0}, "evaluation": {"arms": PLAIN}},
            3,
            {"curated": "full", "random": "full"},
        ),
        ({"method": {"name": "aum"}, "evaluation": {"arms": ["curated", "random"]}}, 4, {"random": "curated"}),
        ({"method": {"name": "aum"}, "selection": {"keep_fraction": 0.9}}, 18, {}),
        ({"method": {"name": "aum"}, "task": "relabel"}, 18, {}),
        ({}, 18, {}),
    ],
)
def test_no_training_is_done_twice_where_nothing_is_dropped_or_weighted(
    sections: dict[str, Any], num_plain: int, twins: dict[str, str]
) -> None:
    document = parse_document(make_document(**sections))
    assert find_twins(document) == twins
    assert plan_evaluation(document).num_plain == num_plain


def test_without_an_evaluation_nothing_more_is_trained() -> None:
    assert plan_evaluation(parse_document(make_document(evaluation=None))).num_plain == 0


def test_the_estimate_says_what_the_evaluation_costs() -> None:
    evaluation = {"plant": {}, "seeds": 2}
    whole, bare = (
        estimate_job(parse_document(make_document(evaluation=section)), 1000, 1000, None)
        for section in (evaluation, None)
    )
    assert (
        "13 more trainings for the evaluation (6 arms x 2 seeds, 1 for the baseline on planted errors), and the method "
        "once more on planted errors."
    ) in whole.basis
    assert whole.seconds > 2 * bare.seconds


def test_the_estimate_counts_every_seed_of_the_method() -> None:
    one, three = (
        estimate_job(parse_document(make_document(evaluation=None, method={"seeds": seeds})), 100_000, 1000, None)
        for seeds in (1, 3)
    )
    assert three.seconds == pytest.approx(3 * one.seconds, rel=0.01)
    assert "for method sama from 3 seeds, and" in three.basis
    assert "for method sama, and" in one.basis
