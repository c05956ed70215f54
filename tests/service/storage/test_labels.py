"""Labels of any sensible type become class codes; the map is one for all roles."""

import numpy as np
import pyarrow as pa
import pytest

from service.storage.findings import Findings
from service.storage.label_checks import check_label_column
from service.storage.labels import LabelColumn, build_label_map, find_label_type


def gather(*batches: pa.Array) -> LabelColumn:
    column, start = LabelColumn(batches[0].type), 0
    for batch in batches:
        column.add(batch, np.arange(start, start + len(batch)))
        start += len(batch)
    return column


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        (pa.array([3, 1, None, -1, 3], pa.int8()), [3, 1, None, None, 3]),
        (pa.array([3, 1, None, 3], pa.uint64()), [3, 1, None, 3]),
        (pa.array([True, False, None]), [1, 0, None]),
        (pa.array(["spam", "ham", None, "", "-1"]), ["spam", "ham", None, None, None]),
        (pa.array(["spam", "ham"], pa.large_string()), ["spam", "ham"]),
        (pa.array(["b", "a", None, "b"]).dictionary_encode(), ["b", "a", None, "b"]),
        (pa.array([2, 1, None]).dictionary_encode(), [2, 1, None]),
        (pa.array([2.0, float("nan"), None, -1.0, 1.0]), [2, None, None, None, 1]),
    ],
)
def test_codes_and_back(values: pa.Array, labels: list[object]) -> None:
    column = gather(values)
    label_map = build_label_map([column])
    codes = label_map.encode(column)
    assert codes.dtype == np.int64
    assert label_map.values == tuple(sorted({label for label in labels if label is not None}))
    assert label_map.decode(codes).to_pylist() == labels


def test_batches_share_codes() -> None:
    column = gather(pa.array(["b", "a"]), pa.array(["c", "b", None]))
    label_map = build_label_map([column])
    assert label_map.encode(column).tolist() == [1, 0, 2, 1, -1]


def test_map_is_the_union_and_the_rest_is_unknown() -> None:
    train, meta, test = gather(pa.array([5, 7])), gather(pa.array([7, 9])), gather(pa.array([9, 11]))
    label_map = build_label_map([train, meta])
    assert label_map.values == (5, 7, 9)
    assert label_map.encode(test).tolist() == [2, -1]


def test_whole_numbers_are_sorted_as_numbers() -> None:
    assert build_label_map([gather(pa.array([10, 9, 100]))]).values == (9, 10, 100)


@pytest.mark.parametrize("kind", [pa.list_(pa.int8()), pa.binary(), pa.date32(), pa.struct([("a", pa.int8())])])
def test_types_that_hold_no_labels(kind: pa.DataType) -> None:
    assert find_label_type(kind) is None


def test_fractions_are_refused_with_the_first_row() -> None:
    findings = Findings()
    column = gather(pa.array([1.0, 2.0]), pa.array([0.0, 1.5, 2.5]))
    check_label_column("dataset.label", "y", "d.csv", column, findings)
    (problem,) = findings.list_problems()
    assert problem.message == (
        "dataset.label is 'y', a column of decimals (type double) in d.csv: 1.5 in row 3; wanted whole numbers or text."
    )


@pytest.mark.parametrize("missing", [[], [None]])
def test_whole_decimals_are_labels_and_are_noted(missing: list[None]) -> None:
    findings = Findings()
    column = gather(pa.array([1.0, 2.0, *missing]))
    assert check_label_column("meta.label", "y", "d.csv", column, findings)
    assert check_label_column("test.label", "y", "d.csv", column, findings)
    assert findings.is_clean
    assert column.classes == [1, 2]
    assert findings.notes == ["Column 'y' of d.csv is of decimals (type double), all whole: read as whole numbers."], (
        "once, not once a role"
    )


def test_categories_of_decimals_are_read_alike() -> None:
    assert gather(pa.array([2.0, None, 1.0]).dictionary_encode()).classes == [2, 1]
    assert gather(pa.array([2.0, 0.5]).dictionary_encode()).first_fraction == (1, 0.5)
