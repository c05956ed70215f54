"""Bring the database to the newest schema: `python -m service.db.migrate`, also `sama migrate`."""

from importlib.resources import files

from alembic import command
from alembic.config import Config

from service.logging import configure_logging, get_logger
from service.settings import Settings


def create_config(database_url: str) -> Config:
    """Return Alembic's configuration for the chain of migrations that ships with the product."""
    config = Config()
    config.set_main_option("script_location", str(files("migrations")))
    config.attributes["database_url"] = database_url
    return config


def migrate(settings: Settings) -> None:
    """Apply every migration that the database lacks."""
    if settings.database_url is None:
        settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    command.upgrade(create_config(settings.resolved_database_url), "head")


def main() -> None:
    """Migrate the database that the environment names."""
    settings = Settings()
    configure_logging(settings, "migrate")
    migrate(settings)
    get_logger(__name__).info("database is at the newest schema")


if __name__ == "__main__":
    main()
