"""The proof as lines for a terminal."""

from service.cli.evaluation_report import write_evaluation
from service.results.schemas import EvaluationSummary
from tests.page.evaluation_scene import make_evaluation


def make_summary(**changes: object) -> EvaluationSummary:
    return EvaluationSummary.model_validate(make_evaluation(400, 280) | changes)


def test_every_part_stands_in_the_report_and_the_verdict_last() -> None:
    lines = write_evaluation(make_summary())
    assert lines[0].split() == ["trained", "on", "rows", "test", "accuracy", "95%", "interval"]
    assert "  curated against full: +7.4 points (+6.0 points to +8.8 points)" in lines
    assert "  curated-and-meta against meta: -3.0 points (-4.4 points to -1.6 points)" in lines
    assert "  500 test examples, 3 seeds" in lines
    assert any(line.split()[:5] == ["50%", "200", "93.0%", "85.0%", "+8.0"] for line in lines)
    assert "  beside aum: 74.0% of the 40 rows doubted most are the same, rank correlation 0.50" in lines
    assert any(line.split() == ["sama", "1.000", "0.999", "97.5%"] for line in lines)
    assert "  40 of 400 labels planted (uniform). Every figure is a lower bound." in lines
    assert lines[-1].startswith("  verdict: Better:")


def test_parts_that_were_not_asked_for_are_left_out() -> None:
    lines = write_evaluation(make_summary(arms=[], comparisons=[], curve=[], baselines=[], audit=None))
    assert [line for line in lines if line] == [lines[-1]]
    assert write_evaluation("not evaluated") == ["  accuracy: not evaluated (the job was asked for no evaluation)"]
