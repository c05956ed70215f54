"""Templates to pages: one environment, everything escaped, numbers by the shared wording."""

from typing import Any

from jinja2 import Environment
from starlette.responses import HTMLResponse

from service.dashboard.curves import draw_curve
from service.jobs.state import CANCELLABLE_STATES, FINAL_STATES, RESUMABLE_STATES, JobState
from service.templating import create_environment


def render(template: str, **values: Any) -> HTMLResponse:
    """Return a page or a part of one."""
    return HTMLResponse(_ENVIRONMENT.get_template(template).render(**values))


def _create_environment() -> Environment:
    environment = create_environment("service.dashboard")
    environment.globals |= {
        "draw_curve": draw_curve,
        "states": [str(state) for state in JobState],
        "final_states": FINAL_STATES,
        "cancellable_states": CANCELLABLE_STATES,
        "resumable_states": RESUMABLE_STATES,
    }
    return environment


_ENVIRONMENT = _create_environment()
