"""What was measured of one network, optimizer and number format."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from benchmarks.engine.setting import Setting


@dataclass
class Record:
    """Figures of one setting, as they go into the results file.

    Attributes:
        setting: network, optimizer, device and number format.
        title: of the network.
        origin: machine, versions and threads.
        plain_ms: milliseconds of a plain step, one number a repeat.
        ratios: time per base step over plain training's, by unroll and arm, one number a repeat.
        memory: peak by arm: ``whole`` and ``added``, in MiB.
        cosines: to the exact hypergradient through the last base step, by arm, one number a batch.
        unrolled_cosines: to the exact one through all ten base steps since the last meta step.
        notes: what is missing, and why.
    """

    setting: Setting
    title: str
    origin: str
    plain_ms: list[float] = field(default_factory=list)
    ratios: dict[int, dict[str, list[float]]] = field(default_factory=dict)
    memory: dict[str, dict[str, float]] = field(default_factory=dict)
    cosines: dict[str, list[float]] = field(default_factory=dict)
    unrolled_cosines: dict[str, list[float]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def key(self) -> str:
        """Name the setting within a results file."""
        return f"{self.setting.problem} {self.setting.optimizer} {self.setting.precision} {self.setting.device}"

    def to_json(self) -> dict[str, Any]:
        """Return the record as JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Return a record that was written as JSON."""
        ratios = {int(unroll): arms for unroll, arms in values["ratios"].items()}
        return cls(**{**values, "setting": Setting(**values["setting"]), "ratios": ratios})
