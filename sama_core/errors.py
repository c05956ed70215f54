"""Errors of the library. Each names the argument, what was seen and what was wanted."""


class SamaCoreError(Exception):
    """Base of every error this library raises on purpose."""


class OptionsError(SamaCoreError, ValueError):
    """An option has a value the method cannot use."""


class ExamplesError(SamaCoreError, ValueError):
    """A data set breaks the contract of ``AbstractExamples``."""


class NetworkError(SamaCoreError, ValueError):
    """The network's outputs or parameters do not fit the data set or the method."""


class UnsupportedOptimizerError(SamaCoreError, TypeError):
    """No exact adaptation is known for this optimizer or one of its settings."""


class UnknownMethodError(SamaCoreError, ValueError):
    """No curation method has this name."""


class MissingPackageError(SamaCoreError, ImportError):
    """A method rests on an optional package that is not installed. ``package`` names it, and the extra it comes by."""

    def __init__(self, message: str, package: str) -> None:
        super().__init__(message)
        self.package = package


class CheckpointError(SamaCoreError, ValueError):
    """A checkpoint does not belong to this method, these options, or this data."""


class ExchangeError(SamaCoreError, RuntimeError):
    """Another process of the solve is gone, did not answer in time, or works on something else."""


class UnfinishedError(SamaCoreError, RuntimeError):
    """Decisions were asked for before the last step."""


class NonFiniteError(SamaCoreError, ArithmeticError):
    """Decisions were asked of a solve whose loss stopped being finite. ``step`` is the first such step (1-based)."""

    def __init__(self, message: str, step: int) -> None:
        super().__init__(message)
        self.step = step
