"""Requests to the server: one connection pool, and every failure as an error with a code."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import httpx

from service.client.address import Address
from service.client.errors import AnswerError, UnreachableError
from service.errors import Problem

USER_AGENT = "sama-client/1"
CONNECT_SECONDS = 10.0
_RETRIES_AFTER_A_BROKEN_CONNECTION = 2
_GATEWAY_STATUSES = {502, 503, 504}


class Transport:
    """Sends requests to one server. Use as a context manager, or call `close`."""

    def __init__(self, address: Address, timeout_seconds: float) -> None:
        self.address = address
        headers = {"User-Agent": USER_AGENT}
        if address.api_key is not None:
            headers["Authorization"] = f"Bearer {address.api_key}"
        socket = None if address.socket is None else str(address.socket)
        self._http = httpx.Client(
            base_url=address.base_url,
            headers=headers,
            timeout=httpx.Timeout(timeout_seconds, connect=CONNECT_SECONDS),
            # A proxy from the environment could neither reach a unix socket nor this machine's loopback.
            transport=httpx.HTTPTransport(uds=socket) if address.is_local else None,
        )

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        json: object = None,
        headers: Mapping[str, str] | None = None,
        timeout: httpx.Timeout | None = None,
    ) -> httpx.Response:
        """Send one request that may safely be sent twice, and return its successful answer.

        Raises:
            UnreachableError: no answer.
            AnswerError: an answer that says no.
        """
        request = self._http.build_request(
            method, path, params=_drop_empty(params), json=json, headers=dict(headers or {})
        )
        if timeout is not None:
            request.extensions["timeout"] = timeout.as_dict()
        for retries_left in reversed(range(_RETRIES_AFTER_A_BROKEN_CONNECTION + 1)):
            try:
                response = self._http.send(request)
                break
            except (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError) as exc:
                # The server went away in the middle, as in a restart; a new connection may find it back.
                if not retries_left:
                    raise self.unreachable(exc) from exc
            except httpx.TransportError as exc:
                raise self.unreachable(exc) from exc
        self._raise_for_problem(response)
        return response

    @contextmanager
    def stream(
        self,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: httpx.Timeout | None = None,
        accepted_errors: tuple[int, ...] = (),
    ) -> Iterator[httpx.Response]:
        """Open a GET whose body is read piece by piece; what breaks while reading is `httpx.TransportError`.

        Raises:
            UnreachableError: no answer.
            AnswerError: an answer that says no, unless its status is among `accepted_errors`.
        """
        request = self._http.build_request("GET", path, params=_drop_empty(params), headers=dict(headers or {}))
        if timeout is not None:
            request.extensions["timeout"] = timeout.as_dict()
        try:
            response = self._http.send(request, stream=True)
        except httpx.TransportError as exc:
            raise self.unreachable(exc) from exc
        try:
            if response.is_error and response.status_code not in accepted_errors:
                response.read()
                self._raise_for_problem(response)
            yield response
        finally:
            response.close()

    def _raise_for_problem(self, response: httpx.Response) -> None:
        if not response.is_error:
            return
        body = _read_problem(response)
        status = response.status_code
        if body is not None:
            raise _build_answer_error(status, body)
        if status in _GATEWAY_STATUSES:
            raise UnreachableError(self.address.url, f"a gateway answers {status} in its place")
        raise AnswerError(
            status,
            "unexpected_answer",
            f"The server answered {status} {response.reason_phrase} in a form that is not known.",
            hint="Check that SAMA_URL names a Sama server.",
        )

    def unreachable(self, error: httpx.TransportError) -> UnreachableError:
        """Build the error of a connection that failed."""
        return UnreachableError(self.address.url, _describe(error))


def _describe(error: httpx.TransportError) -> str:
    if isinstance(error, httpx.ConnectTimeout):
        return f"no connection within {CONNECT_SECONDS:g} seconds"
    if isinstance(error, httpx.TimeoutException):
        return "no answer in time"
    text = str(error).strip().rstrip(".")
    return text.removeprefix("[Errno 111] ").removeprefix("[Errno 2] ") or type(error).__name__


def _drop_empty(params: Mapping[str, Any] | None) -> dict[str, Any]:
    return {name: value for name, value in (params or {}).items() if value is not None}


def _build_answer_error(status: int, body: dict[str, Any]) -> AnswerError:
    return AnswerError(
        status,
        str(body.get("code") or "error"),
        str(body.get("detail") or body.get("title") or status),
        param=body.get("param"),
        hint=body.get("hint"),
        problems=tuple(_read_fault(fault) for fault in body.get("problems") or () if isinstance(fault, dict)),
        request_id=body.get("request_id"),
    )


def _read_problem(response: httpx.Response) -> dict[str, Any] | None:
    if response.headers.get("content-type", "").partition(";")[0].strip() != "application/problem+json":
        return None
    try:
        body = response.json()
    except ValueError:
        return None
    return body if isinstance(body, dict) else None


def _read_fault(fault: dict[str, Any]) -> Problem:
    return Problem(
        param=str(fault.get("param") or ""),
        seen=str(fault.get("seen") or ""),
        wanted=str(fault.get("wanted") or ""),
        message=str(fault.get("message") or ""),
        nearest=fault.get("nearest"),
    )
