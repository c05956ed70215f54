"""From a data set, a network and options to decisions: the notebook's entry point."""

from typing import Any

from sama_core.decisions import Decisions
from sama_core.errors import UnknownMethodError
from sama_core.method import AbstractMethod
from sama_core.options import CurationOptions
from sama_core.reweighting import ReweightingMethod
from sama_core.types import StepReport

__all__ = ["METHOD_NAMES", "CurationOptions", "Decisions", "StepReport", "build_method"]

METHOD_NAMES = ("sama", "sama-na", "random", "loss", "aum")


def build_method(name: str, options: CurationOptions) -> AbstractMethod[Any]:
    """Return the curation method of this name.

    Raises:
        UnknownMethodError: no such method; the message lists those there are.
    """
    if name in ("sama", "sama-na"):
        return ReweightingMethod(name, options)
    raise UnknownMethodError(f"method: {name!r}; wanted one of {', '.join(METHOD_NAMES)}")
