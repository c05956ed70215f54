"""The text of a job document, YAML or JSON, to plain values; and single fields set from the outside."""

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

import yaml

from service.errors import ServiceError

MAX_DEPTH = 32


class _DocumentLoader(yaml.SafeLoader):
    """Safe YAML with the plain scalars of YAML 1.2: `no` and `2024-01-01` stay text, `1e-3` is a number."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 - set by PyYAML's own class method

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Compose one node; refuses aliases, which could make a small text expand without end."""
        if self.check_event(yaml.events.AliasEvent):
            event = self.peek_event()  # type: ignore[no-untyped-call]
            raise yaml.constructor.ConstructorError(None, None, "aliases (*name) are not allowed", event.start_mark)
        return super().compose_node(parent, index)

    def construct_fields(self, node: Any) -> dict[str, Any]:
        """Build a mapping; refuses a key that stands twice."""
        seen: set[str] = set()
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "a field name must be text", key_node.start_mark)
            if key_node.value in seen:
                problem = f"the field {key_node.value!r} stands twice"
                raise yaml.constructor.ConstructorError(None, None, problem, key_node.start_mark)
            seen.add(key_node.value)
        return {key.value: self.construct_object(value, deep=True) for key, value in node.value}


_NUMBER_STARTS = list("-+0123456789.")
for _tag, _pattern, _starts in (
    ("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", list("tTfF")),
    ("null", r"^(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    ("int", r"^[-+]?(?:0|[1-9][0-9]*)$", _NUMBER_STARTS),
    (
        "float",
        r"^(?:[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$",
        _NUMBER_STARTS,
    ),
):
    _DocumentLoader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(_pattern), _starts)


def _construct_float(_loader: _DocumentLoader, node: Any) -> float | str:
    text = str(node.value).lower()
    # An identifier such as 007 must not lose its zeros: it stays text.
    if re.fullmatch(r"[-+]?0[0-9]+", text):
        return str(node.value)
    return float(text.replace(".inf", "inf").replace(".nan", "nan"))


_DocumentLoader.add_constructor("tag:yaml.org,2002:float", _construct_float)
_DocumentLoader.add_constructor("tag:yaml.org,2002:map", _DocumentLoader.construct_fields)


def read_document(text: str | bytes) -> object:
    """Read a job document written in YAML or JSON to plain values.

    Raises:
        ServiceError: `invalid_document`; the text is not UTF-8, not YAML or JSON, names a field twice, uses
            aliases or tags, or is nested too deeply. The message names the line.
    """
    try:
        source = text.decode("utf-8-sig") if isinstance(text, bytes) else text
    except UnicodeDecodeError as exc:
        raise _malformed(f"The document is not UTF-8 text: byte {exc.start + 1} cannot be read.") from exc
    data = _guard(_read_json_or_yaml, source) if source.lstrip().startswith(("{", "[")) else _guard(_read_yaml, source)
    _check_depth(data, 0)
    return data


def parse_value(text: str) -> object:
    """Read the text after the equals sign of `--set field=value`: a YAML scalar, list or mapping."""
    return read_document(text) if text.strip() else ""


def set_field(data: dict[str, Any], path: str, value: object) -> None:
    """Set one field of a raw document by its dotted path, making the sections on the way.

    `value` is taken as it is; use `parse_value` on text from a command line.

    Raises:
        ServiceError: `invalid_document`; the path is empty or leads through a field that is no section.
    """
    *sections, last = path.split(".")
    if not all((*sections, last)):
        raise ServiceError(
            "invalid_document", f"{path!r} is no field path; wanted one such as training.epochs.", param=path
        )
    here = data
    for depth, section in enumerate(sections):
        if here.get(section) is None:
            here[section] = {}
        inner = here[section]
        if not isinstance(inner, dict):
            parent = ".".join(sections[: depth + 1])
            raise ServiceError(
                "invalid_document", f"{path}: {parent} is no section with fields of its own.", param=path
            )
        here = inner
    here[last] = value


def _read_yaml(source: str) -> object:
    return yaml.load(source, Loader=_DocumentLoader)  # noqa: S506 - a subclass of SafeLoader


def _read_json_or_yaml(source: str) -> object:
    # YAML's flow style also begins with a brace; what is not JSON is tried as that.
    try:
        return json.loads(source, object_pairs_hook=_unique_pairs)
    except json.JSONDecodeError as exc:
        try:
            return _read_yaml(source)
        except yaml.YAMLError:
            raise exc from None


def _guard(read: Callable[[str], object], source: str) -> object:
    try:
        return read(source)
    except json.JSONDecodeError as exc:
        raise _malformed(
            f"The document is not valid JSON at line {exc.lineno}, column {exc.colno}: {exc.msg}."
        ) from exc
    except yaml.MarkedYAMLError as exc:
        mark = exc.problem_mark or exc.context_mark
        where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark is not None else ""
        raise _malformed(f"The document is not valid YAML{where}: {exc.problem or exc.context}.") from exc
    except yaml.YAMLError as exc:
        raise _malformed("The document holds characters that YAML does not allow.") from exc
    except RecursionError as exc:
        raise _malformed(f"The document is nested more than {MAX_DEPTH} levels deep.") from exc
    except ValueError as exc:
        raise _malformed(f"The document cannot be read: {exc}.") from exc


def _unique_pairs(pairs: list[tuple[str, object]]) -> dict[str, object]:
    fields: dict[str, object] = {}
    for key, value in pairs:
        if key in fields:
            raise ValueError(f"the field {key!r} stands twice")
        fields[key] = value
    return fields


def _check_depth(data: object, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise _malformed(f"The document is nested more than {MAX_DEPTH} levels deep.")
    inner = data.values() if isinstance(data, Mapping) else data if isinstance(data, list) else ()
    for value in inner:
        _check_depth(value, depth + 1)


def _malformed(message: str) -> ServiceError:
    return ServiceError(
        "invalid_document",
        message,
        hint="Write the document in YAML or JSON; see the job document reference.",
    )
