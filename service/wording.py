"""Numbers, times and shares as people read them, the same on pages and on the command line."""

from datetime import datetime

_BYTE_UNITS = ("bytes", "kB", "MB", "GB", "TB", "PB")
_MINUTE = 60
_HOUR = 3600
_DAY = 86_400


def write_count(count: int, noun: str | None = None) -> str:
    """Return a whole number with thousands apart, and its noun in the right number.

    >>> write_count(1797, "row"), write_count(1, "row"), write_count(3, "class")
    ('1,797 rows', '1 row', '3 classes')
    """
    text = f"{count:,}"
    if noun is None:
        return text
    plural = noun + ("es" if noun.endswith(("s", "sh", "ch", "x")) else "s")
    return f"{text} {noun if count == 1 else plural}"


def write_share(share: float | None, digits: int = 1) -> str:
    """Return a share of one as per cent.

    >>> write_share(0.7), write_share(1.0), write_share(None)
    ('70.0%', '100.0%', '-')
    """
    return "-" if share is None else f"{100 * share:.{digits}f}%"


def write_probability(probability: float) -> str:
    """Return a probability with two decimal places that never says sure or impossible.

    >>> write_probability(0.876), write_probability(0.9999), write_probability(0.001)
    ('0.88', 'over 0.99', 'under 0.01')
    """
    if probability > 0.99:
        return "over 0.99"
    return "under 0.01" if probability < 0.01 else f"{probability:.2f}"


def write_points(difference: float) -> str:
    """Return a difference of two shares in percentage points, with its sign.

    >>> write_points(0.0123), write_points(-0.5)
    ('+1.2 points', '-50.0 points')
    """
    return f"{100 * difference:+.1f} points"


def write_number(value: float | None, digits: int = 3) -> str:
    """Return a number with so many significant digits, in plain notation where that is short.

    >>> write_number(0.123456), write_number(12345.6), write_number(0.0000012), write_number(None)
    ('0.123', '12,346', '1.2e-06', '-')
    """
    if value is None:
        return "-"
    if value == 0:
        return "0"
    magnitude = abs(value)
    if magnitude >= 10 ** (digits - 1):
        return f"{value:,.0f}"
    return f"{value:.{digits}g}"


def write_decimal(value: float | None, places: int = 2) -> str:
    """Return a number with so many decimal places, for columns that are compared line by line.

    >>> write_decimal(1.0), write_decimal(0.0882), write_decimal(None)
    ('1.00', '0.09', '-')
    """
    return "-" if value is None else f"{value:,.{places}f}"


def write_seconds(seconds: float | None) -> str:
    """Return a duration in its two largest units.

    >>> write_seconds(0.42), write_seconds(75), write_seconds(7260), write_seconds(None)
    ('0.4 s', '1 min 15 s', '2 h 1 min', '-')
    """
    if seconds is None:
        return "-"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < _MINUTE:
        return f"{whole} s"
    if whole < _HOUR:
        return f"{whole // _MINUTE} min {whole % _MINUTE} s"
    if whole < _DAY:
        return f"{whole // _HOUR} h {whole % _HOUR // _MINUTE} min"
    return f"{whole // _DAY} d {whole % _DAY // _HOUR} h"


def write_bytes(num_bytes: int) -> str:
    """Return a size in decimal units.

    >>> write_bytes(999), write_bytes(1_530_000)
    ('999 bytes', '1.5 MB')
    """
    size, unit = float(num_bytes), 0
    while size >= 999.5 and unit < len(_BYTE_UNITS) - 1:
        size, unit = size / 1000, unit + 1
    return f"{num_bytes} bytes" if unit == 0 else f"{size:.{1 if size < 99.5 else 0}f} {_BYTE_UNITS[unit]}"


def write_rate(rate: float | None, unit: str | None) -> str:
    """Return a rate with its unit.

    >>> write_rate(1234.5, "examples/s"), write_rate(None, "examples/s")
    ('1,234 examples/s', '-')
    """
    return "-" if rate is None else f"{write_number(rate)} {unit or 'per second'}"


def write_moment(moment: datetime | None) -> str:
    """Return a time in UTC to the second.

    >>> from datetime import UTC
    >>> write_moment(datetime(2026, 3, 1, 9, 5, 7, tzinfo=UTC))
    '2026-03-01 09:05:07 UTC'
    """
    return "-" if moment is None else f"{moment:%Y-%m-%d %H:%M:%S} UTC"
