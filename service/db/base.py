"""The declarative base and the few column types that SQLite and Postgres must agree on."""

from typing import Any

from sqlalchemy import JSON, Float, MetaData
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import DeclarativeBase
from sqlalchemy.sql.functions import FunctionElement

# Named constraints, so that both databases and every migration speak of the same ones.
_NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}


class Base(DeclarativeBase):
    """Base of all tables. Times are seconds since the epoch, UTC, by the database's clock."""

    metadata = MetaData(naming_convention=_NAMING)
    type_annotation_map = {dict[str, Any]: JSON, list[Any]: JSON}  # noqa: RUF012 (SQLAlchemy's own protocol)


class db_now(FunctionElement[float]):  # noqa: N801 (a SQL function is written in lower case)
    """The database's clock as seconds since the epoch: the only clock that decides about leases."""

    type = Float()
    inherit_cache = True


@compiles(db_now, "postgresql")
def _postgres_now(_element: db_now, _compiler: Any, **_kw: Any) -> str:
    return "extract(epoch from clock_timestamp())::double precision"


@compiles(db_now, "sqlite")
def _sqlite_now(_element: db_now, _compiler: Any, **_kw: Any) -> str:
    return "((julianday('now') - 2440587.5) * 86400.0)"
