"""Frames: the rows to train on, and a refusal that names the first row that differs."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from sama_bundle import Bundle, DifferentSourceError, UnreadableSourceError, open_bundle

MAKERS: list[Callable[[pa.Table], Any]] = [lambda table: table, lambda table: table.to_pandas(), pl.from_arrow]
KINDS = pytest.mark.parametrize("make", MAKERS, ids=["arrow", "pandas", "polars"])


def _list(frame: Any, name: str) -> list[Any]:
    column = frame[name]
    return list(column.to_pylist() if isinstance(frame, pa.Table) else column.to_list())


@KINDS
def test_the_whole_file_and_the_curated_rows_give_the_kept_rows(
    bundle: Bundle, comments: pa.Table, curated: pa.Table, make: Callable[[pa.Table], Any]
) -> None:
    wanted = curated.take(bundle.keep).column("key").to_pylist()
    assert 0 < len(wanted) < len(curated)
    for table in (comments, curated, curated.drop_columns(["part", "label"])):
        frame = make(table)
        kept = bundle.filter_frame(frame)
        assert type(kept) is type(frame)
        assert _list(kept, "key") == wanted


@KINDS
def test_columns_of_the_bundle_stand_beside_the_kept_rows(
    bundle: Bundle, comments: pa.Table, make: Callable[[pa.Table], Any]
) -> None:
    kept = bundle.filter_frame(make(comments.drop_columns(["label"])), columns=["weight", "label"])
    assert _list(kept, "weight") == bundle.weights[bundle.keep].tolist()
    assert _list(kept, "label") == bundle.labels[bundle.keep].tolist()


def test_categories_are_the_words_they_stand_for(bundle: Bundle, comments: pa.Table) -> None:
    words = comments.to_pandas().astype(dict.fromkeys(("key", "given", "part", "text"), "category"))
    assert len(bundle.filter_frame(words)) == len(bundle.keep)
    frame = pl.from_arrow(comments)
    assert isinstance(frame, pl.DataFrame)
    assert len(bundle.filter_frame(frame.cast({"key": pl.Categorical, "given": pl.Categorical}))) == len(bundle.keep)


def test_a_pandas_frame_keeps_its_index(bundle: Bundle, comments: pa.Table) -> None:
    frame = comments.to_pandas().set_index("key", drop=False)
    assert list(bundle.filter_frame(frame, columns=["weight"]).index) == list(bundle.filter_frame(frame)["key"])


def _set(table: pa.Table, row: int, name: str, value: object) -> pa.Table:
    values = table.column(name).to_pylist()
    values[row] = value
    place = table.column_names.index(name)
    return table.set_column(place, name, pa.array(values, table.schema.field(name).type))


@KINDS
def test_a_changed_text_is_refused_with_both_digests(
    bundle: Bundle, comments: pa.Table, make: Callable[[pa.Table], Any]
) -> None:
    text = comments.column("text")[9].as_py()
    changed = _set(_set(comments, 40, "text", "later"), 9, "text", "changed")
    with pytest.raises(DifferentSourceError) as caught:
        bundle.filter_frame(make(changed))
    seen, wanted = (hashlib.sha256(value.encode()).hexdigest() for value in ("changed", text))
    assert (caught.value.row, caught.value.column) == (7, "content_sha256")
    assert (caught.value.seen, caught.value.wanted) == (seen, wanted)
    name = "the table" if isinstance(make(changed), pa.Table) else "the frame"
    assert str(caught.value) == (
        f"curated row 7 (row 9 of {name}, id 'c009') differs in its content: {seen!r}, but {wanted!r} when the bundle "
        "was made."
    )


def test_the_first_row_that_differs_is_named_not_the_first_column(bundle: Bundle, curated: pa.Table) -> None:
    changed = _set(_set(curated, 30, "key", "x"), 20, "given", "ham" if bundle.labels[20] == "spam" else "spam")
    with pytest.raises(DifferentSourceError, match=r"^row 20 of the table \(id 'c025'\) differs in its given label: "):
        bundle.filter_frame(changed)
    with pytest.raises(DifferentSourceError, match=r"^row 30 of the table differs in its id: 'x', but 'c037' when "):
        bundle.filter_frame(_set(curated, 30, "key", "x"))


def test_a_label_where_there_was_none_is_refused(bundle: Bundle, curated: pa.Table) -> None:
    with pytest.raises(DifferentSourceError, match=r"row 0 of the table .* given label: 'ham', but None when"):
        bundle.filter_frame(_set(curated, 0, "given", "ham"))


def test_shuffled_rows_are_refused(bundle: Bundle, curated: pa.Table) -> None:
    with pytest.raises(DifferentSourceError, match=r"^row 0 of the frame differs in its id: 'c071', but 'c001' when"):
        bundle.filter_frame(curated.to_pandas().iloc[::-1])


def test_missing_and_surplus_rows_are_refused(bundle: Bundle, curated: pa.Table) -> None:
    with pytest.raises(DifferentSourceError) as missing:
        bundle.filter_frame(curated.slice(0, 50))
    assert str(missing.value) == "row 50 (id 'c061') is missing: the table has 50 curated rows, the bundle 60."
    with pytest.raises(DifferentSourceError) as surplus:
        bundle.filter_frame(pa.concat_tables([curated, curated.slice(3, 1)]))
    assert str(surplus.value) == "row 60 of the table (id 'c004') is one too many: the bundle has 60 rows."
    with pytest.raises(DifferentSourceError, match=r"^row 10 of the table differs in its id: 'c014', but 'c013' when"):
        bundle.filter_frame(pa.concat_tables([curated.slice(0, 10), curated.slice(11)]))


def test_a_frame_without_the_content_is_refused(bundle: Bundle, curated: pa.Table) -> None:
    with pytest.raises(UnreadableSourceError) as caught:
        bundle.filter_frame(curated.drop_columns(["text"]))
    assert str(caught.value) == (
        "The source has no column 'text', of which the bundle's examples are made; it has 'key', 'given', 'label', "
        "'part'."
    )


def test_columns_of_other_types_are_refused(bundle: Bundle, curated: pa.Table) -> None:
    numbers = pa.array(range(len(curated)))
    with pytest.raises(UnreadableSourceError, match=r"dataset.text names 'text', which holds int64 in the source"):
        bundle.filter_frame(curated.set_column(1, "text", numbers))
    binary = pa.array([b""] * len(curated))
    with pytest.raises(UnreadableSourceError, match=r"labels are of type binary; wanted whole numbers or text"):
        bundle.filter_frame(curated.set_column(2, "given", binary))
    mixed = curated.to_pandas().astype({"text": object})
    mixed.iloc[3, 1] = 5
    with pytest.raises(UnreadableSourceError, match=r"The frame has a column of mixed types"):
        bundle.filter_frame(mixed)


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        ({"text": []}, "frame is dict; wanted a pandas or polars DataFrame or a pyarrow Table."),
        (pl.LazyFrame({"text": []}), "frame is LazyFrame; wanted a pandas or polars .* Call collect.. first."),
    ],
)
def test_what_is_no_frame_is_refused(bundle: Bundle, frame: Any, message: str) -> None:
    with pytest.raises(UnreadableSourceError, match=message):
        bundle.filter_frame(frame)


def test_columns_that_are_not_there_or_taken_are_refused(bundle: Bundle, comments: pa.Table) -> None:
    with pytest.raises(UnreadableSourceError, match=r"columns names 'wait'; a row has row, id, content_sha256,"):
        bundle.filter_frame(comments, columns=["wait"])
    for load in (lambda: bundle.filter_frame(comments, columns="weight"), lambda: bundle.read_rows("weight")):
        with pytest.raises(
            UnreadableSourceError, match=r"columns is 'weight', a text; wanted a list of names, such as"
        ):
            load()
    with pytest.raises(
        UnreadableSourceError, match=r"The data has a column 'label' already; give another name: columns=.'label'"
    ):
        bundle.filter_frame(comments, columns=["weight", "label"])
    renamed = bundle.filter_frame(comments, columns={"label": "train_on"})
    assert renamed.column("train_on").to_pylist() == bundle.labels[bundle.keep].tolist()


@pytest.mark.parametrize("read", [pd.read_csv, pl.read_csv], ids=["pandas", "polars"])
def test_features_are_the_same_however_the_file_is_read(points_folder: Path, read: Callable[[Path], Any]) -> None:
    points = open_bundle(points_folder / "bundle")
    frame = read(points_folder / "points.csv")
    assert len(points.filter_frame(frame)) == len(frame) == points.num_rows
    other = frame.assign(width=frame["width"] * 2) if read is pd.read_csv else frame.with_columns(pl.col("width") * 2)
    with pytest.raises(DifferentSourceError, match=r"^row 0 of the frame \(id 0\) differs in its content"):
        points.filter_frame(other)


def test_a_column_more_is_another_feature_where_all_are_features(points_folder: Path) -> None:
    points = open_bundle(points_folder / "bundle")
    with pytest.raises(DifferentSourceError, match=r"differs in its content"):
        points.filter_frame(pd.read_csv(points_folder / "points.csv").assign(more=1))


def test_images_are_compared_by_their_bytes(images_folder: Path) -> None:
    images = open_bundle(images_folder / "bundle")
    table = pa.parquet.read_table(images_folder / "images.parquet")
    assert images.filter_frame(table).num_rows == 12
    cells = table.column("image").to_pylist()
    cells[2] = cells[1]
    with pytest.raises(DifferentSourceError, match=r"^row 2 of the frame \(id 102\) differs in its content"):
        images.filter_frame(pl.from_arrow(table).with_columns(image=pl.Series([cell["bytes"] for cell in cells])))
