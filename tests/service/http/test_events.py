"""Following a job: streams that resume, end and notice who is gone; the same events as a list."""

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import FastAPI
from starlette.testclient import TestClient

from service.attempts.repository import AttemptRepository
from service.attempts.state import Progress
from service.auth.keys import load_api_key
from service.db.engine import Database
from service.jobs import event_stream
from service.jobs.service import JobService
from service.jobs.state import Phase
from service.settings import Settings
from tests.service.seeding import add_job, claim_job, finish_job

Message = dict[str, Any]


def _read(text: str) -> list[Message]:
    """Return the messages of a stream; a comment has the event `comment`."""
    messages = []
    for block in text.split("\n\n")[:-1]:
        fields = dict(line.split(": ", 1) if line[0] != ":" else ("event", "comment") for line in block.split("\n"))
        messages.append(fields | ({"data": json.loads(fields["data"])} if "data" in fields else {}))
    return messages


def test_the_stream_of_a_finished_job_ends_with_its_state(client: TestClient, database: Database) -> None:
    job_id = finish_job(database)
    answer = client.get(f"/v1/jobs/{job_id}/events")
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert answer.headers["cache-control"] == "no-store"
    *events, last = _read(answer.text)
    assert [message["event"] for message in events] == ["event"] * len(events)
    ids = [int(message["id"]) for message in events]
    assert ids == sorted(ids)
    assert [message["data"]["id"] for message in events] == ids
    assert events[0]["data"]["message"] == "queued"
    assert events[-1]["data"]["message"] == "succeeded"
    assert last["event"] == "progress"
    assert "id" not in last
    assert last["data"] == client.get(f"/v1/jobs/{job_id}").json()


def test_a_stream_goes_on_after_the_last_event_seen(client: TestClient, database: Database) -> None:
    job_id = finish_job(database)
    path = f"/v1/jobs/{job_id}/events"
    first = [message for message in _read(client.get(path).text) if message["event"] == "event"]
    rest = _read(client.get(path, headers={"Last-Event-ID": first[1]["id"]}).text)
    assert [message.get("id") for message in rest] == [message["id"] for message in first[2:]] + [None]
    only = _read(client.get(path, headers={"Last-Event-ID": first[-1]["id"]}).text)
    assert [message["event"] for message in only] == ["progress"]


def test_the_same_events_as_a_list(client: TestClient, database: Database) -> None:
    job_id = finish_job(database)
    path = f"/v1/jobs/{job_id}/events"
    streamed = [message["data"] for message in _read(client.get(path).text) if message["event"] == "event"]
    headers = {"Accept": "application/json"}
    assert client.get(path, headers=headers).json() == {"items": streamed}
    rest = client.get(path, headers=headers | {"Last-Event-ID": str(streamed[0]["id"])}).json()
    assert rest == {"items": streamed[1:]}


def test_a_long_list_is_whole(client: TestClient, database: Database) -> None:
    job_id = add_job(database)
    claim = claim_job(database)
    with database.write() as session:
        events = [("note", f"event {number}") for number in range(2100)]
        AttemptRepository(session).record(job_id, claim.attempt, events=events)
    items = client.get(f"/v1/jobs/{job_id}/events", headers={"Accept": "application/json"}).json()["items"]
    assert [item["message"] for item in items[2:]] == [message for _, message in events]


@pytest.mark.parametrize("given", ["abc", "-1", "1.5", "9" * 19, "9" * 30])
def test_a_wrong_last_event_id_is_refused(client: TestClient, database: Database, given: str) -> None:
    job_id = add_job(database)
    answer = client.get(f"/v1/jobs/{job_id}/events", headers={"Last-Event-ID": given})
    assert answer.status_code == 422
    assert answer.json()["detail"] == f"Last-Event-ID is {given!r}; wanted the id of an event of this job."


async def _follow(
    app: FastAPI, job_id: str, acts: list[Callable[[], None]], *, stop_after: int | None = None
) -> list[Message]:
    """Follow a job; after each `progress` the next act is done. Ends with the stream, or after so many messages."""
    jobs: JobService = app.state.jobs
    messages: list[Message] = []
    stream = event_stream.follow_job(jobs, job_id, 0, is_ended=lambda: False)
    async for text in stream:
        messages += _read(text)
        if acts and messages[-1]["event"] == "progress":
            await asyncio.to_thread(acts.pop(0))
        if stop_after is not None and len(messages) >= stop_after:
            await stream.aclose()  # type: ignore[attr-defined]
    return messages


def test_a_running_job_is_followed_to_its_end(
    app: FastAPI, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_stream, "POLL_SECONDS", 0.01)
    job_id = add_job(database)
    claim = claim_job(database)

    def act(write: Callable[[AttemptRepository], object]) -> Callable[[], None]:
        def run() -> None:
            with database.write() as session:
                write(AttemptRepository(session))

        return run

    attempt = claim.attempt
    acts = [
        act(lambda work: work.enter_phase(job_id, attempt, Phase.TRAINING, "training")),
        act(lambda work: work.record(job_id, attempt, progress=Progress(0.5, 10.0, "steps/s", 3.0))),
        act(lambda work: work.cancel(job_id, attempt)),
    ]
    messages = asyncio.run(_follow(app, job_id, acts))
    assert [message["data"]["message"] for message in messages if message["event"] == "event"] == [
        "queued",
        "attempt 1 claimed by worker worker-1",
        "training",
        "cancelled",
    ]
    states = [message["data"]["state"] for message in messages if message["event"] == "progress"]
    assert states[-1] == "cancelled"
    assert states.count("cancelled") == 1
    assert "running" in states
    rates = {message["data"]["rate_unit"] for message in messages if message["event"] == "progress"}
    assert "steps/s" in rates


def test_a_quiet_stream_says_that_it_is_alive(
    app: FastAPI, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_stream, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(event_stream, "HEARTBEAT_SECONDS", 0.02)
    messages = asyncio.run(_follow(app, add_job(database), [], stop_after=4))
    assert [message["event"] for message in messages] == ["event", "progress", "comment", "comment"]


def test_the_stream_of_a_deleted_job_ends(app: FastAPI, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_stream, "POLL_SECONDS", 0.01)
    job_id = add_job(database)
    jobs: JobService = app.state.jobs

    def remove() -> None:
        jobs.cancel(job_id)
        jobs.delete(job_id)

    messages = asyncio.run(_follow(app, job_id, [remove]))
    assert messages[0]["event"] == "event"
    assert messages[-1]["data"].get("state") != "succeeded"


@contextmanager
def _serve(app: FastAPI) -> Iterator[tuple[uvicorn.Server, str]]:
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, lifespan="off"))
    app.state.is_stopping = lambda: server.should_exit
    thread = threading.Thread(target=server.run)
    thread.start()
    deadline = time.monotonic() + 20
    while not server.started and time.monotonic() < deadline:
        time.sleep(0.01)
    try:
        yield server, f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive()


def test_a_server_that_stops_ends_its_streams_and_one_that_lost_its_caller_too(
    app: FastAPI, database: Database, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = add_job(database)
    headers = {"Authorization": f"Bearer {load_api_key(settings).get_secret_value()}"}
    polls = threading.Semaphore(0)
    poll = JobService.poll

    def count_polls(self: JobService, *args: Any, **kwargs: Any) -> Any:
        polls.release()
        return poll(self, *args, **kwargs)

    monkeypatch.setattr(JobService, "poll", count_polls)
    with _serve(app) as (server, url), httpx.Client(headers=headers) as http:
        with http.stream("GET", f"{url}/v1/jobs/{job_id}/events") as answer:
            lines = answer.iter_lines()
            assert next(lines) == "event: event"
            while polls.acquire(blocking=False):
                pass
            assert polls.acquire(timeout=10)  # it goes on asking while somebody listens
        deadline = time.monotonic() + 10
        while polls.acquire(timeout=2):  # and soon stops when nobody does
            assert time.monotonic() < deadline
        with http.stream("GET", f"{url}/v1/jobs/{job_id}/events") as answer:
            lines = answer.iter_lines()
            next(lines)
            server.should_exit = True
            assert list(lines)[-1] == ""
