"""Who is let in: the key, hosts, origins, one-time links and sessions."""

import stat
from pathlib import Path

import pytest
from fastapi import FastAPI
from pydantic import SecretStr
from sqlalchemy import update
from starlette.testclient import TestClient

from service.auth.guard import OPEN_PATHS, SESSION_COOKIE
from service.auth.keys import load_api_key, make_api_key
from service.auth.tables import DashboardSessionTable, LoginLinkTable
from service.db.engine import Database
from service.errors import ServiceError
from service.main import create_app
from service.settings import Settings

HOST = "127.0.0.1:8000"
SAME_ORIGIN = {"Origin": f"http://{HOST}"}


def test_a_key_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path / "new")
    key = load_api_key(settings).get_secret_value()
    path = tmp_path / "new" / "api-key"
    assert key.startswith("sama_")
    assert len(key.partition(".")[2]) == 43
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert load_api_key(settings).get_secret_value() == key
    assert key not in repr(load_api_key(settings))
    assert make_api_key() != make_api_key()


def test_a_weak_key_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ServiceError, match="SAMA_API_KEY has 5 characters; wanted 24 to 256"):
        load_api_key(Settings(data_dir=tmp_path, api_key=SecretStr("admin")))


def test_a_damaged_key_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "api-key").write_text("\n")
    with pytest.raises(ServiceError, match="holds no key"):
        load_api_key(Settings(data_dir=tmp_path))


def test_everything_but_the_named_doors_is_shut(stranger: TestClient, app: FastAPI) -> None:
    paths = [*app.openapi()["paths"], "/", "/jobs/job_1", "/openapi.json", "/v1/nothing", "/static", "/docs"]
    for path in paths:
        for method in ("GET", "POST", "DELETE"):
            answer = stranger.request(method, path.replace("{", "").replace("}", ""))
            if path in OPEN_PATHS:
                assert answer.status_code in {200, 405}, path
            else:
                assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized"), path
                assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("header", ["Authorization", "X-API-Key"])
def test_both_key_headers_are_taken(stranger: TestClient, settings: Settings, header: str) -> None:
    key = load_api_key(settings).get_secret_value()
    value = f"Bearer {key}" if header == "Authorization" else key
    assert stranger.get("/v1/jobs", headers={header: value}).status_code == 200
    answer = stranger.get("/v1/jobs", headers={header: value[:-1] + "x"})
    assert answer.status_code == 401
    assert answer.json()["detail"] == "The API key is not the one of this server."
    assert key[:-1] not in answer.text


def test_a_key_that_is_no_text_is_refused(stranger: TestClient) -> None:
    assert stranger.get("/v1/jobs", headers={"X-API-Key": b"\xff\xfe"}).status_code == 401


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "", "169.254.169.254"])
def test_other_hosts_are_not_answered(client: TestClient, host: str) -> None:
    for path in ("/healthz", "/v1/jobs", "/login"):
        answer = client.get(path, headers={"Host": host})
        assert answer.status_code == 421
        assert answer.json()["detail"] == f"This server does not answer for the host {host!r}."
        assert "SAMA_ALLOWED_HOSTS" in answer.json()["hint"]


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8000", "127.0.0.1:1", "[::1]", "[::1]:8000"])
def test_our_own_hosts_are_answered(client: TestClient, host: str) -> None:
    assert client.get("/healthz", headers={"Host": host}).status_code == 200


def test_an_allowed_host_with_a_port_allows_that_port(settings: Settings) -> None:
    app = create_app(settings.model_copy(update={"allowed_hosts": ("curate.example:8443",)}))
    with_port = TestClient(app, base_url="http://curate.example:8443")
    assert with_port.get("/healthz").status_code == 200
    assert with_port.get("/healthz", headers={"Host": "curate.example"}).status_code == 421
    with_port.close()
    app.state.database.dispose()


@pytest.mark.parametrize("origin", ["http://evil.example", "http://127.0.0.1:9000", "null", "http://localhost:8000"])
def test_pages_of_other_origins_are_refused(client: TestClient, origin: str) -> None:
    for method, path in (("GET", "/v1/jobs"), ("POST", "/v1/jobs"), ("POST", "/login"), ("GET", "/healthz")):
        answer = client.request(method, path, headers={"Origin": origin})
        assert (answer.status_code, answer.json()["code"]) == (403, "origin_not_allowed")
        assert origin in answer.json()["detail"]
    assert "access-control-allow-origin" not in answer.headers


def _make_link(client: TestClient) -> str:
    answer = client.post("/v1/login-links")
    assert answer.status_code == 201
    url: str = answer.json()["url"]
    assert url.startswith(f"http://{HOST}/login?token=")
    return url


def test_a_link_opens_the_dashboard_once(client: TestClient, stranger: TestClient) -> None:
    url = _make_link(client)
    answer = stranger.get(url)
    assert answer.status_code == 200
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith(f"{SESSION_COOKIE}=")
    assert "HttpOnly" in cookie
    assert "samesite=strict" in cookie.lower()
    assert answer.headers["referrer-policy"] == "same-origin"
    assert stranger.get("/v1/jobs").status_code == 200
    stranger.cookies.clear()
    again = stranger.get(url)
    assert again.status_code == 401
    assert again.json()["detail"] == "This link was used before or has run out."
    assert "set-cookie" not in again.headers


def test_links_and_sessions_run_out(client: TestClient, stranger: TestClient, database: Database) -> None:
    stranger.get(_make_link(client))
    late = _make_link(client)
    with database.write() as session:
        session.execute(update(LoginLinkTable).values(expires_at=1.0))
        session.execute(update(DashboardSessionTable).values(expires_at=1.0))
    answer = stranger.get("/v1/jobs")
    assert (answer.status_code, answer.json()["detail"]) == (401, "The session has ended.")
    assert stranger.get(late).status_code == 401


def test_the_database_holds_no_token(client: TestClient, stranger: TestClient, database: Database) -> None:
    token = _make_link(client).partition("token=")[2]
    stranger.get(_make_link(client))
    with database.read() as session:
        stored = [row.digest for row in session.query(LoginLinkTable)]
        stored += [row.digest for row in session.query(DashboardSessionTable)]
    assert len(stored) == 2
    assert token not in stored
    assert stranger.cookies[SESSION_COOKIE] not in stored


def test_the_form_takes_the_key(stranger: TestClient, settings: Settings) -> None:
    page = stranger.get("/login")
    assert page.status_code == 200
    assert "script" not in page.headers["content-security-policy"].replace("default-src 'none'", "")
    wrong = stranger.post("/login", data={"api_key": "wrong"}, headers=SAME_ORIGIN)
    assert wrong.status_code == 401
    assert "This is not the API key of this server." in wrong.text
    key = load_api_key(settings).get_secret_value()
    assert stranger.post("/login", data={"api_key": f" {key} "}, headers=SAME_ORIGIN).status_code == 200
    assert stranger.get("/v1/jobs").status_code == 200
    assert stranger.post("/logout", headers=SAME_ORIGIN, follow_redirects=False).status_code == 303
    assert stranger.get("/v1/jobs").status_code == 401


def test_a_long_form_is_refused(stranger: TestClient) -> None:
    answer = stranger.post("/login", data={"api_key": "x" * 5000}, headers=SAME_ORIGIN)
    assert answer.status_code == 413


def test_a_session_needs_to_know_who_asks(client: TestClient, stranger: TestClient) -> None:
    stranger.get(_make_link(client))
    for headers in ({}, {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}):
        answer = stranger.post("/v1/login-links", headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (403, "origin_not_allowed")
    for headers in (SAME_ORIGIN, {"Sec-Fetch-Site": "same-origin"}):
        assert stranger.post("/v1/login-links", headers=headers).status_code == 201


def test_a_new_key_ends_every_session(client: TestClient, stranger: TestClient, settings: Settings) -> None:
    stranger.get(_make_link(client))
    app = create_app(settings.model_copy(update={"api_key": SecretStr(make_api_key())}))
    other = TestClient(app, base_url=f"http://{HOST}", cookies=dict(stranger.cookies))
    assert other.get("/v1/jobs").status_code == 401
    other.close()
    app.state.database.dispose()


def test_a_browser_gets_a_page(stranger: TestClient) -> None:
    answer = stranger.get("/", headers={"Accept": "text/html,*/*"})
    assert answer.status_code == 401
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert "This needs the API key or a signed-in browser." in answer.text
    answer = stranger.get("/v1/jobs", headers={"Accept": "text/html,*/*"})
    assert answer.headers["content-type"] == "application/problem+json"
