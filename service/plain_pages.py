"""The few pages that need no dashboard: signing in, and errors for people with a browser."""

import base64
import hashlib
import re
from collections.abc import Mapping
from typing import Any

from starlette.responses import HTMLResponse

from service.templating import create_environment

_ENVIRONMENT = create_environment("service")
_STYLE = re.compile(r"<style>(.*?)</style>", re.DOTALL)


def render_page(name: str, status: int, headers: Mapping[str, str] | None = None, **values: Any) -> HTMLResponse:
    """Return a page whose only style is the one it carries, allowed by its digest."""
    page = _ENVIRONMENT.get_template(name).render(**values)
    digests = [base64.b64encode(hashlib.sha256(style.encode()).digest()).decode() for style in _STYLE.findall(page)]
    sources = " ".join(f"'sha256-{digest}'" for digest in digests)
    policy = f"default-src 'none'; style-src {sources}; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    return HTMLResponse(page, status, {"Content-Security-Policy": policy, **(headers or {})})
