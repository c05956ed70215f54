"""A real Chromium, signed in to a real server process."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, expect, sync_playwright

from service.db.engine import Database, create_database
from service.db.migrate import migrate
from service.settings import Settings
from tests.client.server import ApiServer
from tests.page.seeding import Seeder

CHROMIUM_HELP = (
    "No Chromium found. Run `sudo apt-get install -y --no-install-recommends chromium`, or put one on the PATH."
)
# What a browser needs in a container, and what keeps it from calling anyone.
_ARGUMENTS = (
    "--headless",
    "--no-sandbox",
    "--disable-dev-shm-usage",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


# A busy machine may take its time; a page that is wrong stays wrong.
expect.set_options(timeout=20_000)


@dataclass
class Site:
    """A server with jobs, as a signed-in browser sees it; `faults` are console errors and policy violations."""

    api: ApiServer
    seeder: Seeder
    open_page: Callable[..., Page]
    faults: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A browser. Playwright keeps an event loop in this thread while it lives, so it must not outlive its module."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        pytest.fail(CHROMIUM_HELP, pytrace=False)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=list(_ARGUMENTS))
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    """The database of the one server of the page tests."""
    settings = Settings(data_dir=tmp_path_factory.mktemp("pages"))
    migrate(settings)
    database = create_database(settings)
    yield database
    database.dispose()


@pytest.fixture(scope="session")
def api(database: Database, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """The server process."""
    assert database.url.database is not None
    server = ApiServer(Path(database.url.database).parent)
    yield server
    server.stop()


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    """A browser profile of the test's own."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    yield context
    context.close()


@pytest.fixture
def site(api: ApiServer, database: Database, context: BrowserContext) -> Iterator[Site]:
    """The server, opened by a one-time link. At the end nothing may have gone wrong in the browser."""
    faults: list[str] = []

    def note(message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            faults.append(message.text)

    def open_page(path: str = "/") -> Page:
        page = context.new_page()
        page.on("console", note)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.goto(f"{api.url}{path}")
        return page

    page = context.new_page()
    page.goto(api.create_login_link())
    page.wait_for_url(f"{api.url}/")
    page.close()
    site = Site(api, Seeder(database), open_page, faults)
    yield site
    assert site.faults == []
