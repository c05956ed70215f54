"""Labels of a bundle that do not agree are told, one sentence for each kind of fault."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from service.cli.bundle_labels import WORTH_COLUMNS, check_labels, check_worth
from service.cli.reports import _write_changes
from service.cli.verification import verify_bundle
from service.errors import ServiceError
from service.results.schemas import RelabelSummary
from tests.cli.conftest import Sama, SeededServer

GIVEN = ["ham", "spam", "ham", None, None]
SUGGESTED = ["spam", "spam", "spam", "ham", "spam"]
LABEL = ["spam", "spam", "ham", "ham", None]
CORRECTED = [True, False, False, True, False]
KEEP = [True, True, False, True, False]
SOFT = [[0.1, 0.9], [0.2, 0.8], [0.4, 0.6], [0.95, 0.05], [0.0, 0.0]]


def build(folder: Path, soft: Any = SOFT, **columns: Any) -> tuple[dict[str, Any], pa.Table]:
    """Return the manifest and the rows of a bundle whose labels agree, but for the columns given."""
    usual = {"given_label": GIVEN, "suggested_label": SUGGESTED, "label": LABEL, "corrected": CORRECTED, "keep": KEEP}
    path = folder / "soft_labels.npy"
    np.save(path, np.array(soft, dtype=np.float32))
    manifest = {
        "relabel": {
            "num_corrected": 1,
            "num_labelled": 1,
            "class_order": ["ham", "spam"],
            "soft_labels": {"sha256": hashlib.sha256(path.read_bytes()).hexdigest()},
        }
    }
    return manifest, pa.table(usual | columns)


def list_messages(folder: Path, manifest: dict[str, Any], rows: pa.Table) -> list[str]:
    return [problem.message for problem in check_labels(folder, manifest, rows)]


def test_labels_that_agree_are_no_problem(tmp_path: Path) -> None:
    assert list_messages(tmp_path, *build(tmp_path)) == []


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            {"label": ["spam", "ham", "ham", "ham", None]},
            "rows.parquet: row 1 has a label that is not the given one, yet is not marked as corrected.",
        ),
        (
            {"corrected": [True, True, False, True, False]},
            "rows.parquet: row 1 is marked as corrected, yet its label is the given one.",
        ),
        (
            {"suggested_label": ["spam", "spam", "spam", "spam", "spam"]},
            "rows.parquet: row 3 is marked as corrected, yet its label is not the suggested one.",
        ),
        ({"keep": [True, True, False, True, True]}, "rows.parquet: row 4 is kept without a label."),
        (
            {"corrected": [True, False, False, False, False]},
            "manifest.json says num_labelled is 1; rows.parquet has 0.",
        ),
    ],
)
def test_rows_that_do_not_agree_are_told(tmp_path: Path, columns: dict[str, Any], message: str) -> None:
    assert message in list_messages(tmp_path, *build(tmp_path, **columns))


@pytest.mark.parametrize(
    ("soft", "message"),
    [
        (SOFT[:4], "soft_labels.npy is float32 of shape (4, 2); wanted float32 of shape (5, 2)."),
        ([[0.1, 0.8], *SOFT[1:]], "soft_labels.npy does not agree with rows.parquet."),
        ([[0.9, 0.1], *SOFT[1:]], "soft_labels.npy does not agree with rows.parquet."),
        ([*SOFT[:4], [0.5, 0.5]], "soft_labels.npy does not agree with rows.parquet."),
    ],
)
def test_soft_labels_that_do_not_agree_are_told(tmp_path: Path, soft: Any, message: str) -> None:
    assert list_messages(tmp_path, *build(tmp_path, soft)) == [message]


def test_soft_labels_of_another_type_or_of_no_array_are_told(tmp_path: Path) -> None:
    manifest, rows = build(tmp_path)
    path = tmp_path / "soft_labels.npy"
    for data, message in (
        (np.array(SOFT), "soft_labels.npy is float64 of shape (5, 2); wanted float32 of shape (5, 2)."),
        (b"no array", "soft_labels.npy cannot be read as an array."),
    ):
        path.write_bytes(data) if isinstance(data, bytes) else np.save(path, data)
        manifest["relabel"]["soft_labels"]["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
        assert list_messages(tmp_path, manifest, rows) == [message]


def test_another_file_of_soft_labels_is_told(tmp_path: Path) -> None:
    manifest, rows = build(tmp_path)
    (tmp_path / "soft_labels.npy").unlink()
    message = "soft_labels.npy is not the file that manifest.json tells of under relabel."
    assert list_messages(tmp_path, manifest, rows) == [message]
    manifest, rows = build(tmp_path)
    manifest["relabel"]["soft_labels"] = None
    message = "soft_labels.npy is there, but manifest.json tells of no soft labels."
    assert list_messages(tmp_path, manifest, rows) == [message]


def test_a_manifest_without_corrections_is_told(tmp_path: Path) -> None:
    manifest, rows = build(tmp_path)
    (tmp_path / "soft_labels.npy").unlink()
    assert list_messages(tmp_path, manifest | {"relabel": None}, rows) == [
        "manifest.json says num_corrected is 0; rows.parquet has 1.",
        "manifest.json says num_labelled is 0; rows.parquet has 1.",
    ]


@pytest.fixture
def bundle(sama: Sama, server: SeededServer, tmp_path: Path) -> Path:
    """A sound bundle with corrected labels."""
    job_id = server.seeder.succeed("to be checked", relabel=True)
    outcome = sama("download", job_id, "--out", tmp_path / "bundle")
    assert outcome.code == 0, outcome.err
    return tmp_path / "bundle"


def _rewrite(bundle: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    """Change the rows and make every digest fit again."""
    pq.write_table(change(pq.read_table(bundle / "rows.parquet")), bundle / "rows.parquet")
    manifest = json.loads((bundle / "manifest.json").read_text())
    manifest["outputs"]["rows.parquet"]["sha256"] = hashlib.sha256((bundle / "rows.parquet").read_bytes()).hexdigest()
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    names = ["manifest.json", *manifest["outputs"]]
    lines = [f"{hashlib.sha256((bundle / name).read_bytes()).hexdigest()}  {name}\n" for name in names]
    (bundle / "SHA256SUMS").write_text("".join(lines))


def _undo_in_secret(table: pa.Table) -> pa.Table:
    place = table.schema.get_field_index("corrected")
    return table.set_column(place, "corrected", pa.array([False] * table.num_rows))


def test_a_whole_bundle_with_corrected_labels_is_verified(bundle: Path) -> None:
    assert verify_bundle(bundle).num_rows == 400
    _rewrite(bundle, _undo_in_secret)
    with pytest.raises(ServiceError, match="has a label that is not the given one, yet is not marked as corrected"):
        verify_bundle(bundle)


@pytest.mark.parametrize(
    ("version", "columns"), [("1.0", ["label", "corrected"]), ("1.1", ["given_weight", "given_score"])]
)
def test_a_missing_column_is_told_and_an_older_bundle_is_taken(bundle: Path, version: str, columns: list[str]) -> None:
    _rewrite(bundle, lambda table: table.drop_columns(columns))
    message = rf"rows\.parquet has no column '{columns[0]}'; wanted row, keep, weight,"
    with pytest.raises(ServiceError, match=message):
        verify_bundle(bundle)
    manifest = json.loads((bundle / "manifest.json").read_text())
    (bundle / "manifest.json").write_text(json.dumps(manifest | {"schema_version": version}))
    _rewrite(bundle, lambda table: table)
    assert verify_bundle(bundle).num_kept == 280


WORTH: dict[str, list[Any]] = {
    "given_label": ["ham", "spam", "ham", None, None],
    "corrected": [True, False, False, True, False],
    "weight": [1.0, 0.5, 1.5, 1.0, None],
    "score": [0.9, 0.6, 0.8, 0.7, None],
    "given_weight": [0.0, 0.75, 2.25, None, None],
    "given_score": [0.1, 0.6, 0.8, None, None],
}


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({}, None),
        ({"given_weight": [None, 0.5, 1.5, None, None], "given_score": [None, 0.6, 0.8, None, None]}, None),
        (
            {"given_score": [0.1, 0.7, 0.8, None, None]},
            "rows.parquet: row 1 has another score under its given label, yet that is its label.",
        ),
        (
            {"given_weight": [0.0, 0.75, 1.25, None, None]},
            "rows.parquet: row 1 has another weight under its given label, yet that is its label.",
        ),
        (
            {"given_weight": [0.0, 0.75, 2.25, 1.0, None]},
            "rows.parquet: row 3 has a worth under a given label, yet no label was given.",
        ),
    ],
)
def test_what_rows_are_worth_under_their_given_labels_is_held_against_the_rest(
    columns: dict[str, Any], message: str | None
) -> None:
    table = WORTH | columns
    numbers = {name: pa.array(table[name], pa.float32()) for name in WORTH_COLUMNS[2:]}
    rows = pa.table(table | numbers)
    assert [problem.message for problem in check_worth(rows)] == ([] if message is None else [message])


def test_where_probabilities_are_not_known_the_command_line_tells_no_share_of_right_labels() -> None:
    relabel = RelabelSummary(
        targets="hard",
        min_confidence=0.5,
        min_noise=0.5,
        rule="",
        num_corrected=0,
        num_labelled=0,
        num_kept=0,
        expected_right_before=None,
        expected_right_after=None,
        num_changes=0,
        changes=[],
    )
    assert _write_changes(relabel) == ["  no label was doubtful enough to be corrected"]


def test_the_command_line_shows_what_was_corrected(sama: Sama, server: SeededServer) -> None:
    outcome = sama("show", server.seeder.succeed("labels", relabel=True))
    assert outcome.code == 0, outcome.err
    assert "labels corrected" in outcome.out
    assert "given label   corrected to   rows   mean confidence" in outcome.out
    assert "more pairs of labels" in outcome.out
    assert "labels right by the model's own probabilities: 71.0% as given, 93.0% as corrected" in outcome.out
