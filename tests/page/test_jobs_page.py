"""The list of jobs in a real browser."""

import pytest
from playwright.sync_api import BrowserContext, expect

from tests.page.conftest import Site

pytestmark = pytest.mark.page


def test_every_state_is_shown_in_words_with_progress_and_place_in_the_queue(site: Site) -> None:
    site.seeder.succeed("state: done")
    site.seeder.fail("state: broken")
    site.seeder.train("state: under way")
    site.seeder.queue("state: waiting")
    page = site.open_page()
    rows = {name: page.get_by_role("row", name=f"state: {name}") for name in ("done", "broken", "under way", "waiting")}
    expect(rows["done"]).to_contain_text("succeeded")
    expect(rows["done"]).to_contain_text("100%")
    expect(rows["broken"]).to_contain_text("failed")
    expect(rows["broken"]).to_contain_text("bad data")
    for words in ("running", "training", "43%", "1,840 examples/s", "1 min 14 s left"):
        expect(rows["under way"]).to_contain_text(words)
    expect(rows["waiting"]).to_contain_text("in the queue")
    expect(rows["waiting"].get_by_role("progressbar")).to_have_attribute("value", "0.0")


def test_the_list_follows_what_happens_without_a_reload(site: Site) -> None:
    page = site.open_page()
    page.evaluate("window.sameDocument = true")
    job_id = site.seeder.queue("appears by itself")
    expect(page.get_by_role("link", name="appears by itself")).to_be_visible()
    assert page.evaluate("window.sameDocument") is True
    page.get_by_role("link", name="appears by itself").click()
    expect(page).to_have_url(f"{site.api.url}/jobs/{job_id}")


def test_jobs_are_filtered_by_label_and_state(site: Site) -> None:
    site.seeder.succeed("filter: red", labels={"colour": "red"})
    site.seeder.succeed("filter: blue", labels={"colour": "blue"})
    page = site.open_page()
    page.get_by_label("Label").fill("colour=red")
    page.get_by_role("button", name="Filter").click()
    expect(page.get_by_role("link", name="filter: red")).to_be_visible()
    expect(page.get_by_role("link", name="filter: blue")).to_have_count(0)
    page.get_by_label("State").select_option("cancelling")
    page.get_by_role("button", name="Filter").click()
    expect(page.get_by_role("heading", name="No jobs here")).to_be_visible()


def test_older_jobs_are_a_page_away(site: Site) -> None:
    oldest = site.seeder.queue("pages: the oldest", {"many": "yes"})
    for number in range(50):
        site.seeder.queue(f"pages: {number}", {"many": "yes"})
    page = site.open_page("/?label=many%3Dyes")
    expect(page.get_by_role("link", name="pages: the oldest")).to_have_count(0)
    page.get_by_role("link", name="Older jobs").click()
    expect(page.locator(f"#open-{oldest}")).to_be_visible()
    expect(page.get_by_role("link", name="Older jobs")).to_have_count(0)


def test_a_stranger_is_asked_to_sign_in_and_a_link_works_once(site: Site, context: BrowserContext) -> None:
    link = site.api.create_login_link()
    stranger = context.browser.new_context()  # type: ignore[union-attr]
    page = stranger.new_page()
    answer = page.goto(f"{site.api.url}/")
    assert answer is not None
    assert answer.status == 401
    expect(page.get_by_role("link", name="Sign in with the API key")).to_be_visible()
    page.goto(link)
    page.wait_for_url(f"{site.api.url}/")
    expect(page.get_by_role("heading", name="Jobs")).to_be_visible()
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    answer = page.goto(link)
    assert answer is not None
    assert answer.status == 401
    stranger.close()


def test_the_key_opens_the_dashboard_through_the_form(site: Site, context: BrowserContext) -> None:
    stranger = context.browser.new_context()  # type: ignore[union-attr]
    page = stranger.new_page()
    page.goto(f"{site.api.url}/login")
    page.get_by_label("API key").fill("not the key of this server")
    page.get_by_role("button", name="Open the dashboard").click()
    expect(page.get_by_role("alert")).to_contain_text("not the API key")
    page.get_by_label("API key").fill(site.api.api_key)
    page.get_by_role("button", name="Open the dashboard").click()
    expect(page.get_by_role("heading", name="Jobs")).to_be_visible()
    stranger.close()
