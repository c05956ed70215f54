"""Templates to pages: one environment, everything escaped, numbers by the shared wording."""

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.responses import HTMLResponse

from service import wording
from service.dashboard.curves import draw_curve
from service.jobs.state import CANCELLABLE_STATES, FINAL_STATES, RESUMABLE_STATES, JobState
from service.results.charts import draw_arms, draw_histogram


def render(template: str, **values: Any) -> HTMLResponse:
    """Return a page or a part of one."""
    return HTMLResponse(_ENVIRONMENT.get_template(template).render(**values))


def _create_environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("service.dashboard", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "count": wording.write_count,
        "share": wording.write_share,
        "points": wording.write_points,
        "number": wording.write_number,
        "decimal": wording.write_decimal,
        "seconds": wording.write_seconds,
        "rate": wording.write_rate,
        "moment": wording.write_moment,
    }
    environment.globals |= {
        "draw_curve": draw_curve,
        "draw_arms": draw_arms,
        "draw_histogram": draw_histogram,
        "states": [str(state) for state in JobState],
        "final_states": FINAL_STATES,
        "cancellable_states": CANCELLABLE_STATES,
        "resumable_states": RESUMABLE_STATES,
    }
    return environment


_ENVIRONMENT = _create_environment()
