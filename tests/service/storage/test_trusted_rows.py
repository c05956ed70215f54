"""Which curated rows the trusted rows are, what was given for them, and which are equal."""

from pathlib import Path

import numpy as np
import pytest

from tests.service.storage.leakage_desk import NUM_ROWS, Desk, make_document, make_table, make_texts


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    desk = Desk(tmp_path)
    desk.write(make_table())
    return desk


def test_trusted_rows_are_linked_to_the_curated_rows_of_the_same_content(desk: Desk) -> None:
    texts, labels = make_texts(), [row % 2 for row in range(NUM_ROWS)]
    texts[7] = texts[11] = texts[22]
    texts[5] = texts[25]
    desk.write(make_table(text=texts, y=[-1 if row == 7 else label for row, label in enumerate(labels)]))
    tables = desk.read(make_document(meta={"split": {"column": "part", "value": "valid"}, "label": "gold"}))
    assert tables.meta_train_rows is not None
    # Of the two curated rows with that content the labelled one is named.
    assert tables.meta_train_rows.tolist() == [-1, -1, 11, -1, -1, 5]
    assert tables.meta_given_labels is not None
    assert tables.meta_given_labels.tolist() == labels[20:26]
    assert tables.num_meta_in_train == 2


def test_all_copies_of_a_trusted_row_are_in_one_group(desk: Desk) -> None:
    texts = make_texts()
    texts[7] = texts[11] = texts[24] = texts[22]
    desk.write(make_table(text=texts))
    tables = desk.read(make_document())
    assert tables.meta_groups is not None and tables.train_groups is not None
    assert tables.meta_groups[4] == tables.meta_groups[2]
    assert len(set(tables.meta_groups.tolist())) == 5
    assert np.flatnonzero(tables.train_groups >= 0).tolist() == [7, 11]
    assert set(tables.train_groups[[7, 11]]) == {tables.meta_groups[2]}
    share = desk.read(make_document(meta={"fraction": 0.3}))
    assert share.meta_groups is not None and share.train_groups is not None
    assert share.train_groups[share.trusted_rows].tolist() == share.meta_groups.tolist()
    is_trusted = np.isin(np.arange(20), share.trusted_rows)
    assert share.train_groups[7] == share.train_groups[11]
    assert (
        (share.train_groups >= 0) == is_trusted | (np.isin(np.arange(20), [7, 11]) & is_trusted[[7, 11]].any())
    ).all()


def test_given_labels_of_trusted_rows_are_unknown_where_nothing_tells_them(desk: Desk) -> None:
    same = desk.read(make_document())
    assert same.meta_given_labels is not None
    assert same.meta_given_labels.tolist() == [-1] * 6
    desk.write({"text": make_texts()[:6], "gold": [0, 1] * 3}, "meta.parquet")
    absent = desk.read(make_document(meta={"uri": "meta.parquet", "label": "gold"}))
    assert absent.meta_given_labels is not None
    assert absent.meta_given_labels.tolist() == [-1] * 6
    assert absent.meta_train_rows is not None
    assert absent.meta_train_rows.tolist() == list(range(6))


def test_given_labels_that_are_no_class_are_unknown(desk: Desk) -> None:
    given = [row % 2 for row in range(NUM_ROWS)]
    given[20:26] = [0, None, 7, -1, 1, 0]
    desk.write(make_table(y=given, gold=[row % 2 for row in range(NUM_ROWS)]))
    gold = {"label": "gold"}
    document = make_document(meta={"split": {"column": "part", "value": "valid"}} | gold)
    document["test"] |= gold
    tables = desk.read(document)
    assert tables.meta_given_labels is not None
    assert tables.meta_given_labels.tolist() == [0, -1, -1, -1, 1, 0]


def test_a_share_is_linked_to_itself(desk: Desk) -> None:
    tables = desk.read(make_document(meta={"fraction": 0.3, "label": "gold"}))
    assert tables.meta_train_rows is not None
    assert tables.meta_train_rows.tolist() == tables.trusted_rows.tolist()
    assert tables.meta_given_labels is not None
    assert tables.meta_given_labels.tolist() == tables.train.labels[tables.trusted_rows].tolist()
    same = desk.read(make_document(meta={"fraction": 0.3}))
    assert same.meta_given_labels is not None
    assert set(same.meta_given_labels.tolist()) == {-1}


def test_without_a_meta_set_there_are_no_links(desk: Desk) -> None:
    tables = desk.read(make_document(meta={"self": True}, task="prune"))
    assert (tables.meta_train_rows, tables.meta_given_labels) == (None, None)
    assert (tables.meta_groups, tables.train_groups) == (None, None)
