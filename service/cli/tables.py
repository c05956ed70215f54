"""Rows of text with aligned columns."""

from collections.abc import Sequence


def write_table(rows: Sequence[Sequence[str]], *, indent: str = "  ", align_right: bool = True) -> list[str]:
    """Return rows as lines; the first column to the left, the others to the right unless told otherwise.

    >>> write_table([["arm", "rows"], ["full", "7"]], indent="")
    ['arm    rows', 'full      7']
    """
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [
            cell.rjust(width) if column and align_right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append(f"{indent}{'   '.join(cells)}".rstrip())
    return lines
