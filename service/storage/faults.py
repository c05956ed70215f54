"""Faults of the data itself, as opposed to faults of the document that names it."""

from collections.abc import Sequence

from service.errors import Problem, ServiceError


class DataError(ServiceError):
    """Data that cannot be used; `row` or `line` says where, `param` which field of the document led there."""

    def __init__(
        self,
        code: str,
        message: str,
        *,
        param: str | None = None,
        row: int | None = None,
        line: int | None = None,
        hint: str | None = None,
        problems: Sequence[Problem] = (),
    ) -> None:
        super().__init__(code, message, param=param, hint=hint, problems=problems)
        self.row = row
        self.line = line
