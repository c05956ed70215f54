"""What an inspection finds: problems that refuse the data, notes that inform, rows gathered by kind of fault."""

from dataclasses import dataclass, field

from service.errors import Problem, ServiceError
from service.storage.faults import DataError

NUM_ROWS_NAMED = 5
NUM_PROBLEMS_TOLD = 3


@dataclass
class _RowFaults:
    param: str
    where: str
    wanted: str
    reason: str
    rows: list[int] = field(default_factory=list)
    count: int = 0


class Findings:
    """Problems and notes, in the order found; faults of single rows come together as one problem a kind."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self._problems: list[Problem] = []
        self._row_faults: dict[tuple[str, str], _RowFaults] = {}
        self._code = "invalid_data"

    @property
    def is_clean(self) -> bool:
        """Tell whether no problem was found so far."""
        return not self._problems and not self._row_faults

    def refuse(self, param: str, seen: str, wanted: str, message: str, nearest: str | None = None) -> None:
        """Add one problem."""
        suggestion = f" Did you mean {nearest!r}?" if nearest else ""
        self._problems.append(
            Problem(param=param, seen=seen, wanted=wanted, message=message + suggestion, nearest=nearest)
        )

    def refuse_error(self, error: ServiceError, param: str, seen: str) -> None:
        """Add the problem that an error tells of; its code becomes that of the whole where it is the first."""
        if self.is_clean:
            self._code = error.code
        message = error.message if error.hint is None else f"{error.message} {error.hint}"
        self._problems.append(Problem(error.param or param, seen, "a file that can be read", message))

    def refuse_row(self, param: str, where: str, row: int, *, reason: str, wanted: str, count: int = 1) -> None:
        """Add `count` rows at fault, of which `row` is the first; `where` names the column and the file."""
        fault = self._row_faults.setdefault((where, reason), _RowFaults(param, where, wanted, reason))
        fault.count += count
        if len(fault.rows) < NUM_ROWS_NAMED:
            fault.rows.append(row)

    def list_problems(self) -> list[Problem]:
        """Return every problem found, each once: roles that share a file meet the same faults."""
        return list(dict.fromkeys([*self._problems, *(_tell(fault) for fault in self._row_faults.values())]))

    def raise_problems(self) -> None:
        """Raise what was found, if anything.

        Raises:
            DataError: `invalid_data`, or the code of the file that could not be opened; with every problem.
        """
        problems = self.list_problems()
        if problems:
            rest = len(problems) - NUM_PROBLEMS_TOLD
            told = [problem.message for problem in problems[:NUM_PROBLEMS_TOLD]]
            message = " ".join(told) + (f" ({rest} more)" if rest > 0 else "")
            row = next((fault.rows[0] for fault in self._row_faults.values()), None)
            raise DataError(self._code, message, param=problems[0].param, row=row, problems=problems)


def _tell(fault: _RowFaults) -> Problem:
    shown = ", ".join(str(row) for row in fault.rows)
    rest = fault.count - len(fault.rows)
    rows = f"row{'s' if fault.count > 1 else ''} {shown}" + (f" and {rest} more" if rest else "")
    message = f"{fault.param}: {rows} of {fault.where}: {fault.reason}; wanted {fault.wanted}."
    return Problem(fault.param, f"{fault.reason} in {rows}", fault.wanted, message)
