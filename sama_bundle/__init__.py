"""A finished bundle beside a training loop: which rows, with which weights and labels, of data that is checked."""

from sama_bundle.bundle import Bundle, open_bundle
from sama_bundle.errors import DifferentSourceError, UnreadableSourceError

__all__ = ["Bundle", "DifferentSourceError", "UnreadableSourceError", "open_bundle"]
