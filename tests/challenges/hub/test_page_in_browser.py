"""The hub's page in a real browser: it fits a phone, reads without scripts, and loads nothing else.

Needs chromium and chromedriver (Debian: chromium, chromium-driver); skipped where they are not.
"""

import os
from pathlib import Path

import pytest

import challenges
from tests.browser import Browser, contrast, driver, luminance, needs_browser, opened
from tests.challenges.hub.running import RunningHub

pytestmark = needs_browser
# Fixtures.
__all__ = ["driver", "opened"]


@pytest.fixture
def browser(opened: Browser) -> Browser:
    """The one browser, as it was when it started."""
    opened.as_started()
    return opened


@pytest.mark.parametrize("width", [320, 360, 414, 768, 1280])
def test_the_page_fits_the_screen(width: int, browser: Browser, hub: RunningHub) -> None:
    browser.phone(width, 800)
    browser.open(hub.address)
    assert browser.run("return document.documentElement.scrollWidth") <= width
    wide = browser.run(
        "return [...document.querySelectorAll('body *')]"
        ".filter(e => !e.closest('.wide'))"
        ".filter(e => e.getBoundingClientRect().right > innerWidth + 1).map(e => e.outerHTML)"
    )
    assert wide == []
    assert browser.run("return parseFloat(getComputedStyle(document.body).fontSize)") >= 16
    heights = browser.run(
        "return [...document.querySelectorAll('nav a')].map(e => e.getBoundingClientRect().height)"
    )
    assert len(heights) == len(challenges.names()) + 1 and min(heights) >= 36
    if folder := os.environ.get("HUB_SCREENSHOTS"):
        browser.screenshot(Path(folder) / f"hub-{width}.png")


def test_the_page_loads_its_style_and_nothing_from_elsewhere(
    browser: Browser, hub: RunningHub
) -> None:
    browser.open(hub.address)
    loaded = browser.run("return performance.getEntriesByType('resource').map(e => e.name)")
    assert [name for name in loaded if not name.endswith("/favicon.ico")] == [
        f"{hub.address}/style.css"
    ]
    assert browser.run("return getComputedStyle(document.body).maxWidth") == "768px"
    assert browser.run("return document.scripts.length") == 0


def test_the_page_reads_the_same_without_scripts(
    driver: int, hub: RunningHub, tmp_path: Path
) -> None:
    browser = Browser(driver, tmp_path / "profile", scripts=False)
    try:
        browser.open(hub.address)
        # WebDriver's own scripts run all the same; the page's would not.
        text = browser.run("return document.body.innerText")
    finally:
        browser.close()
    assert f"export FLWR_SUPERGRID_API_URL={hub.address}/v1\nflwr new @flowertune/finance" in text
    assert "General NLP" in text and "50-supernodes" in text


def test_a_link_of_the_page_goes_to_its_challenge(browser: Browser, hub: RunningHub) -> None:
    browser.phone(360, 640)
    browser.open(hub.address)
    browser.run("document.querySelector('nav a[href=\"#medical\"]').click()")
    top = browser.run("return document.querySelector('#medical').getBoundingClientRect().top")
    assert -1 <= top < 100


@pytest.mark.parametrize("dark", [False, True])
def test_text_has_contrast(dark: bool, browser: Browser, hub: RunningHub) -> None:
    """At least 4.5 to 1 (WCAG 2 AA), in light and in dark."""
    browser.scheme("dark" if dark else "light")
    browser.open(hub.address)
    pairs = browser.run(
        "const style = e => getComputedStyle(document.querySelector(e));"
        "return [[style('body').color, style('body').backgroundColor],"
        "[style('dt').color, style('body').backgroundColor],"
        "[style('pre code').color, style('pre').backgroundColor]]"
    )
    for ink, back in pairs:
        assert contrast(ink, back) >= 4.5
    assert (luminance(pairs[0][1]) < 0.5) is dark
    if folder := os.environ.get("HUB_SCREENSHOTS"):
        browser.screenshot(Path(folder) / f"hub-{'dark' if dark else 'light'}.png")
