"""The chain of migrations on both databases: up with data in the tables, and down again."""

import hashlib

import pytest
from alembic import command
from sqlalchemy import inspect, text

from service.db.engine import Database
from service.db.migrate import create_config

_JOB = (
    "INSERT INTO job (id, document, document_digest, state, progress, priority, attempt, lost_attempts, max_attempts, "
    "max_seconds, used_seconds, cancel_requested, created_at, queued_at) "
    "VALUES ('j', '{}', 'd', 'succeeded', 1, 0, 1, 0, 3, 10, 0, :no, 0, 0)"
)
_PREVIEW = (
    "INSERT INTO result_preview (job_id, attempt, row, suspicion_rank, example_id, given_label, suggested_label, "
    "label_confidence, noise_score, weight, score, keep, reason) "
    "VALUES ('j', 1, :row, 0, 'a', 'ham', 'spam', 0.9, 0.8, 1, 1, :no, 'low score')"
)
_EXPORT = (
    "INSERT INTO result_export (job_id, file_name, num_kept, sha256, size_bytes) VALUES ('j', 'keep.npy', 1, :sha, 1)"
)


@pytest.fixture
def before_labels(database: Database, database_url: str) -> Database:
    """A database as it was before labels could be corrected, with a preview and an export in it."""
    command.downgrade(create_config(database_url), "0001")
    with database.engine.begin() as connection:
        connection.execute(text(_JOB), {"no": False})
        connection.execute(text(_PREVIEW.replace(" row,", ' "row",')), {"row": 3, "no": False})
        connection.execute(text(_EXPORT), {"sha": hashlib.sha256(b"").hexdigest()})
    return database


def test_previews_stored_before_labels_could_be_corrected_say_that_none_was(
    before_labels: Database, database_url: str
) -> None:
    command.upgrade(create_config(database_url), "head")
    with before_labels.engine.connect() as connection:
        found = connection.execute(text("SELECT given_label, label, corrected, influences FROM result_preview")).one()
        num_exports = connection.execute(text("SELECT count(*) FROM result_export")).scalar_one()
    assert (found.given_label, found.label, bool(found.corrected)) == ("ham", "ham", False)
    assert found.influences in ([], "[]")
    assert num_exports == 0, "files of the older form are made again"


def test_files_exported_before_worth_and_influences_were_kept_are_made_again(
    before_labels: Database, database_url: str
) -> None:
    config = create_config(database_url)
    command.upgrade(config, "0002")
    with before_labels.engine.begin() as connection:
        connection.execute(text(_EXPORT), {"sha": hashlib.sha256(b"").hexdigest()})
    command.upgrade(config, "head")
    with before_labels.engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM result_export")).scalar_one() == 0


def test_the_chain_leads_up_and_down_again(before_labels: Database, database_url: str) -> None:
    config = create_config(database_url)
    before = {
        column["name"]: column["nullable"] for column in inspect(before_labels.engine).get_columns("result_preview")
    }
    command.upgrade(config, "head")
    after = {
        column["name"]: column["nullable"] for column in inspect(before_labels.engine).get_columns("result_preview")
    }
    assert set(after) - set(before) == {"label", "corrected", "influences"}
    assert [name for name in before if after[name] != before[name]] == ["given_label", "noise_score", "score"]
    command.downgrade(config, "0001")
    again = {
        column["name"]: column["nullable"] for column in inspect(before_labels.engine).get_columns("result_preview")
    }
    assert again == before
    command.downgrade(config, "base")
    assert set(inspect(before_labels.engine).get_table_names()) <= {"alembic_version"}


def test_the_tables_are_those_that_the_code_declares(database: Database) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    import service.attempts.tables
    import service.auth.tables
    import service.jobs.tables
    import service.results.tables  # noqa: F401 (the imports fill the metadata)
    from service.db.base import Base

    with database.engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []
