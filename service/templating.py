"""Templates to text: everything escaped, nothing undefined, numbers by the shared wording."""

from jinja2 import Environment, PackageLoader, StrictUndefined

from service import wording
from service.results.charts import draw_arms, draw_histogram


def create_environment(package: str) -> Environment:
    """Return the environment of the templates that lie in `templates` beside the modules of `package`."""
    environment = Environment(
        loader=PackageLoader(package, "templates"),
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
    environment.globals |= {"draw_arms": draw_arms, "draw_histogram": draw_histogram}
    return environment
