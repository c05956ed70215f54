"""What can go wrong between a client and its server."""

from service.errors import Problem, ServiceError


class UnreachableError(ServiceError):
    """No answer from the server: nothing listens there, or the connection broke and did not come back."""

    def __init__(self, address: str, reason: str) -> None:
        super().__init__(
            "unreachable",
            f"The server at {address} cannot be reached: {reason}.",
            hint="Start one with `sama serve`, or set SAMA_URL to a server that runs.",
        )


class AnswerError(ServiceError):
    """The server refused, with problem+json or with something that is no answer of this service."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        param: str | None = None,
        hint: str | None = None,
        problems: tuple[Problem, ...] = (),
        request_id: str | None = None,
    ) -> None:
        super().__init__(code, message, param=param, hint=hint, problems=problems)
        self.status = status
        self.request_id = request_id


class DigestMismatchError(ServiceError):
    """A downloaded file is not what the server said it would be."""

    def __init__(self, file_name: str, seen: str, wanted: str) -> None:
        super().__init__(
            "digest_mismatch",
            f"{file_name} arrived with sha256 {seen[:12]}..., but {wanted[:12]}... was announced; it was removed.",
            hint="Download it again.",
        )
