"""Tables of one-time links and dashboard sessions. Only digests of their tokens are stored."""

from sqlalchemy import Float, String
from sqlalchemy.orm import Mapped, mapped_column

from service.db.base import Base


class LoginLinkTable(Base):
    """A link that opens the dashboard once."""

    __tablename__ = "login_link"

    digest: Mapped[str] = mapped_column(String(64), primary_key=True)
    expires_at: Mapped[float] = mapped_column(Float)


class DashboardSessionTable(Base):
    """A browser that was let in. It stays so until it expires, signs out, or the API key changes."""

    __tablename__ = "dashboard_session"

    digest: Mapped[str] = mapped_column(String(64), primary_key=True)
    key_digest: Mapped[str] = mapped_column(String(64))
    expires_at: Mapped[float] = mapped_column(Float)
