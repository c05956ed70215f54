"""The door: hosts and origins, then the key or a session. Whatever is not open by name is shut.

A web page anywhere can make a browser send requests to an address on this machine (DNS rebinding, forms,
fetch). So, on loopback too, the Host must be one of ours, and an Origin, where a browser names one, must be
the very host the request went to.
"""

from collections.abc import Collection
from urllib.parse import urlsplit

from starlette.concurrency import run_in_threadpool
from starlette.requests import HTTPConnection, Request
from starlette.types import ASGIApp, Receive, Scope, Send

from service.auth.links import AccessService
from service.errors import ServiceError
from service.exception_handlers import answer_error

SESSION_COOKIE = "sama_session"
OPEN_PATHS = ("/healthz", "/login")
OPEN_FOLDER = "/static/"
_SAFE_METHODS = ("GET", "HEAD", "OPTIONS")


class AccessGuard:
    """ASGI middleware that lets a request through or answers it with 401, 403 or 421."""

    def __init__(self, app: ASGIApp, *, access: AccessService, allowed_hosts: Collection[str]) -> None:
        self._app = app
        self._access = access
        self._allowed_hosts = {host.lower() for host in allowed_hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: D102 (ASGI's protocol)
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope, receive)
        try:
            _check_text(request)
            self._check_host(request)
            _check_origin(request)
            if not _is_open(request.scope["path"]):
                await self._check_access(request)
        except ServiceError as exc:
            await answer_error(request, exc)(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _check_host(self, request: Request) -> None:
        given = request.headers.getlist("host")
        host = given[0].lower() if len(given) == 1 else ""
        if host in self._allowed_hosts or _strip_port(host) in self._allowed_hosts:
            return
        if _strip_port(host) == "localhost" and _is_unix_socket(request):
            return
        raise ServiceError(
            "host_not_allowed",
            f"This server does not answer for the host {host[:100]!r}.",
            param="Host",
            hint="Set SAMA_ALLOWED_HOSTS to the names under which the server is called.",
        )

    async def _check_access(self, request: Request) -> None:
        key = _read_key(request)
        if key is not None:
            if self._access.has_key(key):
                return
            raise _refuse("The API key is not the one of this server.")
        token = request.cookies.get(SESSION_COOKIE)
        if token is None:
            raise _refuse("This needs the API key or a signed-in browser.")
        _check_same_site(request)
        if not await run_in_threadpool(self._access.has_session, token):
            raise _refuse("The session has ended.")


def _check_text(request: Request) -> None:
    """Refuse NUL, which no name, label or id has and no database stores in text."""
    if "\0" in request.scope["path"]:
        raise ServiceError("not_found", "There is no route with a NUL character in its path.")
    if b"%00" in request.scope["query_string"]:
        raise ServiceError("invalid_query", "The query holds a NUL character; wanted text without.", param="query")


def _is_open(path: str) -> bool:
    return path in OPEN_PATHS or path.startswith(OPEN_FOLDER)


def _read_key(connection: HTTPConnection) -> str | None:
    scheme, _, key = connection.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return key.strip()
    return connection.headers.get("x-api-key")


def _check_origin(request: Request) -> None:
    """Refuse a request that a page of another origin made."""
    origin = request.headers.get("origin")
    if origin is not None and urlsplit(origin).netloc.lower() != request.headers.get("host", "").lower():
        raise _refuse_origin(origin)


def _check_same_site(request: Request) -> None:
    """Refuse what changes something in the name of a session unless the browser says that our own page asked."""
    if request.method in _SAFE_METHODS or request.headers.get("origin") is not None:
        return
    site = request.headers.get("sec-fetch-site")
    if site not in {"same-origin", "none"}:
        raise _refuse_origin(site or "unknown")


def _strip_port(host: str) -> str:
    name, colon, port = host.rpartition(":")
    return name if colon and (port.isdigit() or not port) else host


def _is_unix_socket(request: Request) -> bool:
    server = request.scope.get("server")
    return server is not None and server[1] is None


def _refuse(message: str) -> ServiceError:
    hint = "Send the header 'Authorization: Bearer KEY', or sign in at /login."
    return ServiceError("unauthorized", message, param="Authorization", hint=hint)


def _refuse_origin(origin: str) -> ServiceError:
    return ServiceError(
        "origin_not_allowed",
        f"A page of another origin ({origin[:100]}) may not call this server.",
        param="Origin",
        hint="Open the dashboard under the server's own address.",
    )
