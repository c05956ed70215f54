"""The API over a real database of either kind, and a client that holds its key."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from service.auth.keys import load_api_key
from service.main import create_app
from service.settings import Settings
from tests.service.seeding import write_data


@pytest.fixture
def app(settings: Settings) -> Iterator[FastAPI]:
    """The application. The database is migrated already."""
    app = create_app(settings)
    yield app
    app.state.database.dispose()


@pytest.fixture
def stranger(app: FastAPI) -> Iterator[TestClient]:
    """A client without the key."""
    client = TestClient(app, base_url="http://127.0.0.1:8000")
    yield client
    client.close()


@pytest.fixture
def client(app: FastAPI, settings: Settings) -> Iterator[TestClient]:
    """A client with the key."""
    key = load_api_key(settings).get_secret_value()
    client = TestClient(app, base_url="http://127.0.0.1:8000", headers={"Authorization": f"Bearer {key}"})
    yield client
    client.close()


@pytest.fixture
def data_path(tmp_path: Path) -> Path:
    """A small text data set inside the allowed folders."""
    return write_data(tmp_path)
