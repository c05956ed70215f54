"""A bundle that was tampered with is caught, whatever was changed."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from service.client.bundle_listing import read_sums
from service.errors import ServiceError
from tests.cli.conftest import Sama, SeededServer


@pytest.fixture
def bundle(sama: Sama, server: SeededServer, tmp_path: Path) -> Path:
    """A sound bundle."""
    assert sama("download", server.seeder.succeed("to be checked"), "--out", tmp_path / "bundle").code == 0
    return tmp_path / "bundle"


def _sign_again(bundle: Path) -> None:
    """Make the digests fit again, as someone would who wants a change to go unseen."""
    manifest = json.loads((bundle / "manifest.json").read_text())
    for name, output in manifest["outputs"].items():
        output["sha256"] = hashlib.sha256((bundle / name).read_bytes()).hexdigest()
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    names = ["manifest.json", *manifest["outputs"]]
    lines = [f"{hashlib.sha256((bundle / name).read_bytes()).hexdigest()}  {name}\n" for name in names]
    (bundle / "SHA256SUMS").write_text("".join(lines))


def _swap_a_keep(bundle: Path) -> None:
    table = pq.read_table(bundle / "rows.parquet")
    keep = table.column("keep").to_pylist()
    keep[0] = not keep[0]
    place = table.schema.get_field_index("keep")
    pq.write_table(table.set_column(place, "keep", pa.array(keep)), bundle / "rows.parquet")


def _drop_a_row(bundle: Path) -> None:
    pq.write_table(pq.read_table(bundle / "rows.parquet").slice(1), bundle / "rows.parquet")


def _change_keep(bundle: Path) -> None:
    np.save(bundle / "keep.npy", np.load(bundle / "keep.npy")[1:])


def _change_a_weight(bundle: Path) -> None:
    weights = np.load(bundle / "weights.npy")
    weights[0] += 1
    np.save(bundle / "weights.npy", weights)


def _pickle_keep(bundle: Path) -> None:
    np.save(bundle / "keep.npy", np.array([{"an": "object"}], dtype=object))


def _add_influences(bundle: Path) -> None:
    pq.write_table(pa.table({"row": [0]}), bundle / "influences.parquet")


def _break_manifest(bundle: Path) -> None:
    (bundle / "manifest.json").write_text("{")
    lines = (bundle / "SHA256SUMS").read_text().splitlines(keepends=True)
    digest = hashlib.sha256(b"{").hexdigest()
    (bundle / "SHA256SUMS").write_text(f"{digest}  manifest.json\n" + "".join(lines[1:]))


def test_every_changed_or_missing_file_has_a_line(sama: Sama, bundle: Path) -> None:
    (bundle / "rows.parquet").write_bytes(b"changed")
    (bundle / "keep.npy").unlink()
    outcome = sama("verify", bundle)
    assert outcome.code == 1
    assert len(outcome.errors) == 2
    assert any("rows.parquet was changed: its sha256 is" in line for line in outcome.errors)
    assert "error: keep.npy is missing." in outcome.errors


@pytest.mark.parametrize(
    ("tamper", "message"),
    [
        (_swap_a_keep, "manifest.json says n_kept is 280; rows.parquet has"),
        (_drop_a_row, "rows.parquet has row 1 in place 0."),
        (_change_keep, "keep.npy does not agree with rows.parquet."),
        (_change_a_weight, "weights.npy does not agree with rows.parquet."),
        (_pickle_keep, "keep.npy cannot be read as an array."),
        (_add_influences, "influences.parquet is there, but manifest.json tells of no influences."),
    ],
)
def test_a_change_with_fitting_digests_is_caught(
    sama: Sama, bundle: Path, tamper: Callable[[Path], None], message: str
) -> None:
    tamper(bundle)
    _sign_again(bundle)
    outcome = sama("verify", bundle)
    assert outcome.code == 1
    assert message in outcome.err


def test_a_manifest_that_is_no_json_is_told(sama: Sama, bundle: Path) -> None:
    _break_manifest(bundle)
    outcome = sama("verify", bundle)
    assert (outcome.code, outcome.errors) == (1, ["error: manifest.json cannot be read as JSON."])


def test_a_folder_that_is_no_bundle_is_told(sama: Sama, tmp_path: Path) -> None:
    assert "is a folder without SHA256SUMS; wanted a bundle." in sama("verify", tmp_path).err
    outcome = sama("verify", tmp_path / "nowhere")
    assert outcome.code == 1
    assert "is no folder; wanted a bundle." in outcome.err


@pytest.mark.parametrize("line", ["x", "0" * 64 + "  ../evil", "0" * 64 + "  /etc/passwd", "0" * 64 + "  SHA256SUMS"])
def test_a_list_of_files_cannot_lead_out_of_the_folder(line: str) -> None:
    with pytest.raises(ServiceError, match="SHA256SUMS line 1 is"):
        read_sums(line + "\n")


def test_a_name_that_stands_twice_is_refused() -> None:
    line = "0" * 64 + "  rows.parquet\n"
    with pytest.raises(ServiceError, match="SHA256SUMS line 2"):
        read_sums(line + line)
