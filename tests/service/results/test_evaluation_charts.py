"""The evaluation's charts: valid pictures whatever the numbers, with every number in words."""

from xml.etree import ElementTree

import pytest

from service.results.evaluation_charts import draw_arms, draw_prune_curve, draw_reliability
from service.results.schemas import EvaluationSummary
from tests.page.evaluation_scene import make_evaluation

EVALUATION = EvaluationSummary.model_validate(make_evaluation(400, 280))
SVG = "{http://www.w3.org/2000/svg}"


def read_titles(svg: str) -> list[str]:
    return [title.text or "" for title in ElementTree.fromstring(svg).iter(f"{SVG}title")]


def test_every_arm_has_its_line() -> None:
    titles = read_titles(draw_arms(EVALUATION.arms, "arms"))
    assert len(titles) == 7
    assert titles[1] == "curated: 94.8% (93.6% to 96.0%)"


@pytest.mark.parametrize("num_points", [1, 3])
def test_the_prune_curve_holds_both_arms_at_every_fraction(num_points: int) -> None:
    titles = read_titles(draw_prune_curve(EVALUATION.curve[:num_points], "curve"))
    assert len(titles) == 2 * num_points
    assert titles[0] == "curated, 30.0% kept: 90.0% (88.8% to 91.2%)"


def test_equal_accuracies_are_drawn_too() -> None:
    point = EVALUATION.curve[0]
    flat = point.curated.model_copy(update={"accuracy": [1.0], "mean": 1.0, "interval": (1.0, 1.0)})
    svg = draw_prune_curve([point.model_copy(update={"curated": flat, "random": flat})], "flat")
    assert "nan" not in svg
    assert len(read_titles(svg)) == 2


def test_empty_bins_leave_no_mark() -> None:
    assert EVALUATION.audit is not None
    titles = read_titles(draw_reliability(EVALUATION.audit.detections, "reliability"))
    filled = [found for one in EVALUATION.audit.detections for found in one.reliability if found.count]
    assert len(titles) == len(filled)


def test_names_are_escaped() -> None:
    assert EVALUATION.audit is not None
    hostile = EVALUATION.audit.detections[0].model_copy(update={"name": "<script>&"})
    assert "<script>" not in draw_reliability([hostile], 'x"><b>')
