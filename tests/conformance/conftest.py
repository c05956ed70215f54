"""The numerics here run as those of the core's own tests do."""

from tests.sama_core.conftest import one_thread

__all__ = ["one_thread"]
