"""Server-Sent Events: the text of a stream to messages."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Message:
    """One message: its kind, its data, and the id to go on from after a break."""

    kind: str
    data: str
    last_id: str | None


def read_messages(lines: Iterable[str]) -> Iterator[Message]:
    """Yield the messages of an event stream; comments and unknown fields are skipped, as the format asks.

    >>> list(read_messages(["id: 7", "event: event", "data: {}", ""]))
    [Message(kind='event', data='{}', last_id='7')]
    """
    kind, last_id = "message", None
    data: list[str] = []
    for line in lines:
        if not line:
            if data:
                yield Message(kind, "\n".join(data), last_id)
            kind, data = "message", []
            continue
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "event":
            kind = value
        elif name == "data":
            data.append(value)
        elif name == "id" and "\0" not in value:
            last_id = value
