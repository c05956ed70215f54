"""Tables in every format: the same rows, types true for the whole file, faults told by their line."""

import csv
import gzip
import hashlib
import io
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.storage import csv_tables
from service.storage.faults import DataError
from service.storage.tables import AbstractTableSource, open_table

ROWS = {"id": [1, 2, None], "word": ["x", "y\nz", ""], "share": [0.5, None, 3.0]}


def read_rows(source: AbstractTableSource, columns: list[str] | None = None) -> list[dict[str, object]]:
    return [row for batch in source.batches(columns) for row in batch.to_pylist()]


def write(folder: Path, name: str, content: str | bytes) -> Path:
    data = content.encode() if isinstance(content, str) else content
    if name.endswith(".gz"):
        data = gzip.compress(data)
    elif name.endswith(".zst"):
        data = bytes(pa.compress(data, codec="zstd", asbytes=True))
    path = folder / name
    path.write_bytes(data)
    return path


CSV = 'id,word,share\n1,x,0.5\n2,"y\nz",NA\n,"",3\n'
JSONL = '{"id": 1, "word": "x", "share": 0.5}\n\n{"id": 2, "word": "y\\nz"}\n{"word": "", "share": 3, "id": null}\n'


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", "id;a;b\n1;2;3\n", "with semicolons in it, 'id;a;b'; wanted commas between the columns."),
        (
            "t.csv",
            "id\ta\n1\t2\n",
            "with tabs in it, 'id\\ta'; wanted commas between the columns (or a file name ending in .tsv).",
        ),
        ("t.tsv", "id,a\n1,2\n", "with commas in it, 'id,a'; wanted tabs between the columns."),
    ],
)
def test_another_delimiter_is_told(tmp_path: Path, name: str, content: str, message: str) -> None:
    with pytest.raises(DataError) as caught:
        open_table(write(tmp_path, name, content))
    assert caught.value.message == f"{name} line 1 is one name {message}"


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
@pytest.mark.parametrize(
    ("name", "content"), [("t.csv", CSV), ("t.tsv", CSV.replace(",", "\t")), ("t.jsonl", JSONL), ("t.ndjson", JSONL)]
)
def test_text_formats_give_the_same_rows(tmp_path: Path, name: str, content: str, suffix: str) -> None:
    source = open_table(write(tmp_path, name + suffix, content))
    assert source.num_rows == 3
    assert source.schema.types == [pa.int64(), pa.string(), pa.float64()]
    assert read_rows(source) == pa.table(ROWS).to_pylist()
    assert read_rows(source, ["share", "id"])[0] == {"share": 0.5, "id": 1}


def test_parquet_gives_the_same_rows(tmp_path: Path) -> None:
    pq.write_table(pa.table(ROWS), tmp_path / "t.parquet", row_group_size=2)
    source = open_table(tmp_path / "t.parquet")
    assert (source.format, source.num_rows) == ("parquet", 3)
    assert read_rows(source) == pa.table(ROWS).to_pylist()
    assert [batch.num_rows for batch in source.batches(["id"], batch_size=2)] == [2, 1]


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (["1", "-2", "+3", " 4 "], pa.int64()),
        (["1", "2.5", "1e3", "NA"], pa.float64()),
        (["inf", "1"], pa.float64()),
        (["007", "8"], pa.string()),
        (["1", "12345678901234567890"], pa.string()),
        (["1", "x"], pa.string()),
        (["true", "false"], pa.string()),
        (["NA", "?"], pa.string()),
        (["", ""], pa.null()),
    ],
)
def test_csv_type_fits_every_value(tmp_path: Path, values: list[str], kind: pa.DataType) -> None:
    source = open_table(write(tmp_path, "t.csv", "a,b\n" + "".join(f"{value},0\n" for value in values)))
    assert source.schema.field("a").type == kind
    assert len(read_rows(source)) == len(values)


@pytest.mark.parametrize("name", ["t.csv", "t.jsonl"])
def test_column_that_turns_to_text_late(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv_tables, "BLOCK_BYTES", 1 << 10)
    values = [*range(20_000), "late"]
    csv_text = "a,b\n" + "".join(f"{value},0\n" for value in values)
    json_text = "".join('{"a": %s}\n' % (f'"{value}"' if value == "late" else value) for value in values)
    source = open_table(write(tmp_path, name, csv_text if name == "t.csv" else json_text))
    assert source.schema.field("a").type == pa.string()
    rows = read_rows(source, ["a"])
    assert (rows[5]["a"], rows[-1]["a"], len(rows)) == ("5", "late", 20_001)


def test_nested_json_is_marked(tmp_path: Path) -> None:
    source = open_table(write(tmp_path, "t.jsonl", '{"a": [1, 2], "b": true}\n{"a": {"c": null}}\n'))
    assert source.schema.field("a").metadata == {b"json": b"nested"}
    assert [row["a"] for row in read_rows(source)] == ["[1,2]", '{"c":null}']
    assert source.schema.field("b").type == pa.bool_()


@pytest.mark.parametrize(
    ("name", "content", "line", "message"),
    [
        ("t.csv", 'a,b\n1,"x\ny"\n1,2,3\n4,5\n', 4, "t.csv line 4 has 3 values; the header has 2."),
        ("t.csv", "a,b\n1,2\n\n3\n", 4, "t.csv line 4 has 1 values; the header has 2."),
        ("t.csv.gz", "a,b\n1,2\n3\n", 3, "t.csv.gz line 3 has 1 values; the header has 2."),
        ("t.csv", b"a,b\n1,2\n3,\xff\xfe\n", 3, "t.csv line 3 is not UTF-8 text."),
        ("t.csv", 'a,b\n1,2\n3,"open\n4,5\n', 3, "line 3 begins a quoted value that is malformed, never closed"),
        ("t.csv", "a,a\n1,2\n", 1, "line 1 names the column 'a' more than once"),
        ("t.csv", b"\xff,b\n", 1, "line 1 is no header of column names in UTF-8"),
        ("t.csv", "", None, "t.csv is empty; wanted a header line and rows."),
        ("t.jsonl", '{"a": 1}\n{"a": }\n', 2, "t.jsonl line 2 is not valid JSON at column 7: Expecting value."),
        ("t.jsonl", '{"a": 1}\n\n[1]\n', 3, "line 3 is no JSON object; wanted {...} on every line."),
        ("t.jsonl", b'{"a": 1}\n{"a": "\xff"}\n', 2, "line 2 is not UTF-8 text."),
        ("t.jsonl", '{"a": ' + "[" * 200_000 + "\n", 1, "line 1 cannot be read: too deeply nested"),
        ("t.jsonl", "{}\n", 1, "line 1 is an object without fields."),
        ("t.jsonl", "", None, "t.jsonl is empty; wanted one JSON object a line."),
        ("t.parquet", "a,b\n", None, "t.parquet is no Parquet file: it does not begin with PAR1."),
        ("t.parquet", "PAR1 and no more", None, "is a damaged or cut off Parquet file: its footer cannot be read."),
    ],
)  # fmt: skip
def test_fault_is_told_by_its_line(
    tmp_path: Path, name: str, content: str | bytes, line: int | None, message: str
) -> None:
    with pytest.raises(DataError) as caught:
        open_table(write(tmp_path, name, content), param="meta.uri")
    assert caught.value.code == "unreadable_file"
    assert message in caught.value.message
    assert (caught.value.line, caught.value.param) == (line, "meta.uri")
    assert str(tmp_path) not in caught.value.message


@pytest.mark.parametrize("name", ["t.csv.gz", "t.csv.zst", "t.jsonl.gz"])
def test_cut_off_archive(tmp_path: Path, name: str) -> None:
    path = write(tmp_path, name, os.urandom(30_000).hex())
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(DataError, match="cannot be decompressed: it is damaged or cut off"):
        open_table(path)


@pytest.mark.parametrize("name", ["t.txt", "data", "t.parquet.gz", "t.gz", "t.xlsx"])
def test_unknown_format(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match=r"has no known format; wanted a name ending in \.parquet, \.csv"):
        open_table(tmp_path / name)


def test_damaged_parquet_page_names_the_row(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"a": [os.urandom(16).hex() for _ in range(4000)]}), path, compression="zstd")
    content = bytearray(path.read_bytes())
    content[20_000:40_000] = bytes(20_000)
    path.write_bytes(bytes(content))
    source = open_table(path)
    with pytest.raises(DataError, match="is damaged: rows from 0 on cannot be read"):
        read_rows(source)


def test_small_parquet_that_expands_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    value = "x" * 100_000
    pq.write_table(pa.table({"a": [value] * 2000}), path, compression="zstd", use_dictionary=True)
    assert path.stat().st_size < 20_000
    source = open_table(path, max_bytes=10_000_000)
    with pytest.raises(DataError, match="holds more than 10,000,000 bytes once decoded") as caught:
        read_rows(source)
    assert caught.value.code == "data_too_large"


@pytest.mark.parametrize("name", ["t.csv.gz", "t.jsonl.zst"])
def test_small_archive_that_expands_is_refused(tmp_path: Path, name: str) -> None:
    line = '{"a": 1}\n' if "jsonl" in name else "1,2\n"
    with pytest.raises(DataError, match="more than 100,000 bytes once decoded"):
        open_table(write(tmp_path, name, "a,b\n" * ("csv" in name) + line * 100_000), max_bytes=100_000)


def test_file_changed_meanwhile(tmp_path: Path) -> None:
    path = write(tmp_path, "t.csv", "a,b\n1,2\n")
    source = open_table(path)
    path.write_text("a,b\n1,2\n3,4\n")
    with pytest.raises(DataError, match="was changed while it was being read") as caught:
        read_rows(source)
    assert caught.value.code == "file_changed"


def test_file_digest(tmp_path: Path) -> None:
    source = open_table(write(tmp_path, "t.csv", "a,b\n1,2\n"))
    assert source.file_digest == hashlib.sha256(b"a,b\n1,2\n").hexdigest()
    assert source.num_bytes == 8


CELLS = st.text(st.characters(codec="utf-8", exclude_characters="\0\r"), max_size=8)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=12))
def test_csv_text_comes_back(tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="\n")
    # A last row of letters keeps both columns text, whatever the others look like.
    writer.writerows([("a", "b"), *rows, ("z", "z")])
    source = open_table(write(tmp_path_factory.mktemp("csv"), "t.csv", text.getvalue()))
    assert [(row["a"], row["b"]) for row in read_rows(source)] == [*rows, ("z", "z")]
