"""Every setting of the service and the worker, its default and its one owner.

Each field is read from the environment variable `SAMA_<FIELD NAME IN CAPITALS>`.
"""

from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict


class Settings(BaseSettings):
    """Settings of one installation, from the environment."""

    model_config = SettingsConfigDict(env_prefix="SAMA_", extra="ignore", frozen=True)

    data_dir: Path = Field(Path("sama-data"), description="Directory of database, checkpoints, exports and API key.")
    database_url: SecretStr | None = Field(
        None, description="SQLAlchemy URL of Postgres; unset: SQLite in the data directory."
    )
    broker_url: SecretStr | None = Field(
        None, description="Redis URL for Celery; unset: workers poll the job table themselves."
    )
    data_roots: Annotated[tuple[Path, ...], NoDecode] = Field(
        (Path(),), description="Directories that data set paths must lie in, separated by ':'."
    )
    api_key: SecretStr | None = Field(
        None, description="The API key; unset: made at first start in the data directory."
    )
    host: str = Field("127.0.0.1", description="Address the API listens on.")
    port: int = Field(8000, ge=0, le=65535, description="Port the API listens on.")
    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        ("127.0.0.1", "localhost", "[::1]"),
        description="Host header values that are answered, separated by ','.",
    )

    lease_seconds: float = Field(30.0, gt=0, description="How long a worker may be silent before its job is handed on.")
    poll_seconds: float = Field(0.5, gt=0, description="How often a worker without a broker looks for a job.")
    sweep_seconds: float = Field(5.0, gt=0, description="Time between two sweeps of expired leases.")
    stop_grace_seconds: float = Field(
        20.0,
        gt=0,
        description="Time an attempt has to checkpoint after a stop or cancel before it is killed.",
    )
    checkpoint_seconds: float = Field(30.0, ge=0, description="Least time between two checkpoints of an attempt.")
    progress_seconds: float = Field(1.0, ge=0, description="Least time between two writes of progress and metrics.")

    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="Where attempts train; auto: CUDA if present.")
    num_threads: int | None = Field(
        None, ge=1, description="CPU threads of an attempt; unset: one for small models, else torch's own choice."
    )
    max_memory_bytes: int | None = Field(
        None, gt=0, description="Address-space limit of an attempt's process on CPU; unset: none."
    )

    max_document_bytes: int = Field(1 << 20, gt=0, description="Largest job document accepted over HTTP.")
    max_dataset_bytes: int = Field(64 << 30, gt=0, description="Largest data set file after decoding.")
    max_image_pixels: int = Field(64 << 20, gt=0, description="Largest image, in pixels; a larger one is an error.")

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO", description="Least severity that is logged."
    )
    log_format: Literal["text", "json"] = Field("text", description="Log lines for people or for machines.")

    @field_validator("data_roots", mode="before")
    @classmethod
    def _split_roots(cls, value: object) -> object:
        return tuple(Path(part) for part in value.split(":") if part) if isinstance(value, str) else value

    @field_validator("allowed_hosts", mode="before")
    @classmethod
    def _split_hosts(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @cached_property
    def resolved_database_url(self) -> str:
        """The database URL in force: Postgres where set, else SQLite in the data directory."""
        if self.database_url is not None:
            return self.database_url.get_secret_value()
        return f"sqlite:///{self.data_dir.resolve() / 'sama.db'}"

    @property
    def heartbeat_seconds(self) -> float:
        """Time between two renewals of a lease: a third of it, so that two may be lost."""
        return self.lease_seconds / 3
