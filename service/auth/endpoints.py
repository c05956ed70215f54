"""Signing in and out: one-time links, the sign-in page, the session cookie."""

from datetime import UTC, datetime, timedelta
from typing import Annotated
from urllib.parse import parse_qs

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel
from starlette.responses import RedirectResponse, Response

from service.auth.guard import SESSION_COOKIE
from service.auth.links import LINK_LIFETIME_SECONDS, SESSION_LIFETIME_SECONDS, AccessService
from service.bodies import read_limited
from service.errors import ServiceError
from service.plain_pages import render_page

router = APIRouter()

_MAX_FORM_BYTES = 4096


class LoginLink(BaseModel):
    """A link that opens the dashboard once."""

    url: str
    expires_at: datetime


def get_access_service(request: Request) -> AccessService:
    """Return the service that lets in."""
    service: AccessService = request.app.state.access
    return service


async def read_form_key(request: Request) -> str:
    """Return the field `api_key` of the sign-in form. Raises ServiceError `payload_too_large`."""
    body = await read_limited(request, _MAX_FORM_BYTES)
    fields = parse_qs(body.decode("utf-8", "replace"))
    return fields.get("api_key", [""])[0].strip()


AccessDep = Annotated[AccessService, Depends(get_access_service)]


@router.post("/v1/login-links", status_code=201, tags=["access"])
def create_login_link(request: Request, access: AccessDep) -> LoginLink:
    """Make a link that opens the dashboard once, within a quarter of an hour."""
    token = access.create_link_token()
    expires_at = datetime.now(UTC) + timedelta(seconds=LINK_LIFETIME_SECONDS)
    return LoginLink(url=f"{str(request.base_url).rstrip('/')}/login?token={token}", expires_at=expires_at)


@router.get("/login", include_in_schema=False)
def show_login(request: Request, access: AccessDep, token: str | None = None) -> Response:
    """Use up a one-time link, or show the form for the API key."""
    if token is None:
        return render_page("login.html", 200, fault=None)
    return _let_in(request, access.redeem_link(token))


@router.post("/login", include_in_schema=False)
def log_in(request: Request, access: AccessDep, key: Annotated[str, Depends(read_form_key)]) -> Response:
    """Open a session with the API key."""
    try:
        return _let_in(request, access.redeem_key(key))
    except ServiceError as exc:
        return render_page("login.html", 401, fault=exc.message)


@router.post("/logout", include_in_schema=False)
def log_out(request: Request, access: AccessDep) -> Response:
    """End the session."""
    access.end_session(request.cookies.get(SESSION_COOKIE, ""))
    response = RedirectResponse("/login", 303)
    response.delete_cookie(SESSION_COOKIE, httponly=True, samesite="strict")
    return response


def _let_in(request: Request, token: str) -> Response:
    # A page, not a redirect: a browser that came from another site would not send a strict cookie along with
    # the redirected request, but does so with what our own page asks for.
    response = render_page("welcome.html", 200)
    response.set_cookie(
        SESSION_COOKIE,
        token,
        max_age=int(SESSION_LIFETIME_SECONDS),
        httponly=True,
        samesite="strict",
        secure=request.url.scheme == "https",
    )
    return response
