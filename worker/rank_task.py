"""What one of several processes of a training is told by the attempt that starts it, as one line of JSON."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from service.settings import Settings

# What a rank needs of the settings; it writes to no database and so is not told of one.
_NEEDED = {
    "data_dir", "data_roots", "num_threads", "device", "max_memory_bytes", "max_dataset_bytes", "max_image_pixels",
    "log_level", "log_format",
}  # fmt: skip


@dataclass(frozen=True)
class RankTask:
    """One rank's part of a training.

    Attributes:
        job_id: the job, for the log.
        attempt: its attempt, for the log and the checkpoint.
        document: as the job's row has it.
        fingerprint: of the data and options that the attempt has read; the rank must come to the same.
        checkpoint_path: where to go on from, relative to the data directory; None begins anew.
        folder: for this rank's encoded data.
        store: file by which the ranks find each other.
        rank: 1..size-1; the attempt itself is 0.
        size: processes in all.
        settings: by name.
        epochs: of the training, which may be fewer than the document has it; None takes the document's.
    """

    job_id: str
    attempt: int
    document: str
    fingerprint: str
    checkpoint_path: str | None
    folder: str
    store: str
    rank: int
    size: int
    settings: dict[str, Any]
    epochs: int | None = None

    def write(self) -> bytes:
        """Return the line."""
        return json.dumps(asdict(self)).encode() + b"\n"

    @classmethod
    def read(cls, line: str) -> "RankTask":
        """Return the task that a line holds."""
        return cls(**json.loads(line))

    def make_settings(self) -> Settings:
        """Return the settings of this rank."""
        return Settings(**self.settings)


def choose_settings(settings: Settings, device: str, num_threads: int) -> dict[str, Any]:
    """Return the settings for a rank on this kind of device, with its share of the threads."""
    own = settings.model_copy(update={"device": device, "num_threads": num_threads})
    values: dict[str, Any] = own.model_dump(mode="json", include=_NEEDED)
    return values | {"data_dir": str(Path(settings.data_dir).resolve())}
