"""A raw document as the rules read it, before it is known to be well formed."""

from collections.abc import Mapping
from typing import Any


class Draft:
    """A raw document, read by dotted path; a section that is no mapping counts as empty."""

    def __init__(self, data: Mapping[str, Any]) -> None:
        self._data = data

    def find(self, path: str) -> Any:
        """Return the value at `path`, or None where there is none."""
        here: Any = self._data
        for step in path.split("."):
            here = here.get(step) if isinstance(here, Mapping) else None
        return here

    def find_text(self, path: str) -> str | None:
        """Return the text at `path`, or None where there is no text."""
        value = self.find(path)
        return value if isinstance(value, str) else None

    def has(self, path: str) -> bool:
        """Tell whether a value is given at `path`."""
        return self.find(path) is not None
