"""Commands against a server."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from service.attempts.repository import AttemptRepository
from tests.cli.conftest import Sama, SeededServer
from tests.page.seeding import NUM_KEPT


def test_a_submitted_job_is_listed_shown_cancelled_and_resumed(
    sama: Sama, server: SeededServer, write_spec: Callable[..., Path], data_path: Path
) -> None:
    submitted = sama("submit", write_spec(labels={"team": "cli"}), "--set", "name=from the terminal")
    assert submitted.code == 0, submitted.err
    job_id = submitted.out.strip()
    listed = sama("jobs", "--label", "team=cli")
    assert job_id in listed.out
    assert "queued (" in listed.out
    shown = sama("show", job_id)
    assert "from the terminal" in shown.out
    assert "queue position" in shown.out
    assert sama("cancel", job_id).out == f"job {job_id} is cancelled\n"
    assert sama("resume", job_id).out == f"job {job_id} is queued\n"
    assert sama("cancel", job_id).code == 0
    logged = sama("logs", job_id)
    assert "cancelled before it began" in logged.out
    assert len(logged.out.splitlines()) == 4


def test_a_relative_path_starts_at_the_document_on_this_machine(
    sama: Sama,
    server: SeededServer,
    write_spec: Callable[..., Path],
    data_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir("/")
    outcome = sama("submit", write_spec(), "--json")
    assert outcome.code == 0
    job = json.loads(outcome.out)["job"]
    assert job["document"]["dataset"]["uri"] == str(data_path)
    sama("cancel", job["id"])


def test_watching_a_job_that_did_not_succeed_is_exit_code_1(sama: Sama, server: SeededServer) -> None:
    job_id = server.seeder.fail("broken")
    outcome = sama("watch", job_id)
    assert outcome.code == 1
    message = f"error: Job {job_id} failed: Row 17 has an image that cannot be read. Repair or remove row 17."
    assert outcome.errors == [message]
    cancelled = server.seeder.queue()
    sama("cancel", cancelled)
    outcome = sama("watch", cancelled)
    assert outcome.code == 1
    assert outcome.errors == [f"error: Job {cancelled} cancelled."]


def test_watching_a_job_that_succeeded_tells_what_it_found(sama: Sama, server: SeededServer) -> None:
    job_id = server.seeder.succeed("found")
    outcome = sama("watch", job_id)
    assert outcome.code == 0
    assert "verdict: Better: the curated rows beat all rows" in outcome.out
    assert f"sama download {job_id}" in outcome.out
    assert "succeeded · 100%" in outcome.err
    assert "note: model auto chose cnn" in outcome.err


def test_show_tells_rows_accuracy_and_verdict(sama: Sama, server: SeededServer) -> None:
    outcome = sama("show", server.seeder.succeed("shown"))
    lines = [line.split() for line in outcome.out.splitlines()]
    assert ["keep", "280", "70.0%"] in lines
    assert ["curated", "280", "94.8%", "93.6", "to", "96.0%"] in lines
    assert "curated against full: +7.4 points (+6.0 points to +8.8 points)" in outcome.out


def test_json_is_the_last_line_and_nothing_else_is_on_standard_output(sama: Sama, server: SeededServer) -> None:
    job_id = server.seeder.succeed("for programs")
    for arguments in (["show", job_id], ["watch", job_id], ["jobs"], ["logs", job_id]):
        outcome = sama(*arguments, "--json")
        assert outcome.code == 0
        (line,) = outcome.out.splitlines()
        assert isinstance(json.loads(line), dict)
    assert json.loads(sama("show", job_id, "--json").out)["summary"]["selection"]["n_kept"] == NUM_KEPT


def test_hostile_text_cannot_steer_the_terminal(sama: Sama, server: SeededServer) -> None:
    job_id = server.seeder.train("hostile")
    with server.seeder.database.write() as session:
        attempts = AttemptRepository(session)
        attempts.record(job_id, 1, events=[("note", "column 'evil \x1b[2J\x07\n\u202ename' is left out")])
        attempts.cancel(job_id, 1)
    for outcome in (sama("logs", job_id), sama("watch", job_id)):
        assert "column 'evil  [2J" in outcome.out + outcome.err
        assert not {"\x1b", "\x07", "\u202e"} & set(outcome.out + outcome.err)


def test_an_unknown_job_and_a_forbidden_step_are_refused(sama: Sama, server: SeededServer) -> None:
    outcome = sama("show", "job_unknown")
    assert (outcome.code, outcome.errors) == (2, ["error: There is no job 'job_unknown'."])
    job_id = server.seeder.succeed("over")
    outcome = sama("cancel", job_id)
    assert outcome.code == 2
    assert f"Job {job_id} is succeeded; cancel needs a job that is" in outcome.err


def test_a_wrong_key_is_refused(sama: Sama, server: SeededServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAMA_API_KEY", "x" * 40)
    outcome = sama("jobs")
    assert outcome.code == 2
    assert "The API key is not the one of this server." in outcome.err


def test_a_bundle_is_downloaded_and_verified(sama: Sama, server: SeededServer, tmp_path: Path) -> None:
    job_id = server.seeder.succeed("bundle")
    out = tmp_path / "bundle"
    assert sama("download", job_id, "--out", out).code == 0
    verified = sama("verify", out)
    assert verified.code == 0
    assert "7 files, 400 rows, 280 kept; every digest holds and the files agree" in verified.out
    refused = sama("download", job_id, "--out", out, "--keep-fraction", "0.5")
    assert refused.code == 2
    assert "--overwrite" in refused.err
    assert sama("download", job_id, "--out", out, "--keep-fraction", "0.5", "--overwrite").code == 0
    assert "200 kept" in sama("verify", out).out


@pytest.mark.parametrize("fraction", ["0", "1.5", "-1"])
def test_a_keep_fraction_out_of_range_is_refused(
    sama: Sama, server: SeededServer, tmp_path: Path, fraction: str
) -> None:
    outcome = sama("download", server.seeder.succeed(), "--out", tmp_path / "out", "--keep-fraction", fraction)
    assert outcome.code == 2
    assert "keep_fraction" in outcome.err
    assert not (tmp_path / "out").exists()
