"""Ask the API of this container whether it is alive: `python -m service.health.probe`, exit code 0 if so."""

import sys

import httpx

from service.settings import Settings

_TIMEOUT_SECONDS = 4.0


def main() -> int:
    """Return 0 if `/healthz` answers 200, else 1 with one line on standard error."""
    settings = Settings()
    # The address a server listens on may be a wildcard, which is no address to call.
    url = f"http://127.0.0.1:{settings.port}/healthz"
    try:
        # Asked by a name that the server answers for, whatever names it was given.
        answer = httpx.get(url, headers={"Host": settings.allowed_hosts[0]}, timeout=_TIMEOUT_SECONDS)
    except httpx.HTTPError as error:
        sys.stderr.write(f"error: {url} does not answer: {type(error).__name__}\n")
        return 1
    if answer.status_code != httpx.codes.OK:
        sys.stderr.write(f"error: {url} answered {answer.status_code}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
