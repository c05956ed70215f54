"""A real Redis for the tests, on a unix socket, that can be killed and started again."""

import shutil
import signal
import subprocess

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from tests.servers.binaries import find_redis
from tests.servers.child import (
    make_server_directory,
    start_server,
    stop_server,
    unprivileged_user,
    wait_until_ready,
)


class RedisServer:
    """One server without persistence: what it held is gone after `kill`, as with a lost machine."""

    def __init__(self) -> None:
        self._user = unprivileged_user()
        self._directory = make_server_directory("sama-redis", self._user)
        self._socket = self._directory / "redis.sock"
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def url(self) -> str:
        """The address as Celery writes it."""
        return f"redis+socket://{self._socket}"

    def connect(self) -> Redis:
        """Return a client that fails at once when the server is away; close it after use."""
        return Redis(unix_socket_path=str(self._socket), retry=Retry(NoBackoff(), 0))

    def start(self) -> None:
        """Start the server and wait until it answers."""
        command = [find_redis(), "--port", "0", "--unixsocket", self._socket, "--save", "", "--appendonly", "no"]
        self._process = start_server(command, self._directory, self._user)
        wait_until_ready(self._process, self._answers, self._directory)

    def kill(self) -> None:
        """End the server at once, with everything in it."""
        if self._process is not None:
            stop_server(self._process, signal.SIGKILL)
            self._process = None

    def flush(self) -> None:
        """Forget every message, as FLUSHALL does."""
        with self.connect() as client:
            client.flushall()

    def remove(self) -> None:
        """End the server and delete its directory."""
        self.kill()
        shutil.rmtree(self._directory)

    def _answers(self) -> bool:
        with self.connect() as client:
            try:
                return bool(client.ping())
            except RedisError:
                return False
