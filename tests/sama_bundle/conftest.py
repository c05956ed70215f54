"""Bundles of every kind of data, each made once by a real job, beside the data they were made from."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sama_bundle import Bundle, open_bundle
from tests.sama_bundle import scene


@pytest.fixture(scope="session")
def comments_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with comments.parquet and the bundle made from it."""
    folder = tmp_path_factory.mktemp("comments")
    scene.make_bundle(scene.describe_comments(scene.write_comments(folder / "comments.parquet")), folder)
    return folder


@pytest.fixture(scope="session")
def points_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with points.csv and the bundle made from it: a reweighting, every row kept."""
    folder = tmp_path_factory.mktemp("points")
    scene.make_bundle(scene.describe_points(scene.write_points(folder / "points.csv")), folder)
    return folder


@pytest.fixture(scope="session")
def images_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with images.parquet and the bundle made from it."""
    folder = tmp_path_factory.mktemp("images")
    scene.make_bundle(scene.describe_images(scene.write_images(folder / "images.parquet")), folder)
    return folder


@pytest.fixture(scope="session")
def bundle(comments_folder: Path) -> Bundle:
    """The bundle of the comments."""
    return open_bundle(comments_folder / "bundle")


@pytest.fixture(scope="session")
def comments(comments_folder: Path) -> pa.Table:
    """The whole file of comments, trusted ones among them."""
    return pq.read_table(comments_folder / "comments.parquet")


@pytest.fixture(scope="session")
def curated(comments: pa.Table) -> pa.Table:
    """The curated comments alone."""
    return comments.filter(pa.compute.equal(comments.column("part"), "train"))
