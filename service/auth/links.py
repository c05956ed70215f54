"""Letting in: by the API key, by a link that works once, and by the session that either opens."""

import secrets

from pydantic import SecretStr

from service.auth.keys import digest_secret, is_same_secret
from service.auth.repository import AccessRepository
from service.db.engine import Database
from service.errors import ServiceError

LINK_LIFETIME_SECONDS = 15 * 60.0
SESSION_LIFETIME_SECONDS = 7 * 24 * 3600.0


class AccessService:
    """Checks keys, links and sessions. Tokens are random and stored as digests only."""

    def __init__(self, database: Database, api_key: SecretStr) -> None:
        self._database = database
        self._api_key = api_key
        self._key_digest = digest_secret(api_key.get_secret_value())

    def has_key(self, given: str) -> bool:
        """Tell whether this is the API key."""
        return is_same_secret(given, self._api_key.get_secret_value())

    def create_link_token(self) -> str:
        """Return the token of a new one-time link."""
        token = secrets.token_urlsafe(32)
        with self._database.write() as session:
            AccessRepository(session).add_link(digest_secret(token), LINK_LIFETIME_SECONDS)
        return token

    def redeem_link(self, token: str) -> str:
        """Use up a one-time link and return the token of the session it opens.

        Raises:
            ServiceError: `unauthorized`; the link was used before, ran out or never was.
        """
        with self._database.write() as session:
            if not AccessRepository(session).take_link(digest_secret(token)):
                raise ServiceError(
                    "unauthorized",
                    "This link was used before or has run out.",
                    param="token",
                    hint="Sign in with the API key, or ask for a new link.",
                )
            return self._add_session(AccessRepository(session))

    def redeem_key(self, given: str) -> str:
        """Return the token of a new session. Raises ServiceError `unauthorized` where the key is not the right one."""
        if not self.has_key(given):
            raise ServiceError("unauthorized", "This is not the API key of this server.", param="api_key")
        with self._database.write() as session:
            return self._add_session(AccessRepository(session))

    def has_session(self, token: str) -> bool:
        """Tell whether this token belongs to a live session."""
        with self._database.read() as session:
            return AccessRepository(session).has_session(digest_secret(token), self._key_digest)

    def end_session(self, token: str) -> None:
        """Sign out."""
        with self._database.write() as session:
            AccessRepository(session).remove_session(digest_secret(token))

    def _add_session(self, repository: AccessRepository) -> str:
        token = secrets.token_urlsafe(32)
        repository.add_session(digest_secret(token), self._key_digest, SESSION_LIFETIME_SECONDS)
        return token
