"""Which errors mean that a server is away for a while, to be waited out, and which are faults of ours."""

from kombu.exceptions import OperationalError as BrokerOperationalError
from redis.exceptions import RedisError
from sqlalchemy import exc

# Postgres restarting, the network gone, SQLite's lock not to be had, the pool exhausted, the schema not there yet.
DATABASE_OUTAGES = (exc.DBAPIError, exc.TimeoutError)
BROKER_OUTAGES = (BrokerOperationalError, RedisError, OSError)


def describe_outage(error: BaseException) -> str:
    """Return the first line of what the driver said, without the statement that met it."""
    reason = getattr(error, "orig", None) or error
    lines = str(reason).strip().splitlines()
    return f"{type(reason).__name__}: {lines[0] if lines else 'no reason given'}"
