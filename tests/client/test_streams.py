"""Event streams as text."""

from service.client.streams import Message, read_messages


def test_messages_keep_their_kind_data_and_id() -> None:
    lines = ["event: event", "id: 3", "data: {}", "", "event: progress", "data: 1", "data: 2", ""]
    assert list(read_messages(lines)) == [Message("event", "{}", "3"), Message("progress", "1\n2", "3")]


def test_comments_unknown_fields_and_the_unfinished_last_message_are_skipped() -> None:
    lines = [": still here", "", "retry: 100", "data:no space", "", "data: cut of"]
    assert list(read_messages(lines)) == [Message("message", "no space", None)]


def test_an_id_with_a_null_does_not_count() -> None:
    assert [message.last_id for message in read_messages(["id: a\0b", "data: x", ""])] == [None]
