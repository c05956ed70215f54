"""Faults in the shape of a document: what pydantic found, in plain words and with the nearest valid field."""

from collections.abc import Mapping, Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from service.errors import Problem
from service.jobs.document_names import CHOICES, find_nearest, list_names, refuse, refuse_name

_WANTED_TYPES = {
    "string_type": "text",
    "string_sub_type": "text",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "int_parsing_size": "a whole number of reasonable size",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "dict_type": "a section of fields",
    "model_type": "a section of fields",
    "model_attributes_type": "a section of fields",
    "tuple_type": "a list",
    "list_type": "a list",
}
_BOUNDS = {
    "greater_than": ("gt", "more than"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "less than"),
    "less_than_equal": ("le", "at most"),
}


def list_shape_problems(error: ValidationError, model: type[BaseModel]) -> list[Problem]:
    """Turn every error of one validation into a problem, one for each field at fault."""
    problems: dict[str, Problem] = {}
    for details in error.errors(include_url=False):
        section, path = _locate(model, details["loc"])
        problem = _explain(details, path, section)
        problems.setdefault(problem.param, problem)
    return list(problems.values())


def list_fields(model: type[BaseModel]) -> list[str]:
    """Return the names of a section's fields as they stand in a document."""
    return [info.alias or name for name, info in model.model_fields.items()]


def _explain(details: ErrorDetails, path: str, section: type[BaseModel]) -> Problem:
    kind, seen, context = details["type"], details["input"], details.get("ctx", {})
    choice = CHOICES.get(path.partition("[")[0])
    if kind == "extra_forbidden":
        return _refuse_unknown_field(path, seen, section)
    if kind == "missing":
        return refuse(path, None, "a value", f"{path} is missing; it must be given.")
    if kind == "literal_error" and choice is not None:
        return refuse_name(path, seen, choice)
    return refuse(path, seen, _describe_wanted(kind, context, path, section))


def _refuse_unknown_field(path: str, seen: object, section: type[BaseModel]) -> Problem:
    parent, _, name = path.rpartition(".")
    fields = list_fields(section)
    nearest = find_nearest(name, fields)
    wanted = f"one of {list_names(fields)}"
    where = f"a field of {parent}" if parent else "a field of the job document"
    return refuse(path, seen, wanted, f"{path} is not {where}; its fields are {list_names(fields)}.", nearest)


def _describe_wanted(kind: str, context: Mapping[str, Any], path: str, section: type[BaseModel]) -> str:
    if path.endswith("split.value"):
        return "text, a whole number, or true or false"
    if kind in _BOUNDS:
        return _describe_range(path, section) or f"{_BOUNDS[kind][1]} {_show_bound(context[_BOUNDS[kind][0]])}"
    if kind == "literal_error":
        return str(context["expected"]).replace("True", "true")
    if kind in {"string_too_short", "too_short"}:
        return f"at least {context['min_length']} {'character' if kind == 'string_too_short' else 'entry'}"
    if kind in {"string_too_long", "too_long"}:
        return f"at most {context['max_length']} {'characters' if kind == 'string_too_long' else 'entries'}"
    return _WANTED_TYPES.get(kind) or "a value of another form"


def _describe_range(path: str, section: type[BaseModel]) -> str | None:
    """Say the whole allowed range of a number, so that a second attempt cannot miss its other end."""
    name = path.rpartition(".")[2]
    field = next((info for key, info in section.model_fields.items() if (info.alias or key) == name), None)
    bounds: dict[str, float] = {}
    pending = [] if field is None else [*field.metadata, field.annotation]
    while pending:
        item = pending.pop()
        bounds.update({bound: getattr(item, bound) for bound in ("gt", "ge", "lt", "le") if hasattr(item, bound)})
        pending.extend(get_args(item))
        pending.extend(getattr(item, "metadata", ()))
    words = [f"{word} {_show_bound(bounds[bound])}" for bound, word in _BOUNDS.values() if bound in bounds]
    return " and ".join(words) or None


def _show_bound(bound: float) -> str:
    return f"{bound:,d}" if isinstance(bound, int) else f"{bound:g}"


def _locate(model: type[BaseModel], location: Sequence[str | int]) -> tuple[type[BaseModel], str]:
    """Walk a location to the section that holds the field; leave out pydantic's own union markers."""
    path, section = "", model
    inner: type[BaseModel] | None = model
    for position, step in enumerate(location):
        if isinstance(step, int):
            path += f"[{step + 1}]"
            continue
        if inner is None and position and step in {"str", "int", "bool"}:
            continue
        path = f"{path}.{step}" if path else step
        if inner is not None:
            section, inner = inner, _find_section(inner, step)
    return section, path


def _find_section(model: type[BaseModel], name: str) -> type[BaseModel] | None:
    field = next((info for key, info in model.model_fields.items() if (info.alias or key) == name), None)
    pending = [] if field is None else [field.annotation]
    while pending:
        item = pending.pop()
        if isinstance(item, type) and issubclass(item, BaseModel):
            return item
        pending.extend(get_args(item))
    return None
