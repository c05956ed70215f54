"""The client against a real server process."""

import threading
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.client.client import Client
from service.client.errors import AnswerError, UnreachableError
from service.client.transport import Transport
from service.errors import ServiceError
from service.jobs.schemas import Job, JobEvent
from service.jobs.state import JobState
from tests.client.conftest import SeededServer
from tests.page.seeding import NUM_KEPT, NUM_ROWS, Seeder


def _write_data(folder: Path) -> dict[str, Any]:
    lines = [
        "text,label,split",
        *(f"message {row},{'ab'[row % 2]},{'train' if row < 30 else 'valid'}" for row in range(40)),
    ]
    (folder / "data.csv").write_text("\n".join(lines))
    return {
        "name": "from a client",
        "dataset": {
            "uri": str(folder / "data.csv"),
            "text": "text",
            "label": "label",
            "split": {"column": "split", "value": "train"},
        },
        "meta": {"split": {"column": "split", "value": "valid"}},
    }


def test_a_job_is_submitted_once_for_one_key(client: Client, server: SeededServer) -> None:
    document = _write_data(server.api.data_dir)
    first = client.submit(document, idempotency_key="the same")
    assert first.state == JobState.QUEUED
    assert client.submit(document, idempotency_key="the same").id == first.id
    assert client.submit(document).id != first.id


def test_the_dry_run_tells_rows_and_classes(client: Client, server: SeededServer) -> None:
    report = client.validate(_write_data(server.api.data_dir))
    assert {role.role: role.num_rows for role in report.roles} == {"train": 30, "meta": 10}
    assert [one.label for one in report.classes] == ["a", "b"]


def test_every_problem_of_a_document_arrives(client: Client) -> None:
    with pytest.raises(AnswerError) as refused:
        client.submit({"dataset": {"uri": "a.csv", "label": "label"}, "task": "prun", "colour": 1})
    assert (refused.value.status, refused.value.code) == (422, "invalid_document")
    assert {"task", "colour"} <= {problem.param for problem in refused.value.problems}


def test_jobs_are_listed_by_state_name_label_and_page(client: Client, server: SeededServer) -> None:
    assert [job.id for job in client.list(states=["succeeded"]).items] == [server.succeeded]
    assert [job.id for job in client.list(labels={"team": "ads"}).items] == [server.queued]
    assert [job.id for job in client.list(name="digits").items] == [server.succeeded]
    first = client.list(limit=1)
    assert first.next_cursor is not None
    assert client.list(limit=1, cursor=first.next_cursor).items[0].id != first.items[0].id


def test_a_finished_job_shows_its_results(client: Client, server: SeededServer) -> None:
    assert client.summary(server.succeeded).selection.n_kept == NUM_KEPT
    page = client.examples(server.succeeded, sort="-noise_score", kept=False, limit=5)
    assert len(page.items) == 5
    assert page.next_cursor is not None
    assert not any(example.keep for example in page.items)
    assert client.examples(server.succeeded, corrected=True).items == []
    assert len(client.examples(server.succeeded, corrected=False, limit=3).items) == 3
    assert len(client.metrics(server.succeeded)) == 160
    assert client.events(server.succeeded)[-1].message == "succeeded"


def test_watching_a_finished_job_gives_its_events_and_ends_with_it(client: Client, server: SeededServer) -> None:
    *before, last = client.watch(server.succeeded)
    assert isinstance(last, Job)
    assert last.state == JobState.SUCCEEDED
    events = [item.message for item in before if isinstance(item, JobEvent)]
    assert events == [event.message for event in client.events(server.succeeded)]


def test_a_watch_outlives_a_restart_of_the_server_and_repeats_no_event(client: Client, server: SeededServer) -> None:
    job_id = Seeder(server.database).queue("watched through a restart")
    seen: list[Job | JobEvent] = []
    first_seen = threading.Event()

    def watch() -> None:
        with Client(server.api.url, server.api.api_key) as watcher:
            for item in watcher.watch(job_id):
                seen.append(item)
                first_seen.set()

    thread = threading.Thread(target=watch)
    thread.start()
    assert first_seen.wait(20)
    server.api.kill()
    server.api.start()
    client.cancel(job_id)
    thread.join(30)
    assert not thread.is_alive()
    assert isinstance(seen[-1], Job)
    assert seen[-1].state == JobState.CANCELLED
    ids = [item.id for item in seen if isinstance(item, JobEvent)]
    assert len(ids) == len(set(ids)) >= 2


def test_cancel_resume_and_delete(client: Client, server: SeededServer) -> None:
    job_id = Seeder(server.database).queue("in and out")
    assert client.cancel(job_id).state == JobState.CANCELLED
    assert client.resume(job_id).state == JobState.QUEUED
    client.cancel(job_id)
    client.delete(job_id)
    with pytest.raises(AnswerError, match=f"There is no job '{job_id}'") as gone:
        client.get(job_id)
    assert (gone.value.status, gone.value.code) == (404, "not_found")


def test_a_forbidden_transition_is_told(client: Client, server: SeededServer) -> None:
    with pytest.raises(AnswerError, match="is succeeded; cancel needs") as refused:
        client.cancel(server.succeeded)
    assert (refused.value.status, refused.value.code) == (409, "forbidden_transition")


def test_an_id_that_is_a_path_is_never_sent(client: Client) -> None:
    with pytest.raises(ServiceError, match=r"There is no job '\.\./v1/jobs'"):
        client.get("../v1/jobs")


def test_a_wrong_key_is_told(server: SeededServer) -> None:
    with Client(server.api.url, "x" * 30) as stranger, pytest.raises(AnswerError, match="API key") as refused:
        stranger.list()
    assert (refused.value.status, refused.value.code) == (401, "unauthorized")


def test_nobody_at_the_address_is_told(server: SeededServer) -> None:
    with (
        Client("http://127.0.0.1:1") as client,
        pytest.raises(UnreachableError, match=r"127\.0\.0\.1:1 cannot be reached"),
    ):
        client.list()
    with Client("http://127.0.0.1:1") as client, pytest.raises(UnreachableError):
        next(client.watch(server.queued))


def test_a_request_on_a_broken_connection_is_sent_again(server: SeededServer, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter([httpx.ReadError("gone"), None])
    send = httpx.Client.send

    def break_first(self: httpx.Client, request: httpx.Request, **options: Any) -> httpx.Response:
        error = next(answers, None)
        if error is not None:
            raise error
        return send(self, request, **options)

    monkeypatch.setattr(httpx.Client, "send", break_first)
    with Client(server.api.url, server.api.api_key) as client:
        assert client.get(server.queued).id == server.queued
    assert isinstance(client._transport, Transport)


def test_a_stranger_at_the_address_is_told(tmp_path: Path) -> None:
    from http.server import HTTPServer, SimpleHTTPRequestHandler

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_arguments: object) -> None:
            """Say nothing."""

    with HTTPServer(("127.0.0.1", 0), Quiet) as stranger:
        thread = threading.Thread(target=stranger.serve_forever, args=(0.01,))
        thread.start()
        with Client(f"http://127.0.0.1:{stranger.server_port}") as client, pytest.raises(AnswerError) as refused:
            client.list()
        stranger.shutdown()
        thread.join()
    assert refused.value.code == "unexpected_answer"
    assert "SAMA_URL" in str(refused.value.hint)


def test_the_bundle_is_downloaded_whole_and_at_any_fraction(
    client: Client, server: SeededServer, tmp_path: Path
) -> None:
    import numpy as np

    paths = client.download(server.succeeded, tmp_path / "own")
    assert sorted(path.name for path in paths) == sorted(path.name for path in (tmp_path / "own").iterdir())
    assert len(np.load(tmp_path / "own" / "keep.npy")) == NUM_KEPT
    client.download(server.succeeded, tmp_path / "half", keep_fraction=0.5)
    assert len(np.load(tmp_path / "half" / "keep.npy")) == NUM_ROWS // 2


def test_a_bundle_is_not_written_over_another(client: Client, server: SeededServer, tmp_path: Path) -> None:
    client.download(server.succeeded, tmp_path)
    client.download(server.succeeded, tmp_path)
    with pytest.raises(ServiceError, match="holds another") as refused:
        client.download(server.succeeded, tmp_path, keep_fraction=0.5)
    assert refused.value.code == "target_exists"
    client.download(server.succeeded, tmp_path, keep_fraction=0.5, overwrite=True)


def test_results_of_a_job_that_is_not_done_are_told(client: Client, server: SeededServer, tmp_path: Path) -> None:
    with pytest.raises(AnswerError, match="results are there once it has succeeded") as refused:
        client.download(server.queued, tmp_path / "out")
    assert refused.value.code == "results_not_ready"
    assert not (tmp_path / "out").exists()
