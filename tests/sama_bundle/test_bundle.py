"""Opening a bundle: its digests, its labels, its columns."""

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sama_bundle import Bundle, UnreadableSourceError, open_bundle
from service.cli.verification import verify_data
from service.errors import ServiceError
from tests.sama_bundle import scene

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def relabelled(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle whose job corrected labels, softly."""
    folder = tmp_path_factory.mktemp("relabelled")
    document = scene.describe_comments(
        scene.write_comments(folder / "comments.parquet"),
        task="relabel",
        relabel={"min_confidence": 0.5, "targets": "soft"},
        method={"name": "aum"},
        training={"epochs": 6, "batch_size": 20, "lr": 0.05},
    )
    del document["selection"]
    return open_bundle(scene.make_bundle(document, folder))


def test_a_bundle_holds_what_its_files_hold(bundle: Bundle, comments_folder: Path) -> None:
    rows = pq.read_table(comments_folder / "bundle" / "rows.parquet")
    assert (bundle.num_rows, len(bundle.keep)) == (60, 42)
    assert bundle.read_rows().equals(rows)
    assert bundle.read_rows(["reason", "row"]).equals(rows.select(["reason", "row"]))
    assert bundle.keep.tolist() == np.flatnonzero(rows.column("keep").to_numpy()).tolist()
    assert bundle.weights.tolist() == np.load(comments_folder / "bundle" / "weights.npy").tolist()
    with pytest.raises(ValueError, match=r"read-only"):
        bundle.weights[0] = 1


@pytest.mark.parametrize("name", ["rows.parquet", "weights.npy", "keep.npy", "manifest.json"])
def test_a_changed_file_is_refused(comments_folder: Path, tmp_path: Path, name: str) -> None:
    copy = shutil.copytree(comments_folder / "bundle", tmp_path / "bundle")
    data = bytearray((copy / name).read_bytes())
    data[-3] ^= 1
    (copy / name).write_bytes(data)
    with pytest.raises(ServiceError, match=f"{name} was changed: its sha256 is") as caught:
        open_bundle(copy)
    assert caught.value.code == "check_failed"


def test_a_bundle_of_a_job_that_is_refused_by_now_can_still_be_read(
    relabelled: Bundle, tmp_path: Path, comments_folder: Path
) -> None:
    copy = shutil.copytree(relabelled.directory, tmp_path / "bundle")
    before = (copy / "manifest.json").read_bytes()
    manifest = json.loads(before)
    manifest["document"]["method"]["name"] = "el2n"
    after = json.dumps(manifest).encode()
    (copy / "manifest.json").write_bytes(after)
    sums = (copy / "SHA256SUMS").read_text()
    digests = [hashlib.sha256(data).hexdigest() for data in (before, after)]
    (copy / "SHA256SUMS").write_text(sums.replace(*digests))
    comments = pq.read_table(comments_folder / "comments.parquet")
    assert len(open_bundle(copy).filter_frame(comments)) == len(relabelled.keep)
    assert verify_data(copy, str(comments_folder / "comments.parquet")) == 60


def test_what_is_no_bundle_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ServiceError, match=r"is a folder without SHA256SUMS; wanted a bundle."):
        open_bundle(str(tmp_path))


def test_labels_are_given_ones_where_none_was_corrected(bundle: Bundle, curated: pa.Table) -> None:
    given = curated.column("given").to_pylist()
    assert bundle.labels.tolist() == given
    assert given.count(None) == 3
    assert bundle.class_names == ("ham", "spam")
    assert bundle.label_codes.tolist() == [-1 if label is None else ("ham", "spam").index(label) for label in given]
    assert bundle.soft_labels is None


def test_influences_name_rows_and_trusted_examples(bundle: Bundle, comments_folder: Path) -> None:
    assert bundle.influences is not None
    ids = bundle.read_rows(["id"]).column("id")
    assert bundle.influences.column("id").equals(ids.take(bundle.influences.column("row")))
    table = pq.read_table(comments_folder / "comments.parquet")
    trusted = table.filter(pa.array([part == "valid" for part in table.column("part").to_pylist()]))
    told = trusted.take(bundle.influences.column("meta_row"))
    assert bundle.influences.column("meta_id").equals(told.column("key"))
    assert bundle.influences.column("meta_label").equals(told.column("label"))


def test_a_bundle_of_a_job_that_traced_nothing_has_no_influences(images_folder: Path) -> None:
    assert open_bundle(images_folder / "bundle").influences is None


def test_whole_number_labels_are_minus_one_where_unlabelled(tmp_path: Path, points_folder: Path) -> None:
    points = open_bundle(points_folder / "bundle")
    assert points.labels.tolist() == [row % 2 for row in range(40)]
    lines = (points_folder / "points.csv").read_text().splitlines()
    path = tmp_path / "points.csv"
    path.write_text("\n".join([*lines[:3], lines[3][:-1], *lines[4:]]) + "\n")
    unlabelled = open_bundle(scene.make_bundle(scene.describe_points(path), tmp_path))
    assert unlabelled.labels.tolist()[:4] == unlabelled.label_codes.tolist()[:4] == [0, 1, -1, 1]
    assert 2 not in unlabelled.keep


def test_corrected_labels_are_the_ones_to_train_on(relabelled: Bundle, curated: pa.Table) -> None:
    rows = relabelled.read_rows(["given_label", "suggested_label", "corrected"]).to_pylist()
    corrected = [row["corrected"] for row in rows]
    assert any(corrected)
    wanted = [row["suggested_label"] if row["corrected"] else row["given_label"] for row in rows]
    assert relabelled.labels.tolist() == wanted
    assert [relabelled.class_names[code] if code >= 0 else None for code in relabelled.label_codes] == wanted
    kept = relabelled.filter_frame(curated.drop_columns(["label"]), columns=["label", "corrected"])
    assert kept.column("label").to_pylist() == [wanted[row] for row in relabelled.keep]
    assert relabelled.soft_labels is not None
    assert relabelled.soft_labels.shape == (60, 2)
    assert relabelled.soft_labels[relabelled.keep].sum(axis=1) == pytest.approx(1, abs=1e-5)


def test_undone_a_bundle_holds_the_given_labels_and_what_they_deserve(tmp_path: Path, curated: pa.Table) -> None:
    document = scene.describe_comments(
        scene.write_comments(tmp_path / "comments.parquet"), training={"epochs": 12, "batch_size": 20, "lr": 0.05}
    )
    del document["selection"]
    relabel = {"task": "relabel", "relabel": {"unlabelled": True, "targets": "soft"}}
    changed = open_bundle(scene.make_bundle(document | relabel, tmp_path))
    plain = open_bundle(scene.make_bundle(document | {"task": "reweight"}, tmp_path / "plain"))
    assert (changed.labels != plain.labels).sum() >= 5
    assert len(changed.keep) == 60
    undone = changed.given()
    assert undone.labels.tolist() == plain.labels.tolist()
    assert undone.label_codes.tolist() == plain.label_codes.tolist()
    assert undone.keep.tolist() == plain.keep.tolist()
    assert undone.weights.tolist() == plain.weights.tolist()
    assert undone.soft_labels is None
    columns = ["label", "weight", "score", "given_label", "row"]
    assert undone.read_rows(columns).equals(plain.read_rows(columns))
    names = {"label": "train_on", "weight": "weight"}
    assert undone.filter_frame(curated, columns=names).equals(plain.filter_frame(curated, columns=names))
    examples = undone.weighted(range(60), ids=curated.column("key").to_pylist())
    assert len(examples) == int((plain.weights > 0).sum())
    assert undone.given().weights.tolist() == undone.weights.tolist()
    assert plain.given() is plain


def test_of_a_job_that_did_not_record_it_the_worth_under_the_given_labels_is_not_made_up(
    tmp_path: Path, relabelled: Bundle
) -> None:
    copy = shutil.copytree(relabelled.directory, tmp_path / "bundle")
    rows = pq.read_table(copy / "rows.parquet")
    unknown = pa.nulls(len(rows), pa.float32())
    place = rows.schema.get_field_index("given_weight")
    for older in (rows.drop_columns(["given_weight"]), rows.set_column(place, "given_weight", unknown)):
        pq.write_table(older, copy / "rows.parquet")
        with pytest.raises(UnreadableSourceError, match="does not say what corrected rows are worth"):
            Bundle(copy).given()


def test_a_column_that_is_not_there_is_refused(bundle: Bundle) -> None:
    with pytest.raises(
        UnreadableSourceError, match=r"columns names 'labels'; a row has row, id, content_sha256, source"
    ):
        bundle.read_rows(["labels"])


def test_opening_a_bundle_imports_none_of_the_libraries_it_serves() -> None:
    names = ("torch", "pandas", "polars", "datasets", "webdataset", "sqlalchemy", "fastapi")
    code = f"import sys, sama_bundle; sys.exit(', '.join({{*sys.modules}} & set({names!r})) or 0)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
