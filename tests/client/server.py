"""A real API process for tests of what talks to it."""

import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import httpx

START_SECONDS = 60.0
STOP_SECONDS = 30.0


class ApiServer:
    """`python -m service.main` on a free port, over a data directory of the test's own."""

    def __init__(self, data_dir: Path, environment: Mapping[str, str] | None = None) -> None:
        self.data_dir = data_dir
        self.api_key = secrets.token_hex(24)
        self._port = _find_free_port()
        self._environment = dict(environment or {})
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def url(self) -> str:
        """The address of the server."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def settings(self) -> dict[str, str]:
        """What a process needs to talk to the server."""
        return {"SAMA_URL": self.url, "SAMA_API_KEY": self.api_key}

    def start(self) -> None:
        """Start the process and wait until it answers."""
        environment = dict(os.environ) | {
            "SAMA_DATA_DIR": str(self.data_dir),
            "SAMA_PORT": str(self._port),
            "SAMA_API_KEY": self.api_key,
            "SAMA_LOG_LEVEL": "WARNING",
            **self._environment,
        }
        self._process = subprocess.Popen([sys.executable, "-m", "service.main"], env=environment)
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            assert self._process.poll() is None, "the API ended at once"
            assert time.monotonic() < deadline, "the API did not answer in time"
            time.sleep(0.02)

    def kill(self) -> None:
        """End the process without a warning."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End the process in good order."""
        self._end(signal.SIGTERM)

    def create_login_link(self) -> str:
        """Return a link that opens the dashboard once."""
        headers = {"Authorization": f"Bearer {self.api_key}"}
        return str(httpx.post(f"{self.url}/v1/login-links", headers=headers).raise_for_status().json()["url"])

    def _end(self, signal_number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(signal_number)
            self._process.wait(STOP_SECONDS)
            self._process = None

    def _answers(self) -> bool:
        try:
            return httpx.get(f"{self.url}/healthz", timeout=5.0).is_success
        except httpx.TransportError:
            return False


def _find_free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
