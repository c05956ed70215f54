"""`/v1/jobs`: submitting, listing and steering jobs, and what every wrong request is told."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml
from starlette.testclient import TestClient

from service.db.engine import Database
from service.jobs.tables import JobTable
from service.results.tables import ChunkTable, ExportTable, PreviewTable, ResultTable
from service.settings import Settings
from tests.service.seeding import add_job, claim_job, finish_job, make_document


def test_a_document_becomes_a_queued_job(client: TestClient, data_path: Path) -> None:
    answer = client.post("/v1/jobs", json=make_document(data_path))
    assert answer.status_code == 202
    job = answer.json()
    assert answer.headers["location"] == f"/v1/jobs/{job['id']}"
    assert (job["state"], job["queue_position"], job["attempt"], job["progress"]) == ("queued", 1, 0, 0.0)
    assert job["labels"] == {"team": "ads"}
    assert job["document"]["training"]["optimizer"] == "adamw"
    assert job["times"]["queued_at"].endswith("Z")
    assert client.get(f"/v1/jobs/{job['id']}").json() == job


@pytest.mark.parametrize("media_type", ["application/yaml", "application/x-yaml", "text/yaml; charset=utf-8"])
def test_yaml_is_taken_like_json(client: TestClient, data_path: Path, media_type: str) -> None:
    text = yaml.safe_dump(make_document(data_path))
    answer = client.post("/v1/jobs", content=text, headers={"Content-Type": media_type})
    assert answer.status_code == 202
    again = client.post("/v1/jobs", json=make_document(data_path))
    assert answer.json()["document_digest"] == again.json()["document_digest"]
    assert again.json()["queue_position"] == 2


def test_validate_only_reports_and_makes_no_job(client: TestClient, data_path: Path) -> None:
    answer = client.post("/v1/jobs?validate_only=true", json=make_document(data_path))
    assert answer.status_code == 200
    report = answer.json()
    assert report["problems"] == []
    assert {row["role"]: row["num_rows"] for row in report["roles"]} == {"train": 20, "meta": 10}
    assert client.get("/v1/jobs").json()["items"] == []


def _problem(answer: Any, status: int, code: str) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = answer.json()
    assert problem["code"] == code
    assert problem["status"] == status
    assert problem["request_id"] == answer.headers["x-request-id"]
    return problem


def test_every_problem_of_a_document_is_listed(client: TestClient, data_path: Path) -> None:
    document = make_document(data_path, task="prun", colour="red", selection={"keep_fraction": 1.5})
    problem = _problem(client.post("/v1/jobs", json=document), 422, "invalid_document")
    found = {item["param"]: item for item in problem["problems"]}
    assert set(found) == {"task", "colour", "selection.keep_fraction"}
    assert found["task"]["nearest"] == "prune"
    assert found["selection.keep_fraction"]["seen"] == "1.5"
    assert found["selection.keep_fraction"]["wanted"] == "more than 0 and at most 1"
    assert problem["param"] in found
    assert problem["hint"]


def test_validate_only_lists_the_problems_of_the_data(client: TestClient, data_path: Path) -> None:
    document = make_document(data_path)
    document["dataset"]["label"] = "lable"
    document["dataset"]["text"] = "txt"
    problem = _problem(client.post("/v1/jobs?validate_only=true", json=document), 422, "invalid_document")
    found = {item["param"]: item for item in problem["problems"]}
    assert found["dataset.label"]["nearest"] == "label"
    assert found["dataset.text"]["nearest"] == "text"


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("missing.csv", "there is no such file"),
        ("/etc/passwd", "outside of the allowed folders"),
        (".", "wanted a file"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused_at_once(client: TestClient, uri: str, words: str) -> None:
    problem = _problem(client.post("/v1/jobs", json=make_document(uri)), 422, "invalid_document")
    assert problem["param"] == "dataset.uri"
    assert words in problem["detail"]
    assert client.get("/v1/jobs").json()["items"] == []


def test_no_server_path_stands_in_an_answer(client: TestClient, tmp_path: Path) -> None:
    answer = client.post("/v1/jobs", json=make_document("missing.csv"))
    assert str(tmp_path) not in answer.text


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"{", "not valid JSON"),
        (b"[1, 2]", "a mapping of fields"),
        (b"", "a mapping of fields"),
        (b"\xff\xfe", "not UTF-8"),
        (b'{"name": "a", "name": "b"}', "stands twice"),
        (b'{"name": ' + b"[" * 50 + b"]" * 50 + b"}", "nested more than"),
        (b'{"name": "\\ud800"}', "name is"),
        (b'{"labels": {"a": "\\u0000"}}', "wanted printable text on one line."),
    ],
)
def test_a_malformed_body_is_refused(client: TestClient, body: bytes, words: str) -> None:
    answer = client.post("/v1/jobs", content=body, headers={"Content-Type": "application/json"})
    problem = _problem(answer, 422, "invalid_document")
    assert any(words in message for message in [problem["detail"], *(item["message"] for item in problem["problems"])])


def test_other_content_types_are_refused(client: TestClient) -> None:
    answer = client.post("/v1/jobs", content=b"{}", headers={"Content-Type": "text/plain"})
    problem = _problem(answer, 415, "unsupported_media_type")
    assert problem["detail"] == "Content-Type is 'text/plain'; wanted application/json or application/yaml."


def test_a_large_body_is_refused(client: TestClient, settings: Settings) -> None:
    body = b" " * (settings.max_document_bytes + 1)
    problem = _problem(
        client.post("/v1/jobs", content=body, headers={"Content-Type": "application/json"}), 413, "payload_too_large"
    )
    assert "1,048,576 bytes" in problem["detail"]
    pieces = (b" " * (1 << 16) for _ in range(20))  # no Content-Length: counted as it arrives
    answer = client.post("/v1/jobs", content=pieces, headers={"Content-Type": "application/json"})
    _problem(answer, 413, "payload_too_large")


def test_the_same_key_gives_the_same_job(client: TestClient, data_path: Path) -> None:
    headers = {"Idempotency-Key": "abc"}
    first = client.post("/v1/jobs", json=make_document(data_path), headers=headers)
    text = yaml.safe_dump(make_document(data_path))
    second = client.post("/v1/jobs", content=text, headers=headers | {"Content-Type": "application/yaml"})
    assert (first.status_code, second.status_code) == (202, 202)
    assert first.json()["id"] == second.json()["id"]
    assert "idempotent-replay" not in first.headers
    assert second.headers["idempotent-replay"] == "true"
    data_path.unlink()
    assert client.post("/v1/jobs", json=make_document(data_path), headers=headers).status_code == 202


def test_the_same_key_with_another_document_is_refused(client: TestClient, data_path: Path) -> None:
    headers = {"Idempotency-Key": "abc"}
    client.post("/v1/jobs", json=make_document(data_path), headers=headers)
    answer = client.post("/v1/jobs", json=make_document(data_path, name="other"), headers=headers)
    problem = _problem(answer, 422, "idempotency_key_reused")
    assert problem["detail"] == "Idempotency-Key 'abc' was used before, with another document."
    assert len(client.get("/v1/jobs").json()["items"]) == 1


@pytest.mark.parametrize("key", ["", "x" * 201, "a\tb"])
def test_a_malformed_key_is_refused(client: TestClient, data_path: Path, key: str) -> None:
    answer = client.post("/v1/jobs", json=make_document(data_path), headers={"Idempotency-Key": key})
    problem = _problem(answer, 422, "invalid_idempotency_key")
    assert "1 to 200 printable ASCII characters" in problem["detail"]


def test_a_race_for_one_key_makes_one_job(client: TestClient, data_path: Path) -> None:
    barrier = threading.Barrier(8)

    def submit(_number: int) -> Any:
        barrier.wait()
        return client.post("/v1/jobs", json=make_document(data_path), headers={"Idempotency-Key": "race"})

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(submit, range(8)))
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert sum("idempotent-replay" not in answer.headers for answer in answers) == 1
    assert len(client.get("/v1/jobs").json()["items"]) == 1


def test_pages_hold_every_job_once(client: TestClient, database: Database) -> None:
    ids = [add_job(database) for _ in range(7)]
    seen: list[str] = []
    cursor = None
    while True:
        params = {"limit": 3} | ({"cursor": cursor} if cursor else {})
        page = client.get("/v1/jobs", params=params).json()
        seen += [job["id"] for job in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert seen == sorted(ids, reverse=True)


def test_filters(client: TestClient, database: Database) -> None:
    plain = add_job(database)
    named = add_job(database, name="special", labels={"team": "ads", "url": "http://a=b"})
    claim_job(database)

    def ids(query: str) -> list[str]:
        return [job["id"] for job in client.get(f"/v1/jobs?{query}").json()["items"]]

    assert ids("state=validating") == [plain]
    assert ids("state=queued") == [named]
    assert ids("state=queued&state=validating") == [named, plain]
    assert ids("name=special") == [named]
    assert ids("label=team:ads") == [named, plain]
    assert ids("label=team%3Dads&label=url:http://a%3Db") == [named]
    assert ids("label=team:other") == []


@pytest.mark.parametrize(
    ("query", "param", "words"),
    [
        ("state=done", "state.0", "state.0 is 'done'; wanted 'queued', 'validating'"),
        ("limit=0", "limit", "limit is '0'; wanted greater than or equal to 1."),
        ("limit=many", "limit", "limit is 'many'; wanted a valid integer."),
        ("label=team", "label", "label is 'team'; wanted KEY:VALUE, such as team:ads."),
        ("cursor=abc", "cursor", "cursor is not one that this list gave"),
        ("cursor=eyJiZWZvcmUiOiAiXHUwMDAwIn0", "cursor", "cursor is not one that this list gave"),
        ("colour=red", "colour", "colour is not a parameter of this route."),
        ("name=%00", "query", "NUL"),
    ],
)
def test_a_wrong_query_is_refused(client: TestClient, query: str, param: str, words: str) -> None:
    answer = client.get(f"/v1/jobs?{query}")
    assert answer.status_code == 422
    assert answer.json()["param"] == param
    assert words in answer.json()["detail"]


def test_an_unknown_option_of_submit_is_refused(client: TestClient, data_path: Path) -> None:
    answer = client.post("/v1/jobs?validate_olny=true", json=make_document(data_path))
    assert _problem(answer, 422, "invalid_query")["detail"] == "validate_olny is not a parameter of this route."
    assert client.get("/v1/jobs").json()["items"] == []


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", ""), ("POST", "/cancel"), ("POST", "/resume"), ("DELETE", ""), ("GET", "/events"), ("GET", "/metrics"),
        ("GET", "/examples"), ("GET", "/examples/1/image"), ("GET", "/summary"), ("GET", "/manifest"),
        ("GET", "/bundle"), ("GET", "/bundle/keep.npy"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("job_id", ["job_0123", "..%5c", "x" * 300, "%00"])
def test_a_job_that_does_not_exist(client: TestClient, method: str, path: str, job_id: str) -> None:
    problem = _problem(client.request(method, f"/v1/jobs/{job_id}{path}"), 404, "not_found")
    assert problem["detail"].startswith(("There is no job ", "There is no route "))


def test_unknown_routes_and_methods(client: TestClient) -> None:
    problem = _problem(client.get("/v1/nothing"), 404, "not_found")
    assert problem["detail"] == "There is no route GET /v1/nothing."
    answer = client.put("/v1/jobs")
    problem = _problem(answer, 405, "method_not_allowed")
    assert problem["detail"].startswith("There is no route PUT /v1/jobs; wanted ")
    assert "POST" in answer.headers["allow"] or "GET" in answer.headers["allow"]


def test_cancel_queued_and_running(client: TestClient, database: Database) -> None:
    running, queued = add_job(database), add_job(database)
    claim_job(database)
    assert client.post(f"/v1/jobs/{queued}/cancel").json()["state"] == "cancelled"
    assert client.post(f"/v1/jobs/{queued}/cancel").json()["state"] == "cancelled"
    job = client.post(f"/v1/jobs/{running}/cancel").json()
    assert job["state"] == "cancelling"
    assert job["times"]["cancelling_at"]


def test_resume_and_delete_heed_the_state(client: TestClient, database: Database, settings: Settings) -> None:
    job_id = add_job(database)
    problem = _problem(client.post(f"/v1/jobs/{job_id}/resume"), 409, "forbidden_transition")
    assert problem["detail"] == f"Job {job_id} is queued; resume needs a job that is failed or cancelled."
    _problem(client.delete(f"/v1/jobs/{job_id}"), 409, "forbidden_transition")
    client.post(f"/v1/jobs/{job_id}/cancel")
    assert client.post(f"/v1/jobs/{job_id}/resume").json()["state"] == "queued"
    client.post(f"/v1/jobs/{job_id}/cancel")
    checkpoint = settings.data_dir / "checkpoints" / job_id / "1" / "5"
    checkpoint.mkdir(parents=True)
    assert client.delete(f"/v1/jobs/{job_id}").status_code == 204
    assert not (settings.data_dir / "checkpoints" / job_id).exists()
    _problem(client.get(f"/v1/jobs/{job_id}"), 404, "not_found")


def test_a_finished_job_cannot_be_cancelled(client: TestClient, database: Database) -> None:
    job_id = finish_job(database)
    problem = _problem(client.post(f"/v1/jobs/{job_id}/cancel"), 409, "forbidden_transition")
    assert "is succeeded; cancel needs a job that is queued or" in problem["detail"]


def test_delete_leaves_nothing_of_a_job(client: TestClient, database: Database, settings: Settings) -> None:
    removed, kept = finish_job(database), finish_job(database)
    for job_id in (removed, kept):
        assert client.get(f"/v1/jobs/{job_id}/bundle").status_code == 200
    shared = client.get(f"/v1/jobs/{kept}/manifest").headers["etag"].strip('"')
    exports = settings.data_dir / "exports"
    before = {path.name for path in exports.iterdir()}
    assert client.delete(f"/v1/jobs/{removed}").status_code == 204
    after = {path.name for path in exports.iterdir()}
    assert after < before
    assert shared in after  # both jobs had the same rows, hence the same file
    with database.read() as session:
        for table in (ChunkTable, ResultTable, PreviewTable, ExportTable):
            assert session.query(table).filter_by(job_id=removed).count() == 0
        assert session.get(JobTable, kept) is not None


def test_a_failed_job_says_why(client: TestClient, database: Database) -> None:
    from service.attempts.repository import AttemptRepository
    from service.attempts.state import Failure

    job_id = add_job(database)
    claim = claim_job(database)
    with database.write() as session:
        failure = Failure("bad_data", "The image of row 17 cannot be read.", "Mend row 17.")
        AttemptRepository(session).fail(job_id, claim.attempt, failure)
    job = client.get(f"/v1/jobs/{job_id}").json()
    assert job["state"] == "failed"
    assert job["error"] == {
        "code": "bad_data",
        "message": "The image of row 17 cannot be read.",
        "hint": "Mend row 17.",
    }
    assert job["times"]["finished_at"]


def test_the_training_curves(client: TestClient, database: Database) -> None:
    job_id = finish_job(database)
    points = client.get(f"/v1/jobs/{job_id}/metrics").json()["items"]
    assert [point["step"] for point in points] == [1, 2, 3]
    assert points[1]["base_loss"] == 0.5
    assert points[1]["meta_loss"] is None
