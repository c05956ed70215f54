"""One job in a real browser."""

import hashlib
import re
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from service.attempts.repository import AttemptRepository
from service.attempts.state import Progress
from tests.page.conftest import Site
from tests.page.seeding import NUM_KEPT, NUM_ROWS

pytestmark = pytest.mark.page

HOSTILE = "<img src=x onerror=alert(1)><script>window.wasRun=1</script>'\"</style>{{7*7}}"


def test_a_running_job_shows_phase_rate_time_left_and_curves(site: Site) -> None:
    page = site.open_page(f"/jobs/{site.seeder.train('page: running')}")
    for words in ("running", "training", "43%", "1,840 examples/s", "1 min 14 s left"):
        expect(page.locator(".status")).to_contain_text(words)
    for curve in ("Base loss", "Meta loss", "Hypergradient norm", "Effective sample size"):
        expect(page.get_by_role("img", name=curve)).to_be_visible()
    expect(page.locator(".log")).to_contain_text("model auto chose cnn")


def test_progress_arrives_without_a_reload_and_results_with_one(site: Site) -> None:
    job_id = site.seeder.train("page: moving")
    page = site.open_page(f"/jobs/{job_id}")
    page.evaluate("window.sameDocument = true")
    with site.seeder.database.write() as session:
        AttemptRepository(session).record(job_id, 1, progress=Progress(0.87), events=[("note", "nearly there")])
    expect(page.locator(".status")).to_contain_text("87%")
    expect(page.locator(".log")).to_contain_text("nearly there")
    assert page.evaluate("window.sameDocument") is True
    with site.seeder.database.write() as session:
        AttemptRepository(session).cancel(job_id, 1)
    expect(page.get_by_role("button", name="Resume job")).to_be_visible()


def test_cancel_and_resume_work_by_their_buttons(site: Site) -> None:
    page = site.open_page(f"/jobs/{site.seeder.queue('page: cancel me')}")
    page.get_by_role("button", name="Cancel job").click()
    expect(page.locator(".status")).to_contain_text("cancelled")
    page.get_by_role("button", name="Resume job").click()
    expect(page.locator(".status")).to_contain_text("queued")
    page.get_by_role("button", name="Cancel job").click()
    expect(page.locator(".status")).to_contain_text("cancelled")


def test_a_page_elsewhere_cannot_cancel_a_job(site: Site, context: BrowserContext, tmp_path: Path) -> None:
    job_id = site.seeder.queue("page: not yours")
    trap = tmp_path / "trap.html"
    trap.write_text(f'<form method="post" action="{site.api.url}/jobs/{job_id}/cancel"><button>Win</button></form>')
    page = context.new_page()
    page.goto(trap.as_uri())
    page.get_by_role("button").click()
    page.wait_for_url("**/cancel")
    expect(page.get_by_text("may not call this server").or_(page.get_by_text("signed-in browser"))).to_be_visible()
    expect(site.open_page(f"/jobs/{job_id}").locator(".status")).to_contain_text("queued")


def test_the_document_of_a_job_without_evaluation_says_so(site: Site) -> None:
    page = site.open_page(f"/jobs/{site.seeder.queue('page: no proof')}")
    expect(page.locator("pre").filter(has_text="evaluation: null")).to_have_count(1)


def test_a_failed_job_says_why_and_what_to_do(site: Site) -> None:
    page = site.open_page(f"/jobs/{site.seeder.fail('page: failed')}")
    expect(page.get_by_role("alert")).to_contain_text("Row 17 has an image that cannot be read.")
    expect(page.get_by_role("alert")).to_contain_text("Repair or remove row 17.")


def test_a_finished_job_shows_the_verdict_the_proof_and_the_suspects(site: Site) -> None:
    page = site.open_page(f"/jobs/{site.seeder.succeed('page: results')}")
    expect(page.locator(".verdict")).to_contain_text("Better: the curated rows beat all rows by 7.4 points")
    arm = page.get_by_role("row", name="curated 280 rows of the arm")
    expect(arm).to_contain_text("94.8%")
    expect(arm).to_contain_text("93.6% to 96.0%")
    expect(page.get_by_text("Rows to train on")).to_be_visible()
    for chart in ("Histogram of weights", "Histogram of noise scores", "Test accuracy of each arm"):
        expect(page.get_by_role("img", name=chart)).to_be_visible()
    suspects = page.locator(".suspects > li")
    expect(suspects).to_have_count(24)
    expect(suspects.first).to_contain_text("likely mislabelled: the model says")
    page.wait_for_load_state("load")
    assert page.evaluate(
        "[...document.querySelectorAll('.suspects .look img')].every(image => image.naturalWidth === 8)"
    )


def test_corrected_labels_are_shown_before_and_after_and_can_be_asked_for(site: Site) -> None:
    page = site.open_page(f"/jobs/{site.seeder.succeed('page: labels', relabel=True)}")
    expect(page.locator(".figures")).to_contain_text("Labels corrected")
    labels = page.locator("#labels")
    expect(labels).to_contain_text("71.0% of the given labels are right, and 93.0% of the labels to train on")
    expect(labels.get_by_role("row")).to_have_count(21)
    page.get_by_label("Show").select_option("with a corrected or new label")
    page.get_by_role("button", name="Show these").click()
    expect(page).to_have_url(re.compile("show=corrected"))
    suspects = page.locator(".suspects > li")
    expect(suspects.first.locator(".change")).to_contain_text("→")
    expect(suspects.first).to_contain_text("though corrected: the model says")
    assert suspects.count() == page.locator(".suspects .change").count()
    suspects.first.get_by_text("Trusted examples against it").click()
    expect(suspects.first.locator(".influences img")).to_be_visible()
    page.get_by_label("Show").select_option("kept")
    page.get_by_role("button", name="Show these").click()
    expect(page.locator("#suspects")).to_contain_text("None of the examples kept for this page is kept.")


def test_a_finished_job_shows_the_controls_the_prune_curve_the_baseline_and_the_audit(site: Site) -> None:
    page = site.open_page(f"/jobs/{site.seeder.succeed('page: proof')}")
    for name, words in (
        ("curated full +7.4 points", "better"),
        ("curated loss +0.4 points", "not told apart"),
        ("curated-and-meta meta -3.0 points", "worse"),
    ):
        expect(page.get_by_role("row", name=name)).to_contain_text(words)
    for chart in ("The prune curve", "Share of planted errors by noise score"):
        expect(page.get_by_role("img", name=chart)).to_be_visible()
    expect(page.get_by_role("row", name="50%")).to_contain_text("93.0%")
    expect(page.get_by_role("row", name="aum margin of the given label")).to_contain_text("74.0%")
    expect(page.get_by_text("Every figure is a lower bound.")).to_be_visible()
    page.get_by_text("Reliability, bin by bin").click()
    expect(page.get_by_role("row", name="0.0 to 0.1")).to_be_visible()


def test_another_keep_fraction_is_shown_and_downloaded(site: Site) -> None:
    page = site.open_page(f"/jobs/{site.seeder.succeed('page: fraction')}")
    expect(page.locator(".figures")).to_contain_text(f"{NUM_KEPT}")
    page.get_by_label("Keep fraction").fill("0.5")
    page.get_by_role("button", name="Show what is kept").click()
    expect(page.locator(".figures")).to_contain_text(f"{NUM_ROWS // 2}")
    with page.expect_download() as download:
        page.get_by_role("link", name="CSV").click()
    lines = Path(download.value.path()).read_text().splitlines()
    assert len(lines) == NUM_ROWS + 1
    assert sum("true" in line.lower().split(",") for line in lines) == NUM_ROWS // 2


def test_the_bundle_is_one_click_away(site: Site) -> None:
    page = site.open_page(f"/jobs/{site.seeder.succeed('page: bundle')}")
    with page.expect_download() as download:
        page.get_by_role("link", name="Download bundle").click()
    data = Path(download.value.path()).read_bytes()
    assert b"manifest.json" in data
    assert len(hashlib.sha256(data).hexdigest()) == 64


def test_hostile_text_stays_text(site: Site) -> None:
    job_id = site.seeder.succeed(
        HOSTILE, labels={"x": HOSTILE[:60]}, texts=[HOSTILE, "plain"], class_names=[HOSTILE, "ham"]
    )
    for path in ("/", f"/jobs/{job_id}"):
        page = site.open_page(path)
        expect(page.get_by_text(HOSTILE, exact=True).first).to_be_visible()
        assert page.evaluate("window.wasRun") is None
        assert page.locator("img[src=x]").count() == 0
        assert page.get_by_text("49").count() == 0 or "{{7*7}}" in page.content()


def test_everything_is_there_without_scripts(site: Site, context: BrowserContext) -> None:
    job_id = site.seeder.succeed("page: no scripts")
    plain = context.browser.new_context(java_script_enabled=False)  # type: ignore[union-attr]
    page = plain.new_page()
    page.goto(site.api.create_login_link())
    page.wait_for_url(f"{site.api.url}/")
    page.goto(f"{site.api.url}/jobs/{job_id}")
    expect(page.locator(".verdict")).to_contain_text("Better")
    expect(page.get_by_role("img", name="Base loss")).to_be_visible()
    expect(page.locator(".suspects > li")).to_have_count(24)
    plain.close()


def test_nothing_is_fetched_from_elsewhere(site: Site, context: BrowserContext) -> None:
    asked: list[str] = []
    context.on("request", lambda request: asked.append(request.url))
    page = site.open_page(f"/jobs/{site.seeder.succeed('page: alone')}")
    page.wait_for_load_state("networkidle")
    assert len(asked) > 4
    assert {url for url in asked if not url.startswith(f"{site.api.url}/")} == set()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_the_contrast_that_people_need(site: Site, context: BrowserContext, scheme: str) -> None:
    job_id = site.seeder.succeed(f"page: contrast {scheme}")
    site.seeder.queue("page: contrast waiting")
    failed = site.seeder.queue("page: contrast cancelled")
    for path in ("/", f"/jobs/{job_id}", f"/jobs/{failed}"):
        page = site.open_page(path)
        page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        assert _find_low_contrast(page) == []


def _find_low_contrast(page: Page) -> list[str]:
    """Return what is written with less than 4.5 to 1 against the nearest painted background."""
    found: list[str] = page.evaluate(
        """() => {
          const read = text => {
            const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
            canvas.fillStyle = text; canvas.fillRect(0, 0, 1, 1);
            return canvas.getImageData(0, 0, 1, 1).data;
          };
          const luminance = ([r, g, b]) => [r, g, b].map(v => v / 255)
            .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
            .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
          const background = element => {
            for (let e = element; e; e = e.parentElement) {
              const paint = getComputedStyle(e).backgroundColor;
              if (read(paint)[3] === 255) return read(paint);
            }
            return [255, 255, 255];
          };
          const bad = new Set();
          const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
          while (walker.nextNode()) {
            const element = walker.currentNode.parentElement;
            if (!walker.currentNode.data.trim() || !element.checkVisibility()) continue;
            if (element.closest("noscript, title, progress, option")) continue;
            const style = getComputedStyle(element);
            const ink = element.closest("svg") ? style.fill : style.color;
            const [a, b] = [luminance(read(ink)), luminance(background(element))].sort((x, y) => y - x);
            if ((a + 0.05) / (b + 0.05) < 4.5) bad.add(`${walker.currentNode.data.trim().slice(0, 40)} (${ink})`);
          }
          return [...bad];
        }"""
    )
    return found
