"""Ask the database whether this host's worker is alive: `python -m worker.probe`, exit code 0 if so."""

import socket
import sys

from sqlalchemy.exc import OperationalError

from service.attempts.workers import WorkerRepository
from service.db.engine import create_database
from service.settings import Settings


def main() -> int:
    """Return 0 if a worker of this host beat within two leases, else 1 with one line on standard error."""
    settings = Settings()
    hostname = socket.gethostname()
    database = create_database(settings)
    try:
        with database.read() as session:
            alive = WorkerRepository(session).list_alive(2 * settings.lease_seconds)
    except OperationalError as error:
        sys.stderr.write(f"error: the database does not answer: {type(error.orig).__name__}\n")
        return 1
    finally:
        database.dispose()
    if not any(worker.hostname == hostname for worker in alive):
        sys.stderr.write(f"error: no worker of {hostname} has been heard of lately\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
