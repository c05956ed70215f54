"""Why a source of data is refused. Both errors carry a stable code and say what was seen and what was wanted."""

from service.errors import ServiceError

READ_ERRORS = (ArithmeticError, AttributeError, LookupError, OSError, TypeError, ValueError)
"""What a `read` raises that does not fit the data; told with the row. Anything else goes through as it is."""


class DifferentSourceError(ServiceError):
    """A source that is not what the bundle was made from.

    `row` is the first curated row that differs (None where an example is no row of the bundle at all), `column` what
    differs in it (`id`, `content_sha256`, `given_label`, or `row` where one is missing or too many), `seen` and
    `wanted` what stands there and what the bundle recorded.
    """

    def __init__(self, message: str, *, row: int | None, column: str, seen: object, wanted: object) -> None:
        super().__init__("source_differs", message, param=column)
        self.row = row
        self.column = column
        self.seen = seen
        self.wanted = wanted


class UnreadableSourceError(ServiceError):
    """A source that cannot be compared with the bundle: of another kind, without the columns, or without a proof."""

    def __init__(self, message: str, *, param: str | None = None, hint: str | None = None) -> None:
        super().__init__("unreadable_source", message if hint is None else f"{message} {hint}", param=param, hint=hint)
