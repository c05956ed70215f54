"""Which labels are corrected, what the rows are worth then, and in what words it is told."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from sama_core import Decisions
from sama_core.selection import order_rows
from service.jobs.document import RelabelSpec
from service.results.rows import apply_num_kept
from service.storage.labels import LabelMap
from service.storage.roles import RoleTable
from service.storage.scanning import CONTENT, ID, SOURCE, SOURCE_ROW
from worker.phases.relabelling import Relabelling, Suggestions, correct_labels, leave_labels
from worker.phases.scoring import Outcome
from worker.results.changes import LabelChanges
from worker.results.rows import RowBuilder

Floats = NDArray[np.float32]


def make_decisions(
    right: list[float],
    given: list[int],
    *,
    noise: list[float] | None = None,
    weight: list[float] | None = None,
) -> Decisions:
    """Return decisions over two classes; `right` is the probability that the given label is the true one."""
    right_N, given_N = np.array(right, dtype=np.float32), np.array(given)
    probabilities = np.zeros((len(right), 2), dtype=np.float32)
    places = np.arange(len(right))
    probabilities[places, given_N], probabilities[places, 1 - given_N] = right_N, 1 - right_N
    weights = np.array(weight or [1.0] * len(right), dtype=np.float32)
    return Decisions(
        method="sama",
        weight=weights,
        weight_std=weights / 10,
        score=weights * right_N,
        noise_score=np.array(noise, dtype=np.float32) if noise is not None else 1 - right_N,
        suggested=probabilities.argmax(axis=1),
        label_confidence=probabilities.max(axis=1),
        probabilities=probabilities,
    )


def relabel(decisions: Decisions, given: list[int], added: Floats | None = None, **fields: Any) -> Relabelling:
    suggestions = None if added is None else Suggestions(np.arange(len(given), len(given) + len(added)), added)
    return correct_labels(decisions, np.array(given), RelabelSpec(**fields), suggestions)


@pytest.mark.parametrize(
    ("right", "noise", "fields", "is_corrected"),
    [
        (0.1, 0.9, {}, True),
        (0.45, 0.55, {}, True),
        (0.25, 0.75, {"min_confidence": 0.8}, False),
        (0.25, 0.75, {"min_confidence": 0.7}, True),
        (0.1, 0.4, {}, False),
        (0.1, 0.4, {"min_noise": 0.3}, True),
        (0.6, 0.9, {"min_confidence": 0.0, "min_noise": 0.0}, False),
        (0.5, 0.9, {"min_confidence": 0.0, "min_noise": 0.0}, False),
    ],
)
def test_a_label_is_corrected_where_another_is_more_probable_and_sure_enough(
    right: float, noise: float, fields: dict[str, float], is_corrected: bool
) -> None:
    found = relabel(make_decisions([right, 0.9], [1, 1], noise=[noise, 0.1]), [1, 1], **fields)
    assert found.corrected.tolist() == [is_corrected, False]
    assert found.labels.tolist() == [0 if is_corrected else 1, 1]


def test_where_probabilities_are_right_most_corrections_are_and_more_labels_than_before() -> None:
    generator = np.random.default_rng(0)
    right = generator.beta(0.5, 0.5, 20_000)
    given = [0] * len(right)
    truth = np.where(generator.random(len(right)) < right, 0, 1)
    found = relabel(make_decisions(right.tolist(), given), given)
    assert (found.labels == truth)[found.corrected].mean() > 0.8
    assert (found.labels == truth).mean() > (np.array(given) == truth).mean() + 0.2


def test_a_corrected_row_is_worth_what_an_unchanged_row_as_likely_right_is_worth() -> None:
    right, weight = [0.1, 0.6, 0.8, 0.9, 0.99], [0.01, 0.5, 1.0, 1.5, 2.0]
    found = relabel(make_decisions(right, [0] * 5, weight=weight), [0] * 5)
    assert found.corrected.tolist() == [True, False, False, False, False]
    decided = found.decisions
    assert decided.weight[2] < decided.weight[0] < decided.weight[4]
    assert decided.score[0] > decided.score[2]
    assert np.isnan(decided.weight_std).tolist() == [True, False, False, False, False], "not known, which is not 0"
    assert decided.weight.mean() == pytest.approx(1.0)
    assert decided.weight[1] / decided.weight[4] == pytest.approx(0.25), "the others keep their proportions"


def test_where_every_label_is_corrected_all_rows_weigh_the_same() -> None:
    found = relabel(make_decisions([0.05, 0.1], [0, 1], weight=[0.2, 1.8]), [0, 1])
    assert found.labels.tolist() == [1, 0]
    assert found.decisions.weight.tolist() == [1.0, 1.0]


def test_rows_without_a_label_get_one_where_it_is_sure_enough_and_stand_among_the_others_by_their_score() -> None:
    added = np.array([[0.85, 0.15], [0.55, 0.45], [0.03, 0.97]], dtype=np.float32)
    found = relabel(make_decisions([0.9, 0.8, 0.3], [0, 1, 1]), [0, 1, 1], added, min_confidence=0.8)
    assert found.added is not None
    assert found.added.labels.tolist() == [0, -1, 1]
    assert found.num_labels == 5
    candidates = found.candidates
    assert candidates.labels.tolist() == [0, 1, 1, 0, 1]
    assert candidates.doubt.tolist() == pytest.approx([0.0, 0.0, 0.7, 0.0, 0.0])
    order = order_rows(candidates.score, candidates.labels, class_floor=0.0, noise_score=candidates.doubt)
    rank, placed = found.share_ranks(order)
    assert placed is not None
    assert (rank.tolist(), placed.rank.tolist()) == ([0, 3, 4], [2, -1, 1]), "ahead of what is cut off"
    weight = found.added.weight
    assert weight[1] == 0
    assert (found.decisions.weight.sum() + weight.sum()) / 5 == pytest.approx(1.0)


def test_labels_that_are_left_alone_leave_everything_alone() -> None:
    decisions = make_decisions([0.1, 0.9], [0, 0])
    found = leave_labels(decisions, np.array([0, 0]))
    assert found.decisions is decisions
    assert not found.corrected.any()
    assert found.labels.tolist() == [0, 0]


def build_rows(decisions: Decisions, given: list[int], found: Relabelling, *, num_soft: int = 0) -> pa.RecordBatch:
    """Return the rows of labelled examples followed by those that were asked about, every one with a label kept."""
    num_given = len(given)
    num_rows = num_given + (len(found.added.labels) if found.added is not None else 0)
    table = pa.table(
        {
            SOURCE_ROW: pa.array(range(num_rows), pa.int64()),
            ID: pa.array(range(num_rows), pa.int64()),
            SOURCE: pa.nulls(num_rows, pa.string()),
            CONTENT: pa.array(["0"] * num_rows),
        }
    )
    codes = np.array([*given, *[-1] * (num_rows - num_given)])
    rank, added = found.share_ranks(np.arange(found.num_labels))
    train = RoleTable("train", table, codes, LabelMap(("ham", "spam"), pa.string()), (), "sha256:0")
    outcome = Outcome(
        decisions=found.decisions,
        decided=decisions,
        labels=found.labels,
        corrected=found.corrected,
        added=added,
        rank=rank,
        num_kept=found.num_labels,
        rule="top",
        rule_reason="top, as asked for",
        last_step=1,
    )
    (chunk,) = RowBuilder(train, np.arange(num_given), outcome, num_soft=num_soft).chunks()
    return chunk.batch


def test_rows_tell_the_given_label_the_one_to_train_on_and_why() -> None:
    given = [0, 1, 0, 1]
    decisions = make_decisions([0.02, 0.9, 0.45, 0.3], given)
    added = np.array([[0.07, 0.93], [0.55, 0.45]], dtype=np.float32)
    batch = build_rows(decisions, given, relabel(decisions, given, added, min_confidence=0.8), num_soft=2)
    rows = batch.to_pylist()
    assert [row["given_label"] for row in rows] == ["ham", "spam", "ham", "spam", None, None]
    assert [row["label"] for row in rows] == ["spam", "spam", "ham", "spam", "spam", None]
    assert [row["corrected"] for row in rows] == [True, False, False, False, True, False]
    assert [row["keep"] for row in rows] == [True, True, True, True, True, False]
    assert [row["suggested_label"] for row in rows] == ["spam", "spam", "spam", "ham", "spam", "ham"]
    assert [row["reason"] for row in rows] == [
        "corrected: the model says spam with 0.98; given ham",
        "kept",
        "kept, but the label is doubtful: the model says spam with 0.55; given ham",
        "kept, but the label is doubtful: the model says ham with 0.70; given spam",
        "labelled: no label was given; the model says spam with 0.93",
        "unlabelled: the model says ham with 0.55, too little to take it over",
    ]
    names = ("weight", "weight_std", "rank", "score", "noise_score", "given_weight", "given_score")
    present = {name: [row[name] is not None for row in rows] for name in names}
    everywhere, as_given = [True, True, True, True, True, False], [True, True, True, True, False, False]
    assert present == {
        "weight": everywhere, "weight_std": [False, True, True, True, False, False], "rank": everywhere,
        "score": everywhere, "noise_score": as_given, "given_weight": as_given, "given_score": as_given,
    }  # fmt: skip
    assert [row["given_weight"] for row in rows[:4]] == decisions.weight.tolist(), "what the method said, unchanged"
    assert [row["given_score"] for row in rows[:4]] == decisions.score.tolist()
    soft = [row["soft_label"] for row in rows]
    assert soft[5] is None
    assert soft[4] == pytest.approx([0.07, 0.93])
    assert soft[2] == pytest.approx([0.45, 0.55]), "the probabilities, whatever the label to train on"


def test_reasons_follow_the_keep_fraction() -> None:
    given = [0, 1, 0]
    decisions = make_decisions([0.02, 0.9, 0.45], given)
    added = np.array([[0.07, 0.93]], dtype=np.float32)
    batch = build_rows(decisions, given, relabel(decisions, given, added, min_confidence=0.8))
    assert apply_num_kept(batch, 1).column("reason").to_pylist() == [
        "corrected: the model says spam with 0.98; given ham",
        "low score",
        "likely mislabelled: the model says spam with 0.55; given ham",
        "low score, though labelled: no label was given; the model says spam with 0.93",
    ]
    none_kept = apply_num_kept(batch, 0).column("reason").to_pylist()
    assert none_kept[0] == "low score, though corrected: the model says spam with 0.98; given ham"


def test_changes_are_counted_by_pair_the_most_frequent_first() -> None:
    changes = LabelChanges()
    for labels in (["b", "b", "c"], ["b", "a", None]):
        given = ["a", "a", "a"] if labels[0] == labels[1] else ["a", None, None]
        corrected = [given[i] != label and label is not None for i, label in enumerate(labels)]
        columns = {
            "given_label": pa.array(given, pa.string()),
            "label": pa.array(labels, pa.string()),
            "label_confidence": pa.array([0.9, 0.7, 0.8], pa.float32()),
            "corrected": pa.array(corrected),
        }
        changes.add(pa.record_batch(columns))
    found = [(change.given, change.label, change.count) for change in changes.summarise()]
    assert found == [("a", "b", 3), ("a", "c", 1), (None, "a", 1)]
    assert changes.num_pairs == 3
    assert changes.summarise()[0].mean_confidence == pytest.approx((0.9 + 0.7 + 0.9) / 3)
