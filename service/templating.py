"""Templates to text: everything escaped, nothing undefined, numbers by the shared wording."""

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

from service import wording
from service.results.charts import draw_histogram
from service.results.evaluation_charts import draw_arms, draw_prune_curve, draw_reliability


def create_environment(package: str) -> Environment:
    """Return the environment of the templates beside the modules of `package`, and of those that pages share."""
    environment = Environment(
        loader=ChoiceLoader([PackageLoader(package, "templates"), PackageLoader("service.results", "templates")]),
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
        "draw_arms": draw_arms,
        "draw_histogram": draw_histogram,
        "draw_prune_curve": draw_prune_curve,
        "draw_reliability": draw_reliability,
    }
    return environment
