"""Checks of the arguments that several kinds share."""

from sama_core.errors import OptionsError


def check_count(argument: str, seen: object, lowest: int = 1) -> None:
    """Refuse anything but a whole number of at least ``lowest``.

    Raises:
        OptionsError: with the argument's name.

    Example:
        >>> check_count("num_features", 0)
        Traceback (most recent call last):
        ...
        sama_core.errors.OptionsError: num_features: 0; wanted a whole number of at least 1
    """
    if not isinstance(seen, int) or isinstance(seen, bool) or seen < lowest:
        raise OptionsError(f"{argument}: {seen!r}; wanted a whole number of at least {lowest}")
