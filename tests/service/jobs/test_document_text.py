"""The text of a document: YAML 1.2's plain words, JSON, and what is refused with its line."""

from typing import Any

import pytest

from service.errors import ServiceError
from service.jobs.document import parse_value, read_document, set_field


def test_yaml_words_are_those_of_yaml_1_2() -> None:
    data = read_document("[1e-3, 1.0e-3, no, yes, 2024-01-01, 007, 1:30, 0x1f, true, null, ~, -4, .5]")
    assert data == [0.001, 0.001, "no", "yes", "2024-01-01", "007", "1:30", "0x1f", True, None, None, -4, 0.5]


def test_json_and_yaml_read_the_same() -> None:
    assert read_document('{"a": {"b": [1, 2.5, "x", null, true]}}') == read_document("a: {b: [1, 2.5, x, null, true]}")
    assert read_document("{a: 1}") == {"a": 1}
    assert read_document(b"\xef\xbb\xbfa: 1") == {"a": 1}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", "not valid YAML at line 3, column 1: the field 'a' stands twice"),
        ("a: {b: 1, b: 2}", "line 1, column 11: the field 'b' stands twice"),
        ('{"a": 1, "a": 2}', "the field 'a' stands twice"),
        ("a: &x 1\nb: *x\n", "line 2, column 4: aliases (*name) are not allowed"),
        ("a: [1, 2\n", "not valid YAML at line"),
        ("a: !!python/object:os.system x", "could not determine a constructor"),
        ("? [a]\n: 1\n", "a field name must be text"),
        ("[" * 5000, "nested more than 32 levels deep"),
        ("[" * 40 + "]" * 40, "nested more than 32 levels deep"),
        ("a: \x01", "characters that YAML does not allow"),
        (b"a: \xff", "not UTF-8 text: byte 4"),
    ],
)
def test_malformed_text_is_refused(text: str | bytes, message: str) -> None:
    with pytest.raises(ServiceError) as caught:
        read_document(text)
    assert caught.value.code == "invalid_document"
    assert message in caught.value.message


@pytest.mark.parametrize(
    ("text", "value"), [("5", 5), ("1e-3", 0.001), ("adam", "adam"), ("[full, random]", ["full", "random"]), ("", "")]
)
def test_value_of_a_command_line(text: str, value: object) -> None:
    assert parse_value(text) == value


def test_set_field_makes_the_sections() -> None:
    data: dict[str, Any] = {"name": "x", "training": None}
    set_field(data, "training.epochs", 5)
    set_field(data, "dataset.split.value", "train")
    assert data == {"name": "x", "training": {"epochs": 5}, "dataset": {"split": {"value": "train"}}}


@pytest.mark.parametrize(
    ("path", "message"), [("name.first", "name is no section"), ("", "no field path"), ("a..b", "no field")]
)
def test_set_field_refuses_a_wrong_path(path: str, message: str) -> None:
    with pytest.raises(ServiceError, match=message):
        set_field({"name": "x"}, path, 1)
