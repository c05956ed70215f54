"""How far a training is along its planned steps, and how it ends in fewer."""


class Course:
    """The steps of a training, and the place of each in the schedule that was planned for it.

    A training that is cut short goes through what is left of its schedule in fewer, longer strides: the learning rate
    ends where it would have ended.

    Args:
        num_planned: steps of the whole training.

    Attributes:
        num_steps: the steps it takes; fewer than planned once it is cut short.
        because: why it was, in words; None where it was not.

    Example:
        >>> course = Course(100)
        >>> course.cut(60, num_left=10, because="enough is known")
        >>> course.num_steps, [course.find_place(step) for step in (30, 60, 65, 70)]
        (70, [30.0, 60.0, 80.0, 100.0])
    """

    def __init__(self, num_planned: int) -> None:
        self.num_planned = self.num_steps = num_planned
        self.because: str | None = None
        self._cut_at = num_planned

    def cut(self, step: int, num_left: int, because: str) -> None:
        """Let ``num_left`` steps, at least 1, follow after ``step`` of them are done."""
        self._cut_at, self.num_steps, self.because = step, step + num_left, because

    def find_place(self, step: int) -> float:
        """Return how many planned steps a number of steps done amounts to."""
        beyond = step - self._cut_at
        if beyond <= 0:
            return float(step)
        return self._cut_at + beyond * (self.num_planned - self._cut_at) / (self.num_steps - self._cut_at)
