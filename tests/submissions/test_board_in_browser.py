"""The board in a real browser: it fits, sorts, filters, goes dark, and runs no script but its own.

Needs chromium and chromedriver (Debian: chromium, chromium-driver); skipped where they are not.
BOARD_SCREENSHOTS names a folder for pictures of the pages.
"""

import functools
import http.server
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from submissions.board.site import write_site
from tests.browser import Browser, contrast, driver, luminance, needs_browser, opened
from tests.submissions.entries import HOSTILE, entry, hostile, refused

pytestmark = needs_browser
# Fixtures.
__all__ = ["driver", "opened"]
TAB, ENTER, SPACE = "\ue004", "\ue007", " "
BOARD = "boards/finance-50-supernodes-1.0.0-open.html"
FOUR_SETS = "boards/code-50-supernodes-1.0.0-open.html"
PAGES = {
    "index": "index.html",
    "board": BOARD,
    "submission": "submissions/team-1-000000000001.html",
    "hostile": "submissions/team-1000-0000000003e8.html",
    "refused": "refused.html",
    "tiers": "tiers.html",
}


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves files, and keeps a list of what it was asked for."""

    asked: list[str]

    def log_message(self, format: str, *args: object) -> None:
        """Note what was asked for."""
        type(self).asked.append(self.path)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a site with a few dozen submissions, hostile ones among them."""
    folder = tmp_path_factory.mktemp("board") / "site"
    many = [entry(n, division="open") for n in range(30)]
    many += [entry(100 + n, "code", division="open") for n in range(12)]
    many += [hostile(1000 + n, text) for n, text in enumerate(HOSTILE)]
    write_site(folder, "Board", many, [refused(text) for text in HOSTILE])
    handler = type("Handler", (Quiet,), {"asked": []})
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(handler, directory=folder)
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def browser(opened: Browser) -> Browser:
    """The one browser, as it was when it started."""
    opened.as_started()
    opened.logged()
    return opened


def column(browser: Browser, name: str) -> list[str]:
    """The values of a column, of the rows that are shown, references left out."""
    return browser.run(
        "return [...document.querySelectorAll('#board tbody tr:not([hidden]):not(.reference)')]"
        f".map(row => row.querySelector('[data-name=\"{name}\"]').dataset.value)"
    )


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("width", [320, 768, 1440])
def test_a_page_fits_the_screen(width: int, page: str, browser: Browser, site: str) -> None:
    browser.phone(width, 900)
    browser.open(f"{site}/{PAGES[page]}")
    browser.run("document.querySelectorAll('details').forEach(one => one.open = true)")
    assert browser.run("return document.documentElement.scrollWidth") <= width
    wide = browser.run(
        "return [...document.querySelectorAll('body *')]"
        ".filter(e => !e.closest('.wide table, pre, .prose table, svg, .skip'))"
        ".filter(e => e.getBoundingClientRect().right > innerWidth + 1).map(e => e.outerHTML)"
    )
    assert wide == []
    if folder := os.environ.get("BOARD_SCREENSHOTS"):
        for scheme in ("light", "dark"):
            browser.scheme(scheme)
            browser.whole(Path(folder) / f"board-{page}-{width}-{scheme}.png")


@pytest.mark.parametrize("page", ["board", "four sets", "submission"])
@pytest.mark.parametrize("width", [320, 390, 768, 1440])
def test_a_table_needs_no_scrolling_and_no_cell_lies_over_another(
    width: int, page: str, browser: Browser, site: str
) -> None:
    browser.phone(width, 900)
    browser.open(f"{site}/{PAGES.get(page, FOUR_SETS)}")
    assert browser.run(
        "return [...document.querySelectorAll('.wide')].every(e => e.scrollWidth <= e.clientWidth)"
    )
    cut = browser.run(
        "return [...document.querySelectorAll('.wide :is(td, th)')]"
        ".filter(e => e.scrollWidth > e.clientWidth + 1).map(e => e.outerHTML)"
    )
    assert cut == []


@pytest.mark.parametrize("page", PAGES)
def test_nothing_runs_or_is_loaded_but_the_sites_own(
    page: str, browser: Browser, site: str
) -> None:
    browser.open(f"{site}/{PAGES[page]}")
    loaded = browser.run("return performance.getEntriesByType('resource').map(e => e.name)")
    names = {"base.css", "board.css", "theme.js", "board.js"}
    assert {name.rpartition("/")[2] for name in loaded} == names
    assert all(name.startswith(f"{site}/") for name in loaded)
    assert browser.run("return window.pwned") is None
    assert browser.logged() == []  # the page's policy had nothing to refuse


def test_hovering_and_clicking_hostile_texts_runs_nothing(browser: Browser, site: str) -> None:
    for number in range(len(HOSTILE)):
        browser.open(f"{site}/submissions/team-{1000 + number}-{1000 + number:012x}.html")
        browser.run(
            "for (const e of document.querySelectorAll('main *'))"
            " for (const kind of ['mouseover', 'focus', 'error', 'load'])"
            " e.dispatchEvent(new Event(kind))"
        )
        assert browser.run("return window.pwned") is None
    assert browser.logged() == []


def test_a_click_on_a_heading_sorts_and_a_second_one_turns(browser: Browser, site: str) -> None:
    browser.open(f"{site}/{BOARD}")
    for heading, numeric, high in (
        ("Traffic, MiB", True, False),
        ("FPB", True, True),
        ("Team", False, False),
    ):
        click = (
            "[...document.querySelectorAll('#board th button')]"
            f".find(b => b.textContent === '{heading}').click()"
        )
        seen = []
        for _ in range(2):
            browser.run(click)
            values = column(browser, heading)
            if numeric:
                numbers = [float(value) for value in values]
                seen.append("down" if numbers == sorted(numbers, reverse=True) else
                            "up" if numbers == sorted(numbers) else "none")  # fmt: skip
            else:
                seen.append(browser.run("return document.querySelector('[aria-sort]').ariaSort"))
        wanted = ["down", "up"] if high else ["up", "down"]
        assert seen == (wanted if numeric else ["ascending", "descending"]), heading
        sorted_by = browser.run(
            "return [...document.querySelectorAll('[aria-sort]')].map(e => e.textContent)"
        )
        assert sorted_by == [heading]


def test_what_is_not_known_comes_last_both_ways(browser: Browser, site: str) -> None:
    browser.open(f"{site}/{BOARD}")
    for _ in range(2):
        browser.run(
            "[...document.querySelectorAll('#board th button')]"
            ".find(b => b.textContent === 'Hours').click()"
        )
        last = "return document.querySelector('#board tbody tr:last-child').className"
        assert browser.run(last) == "reference"


def test_the_table_is_sorted_and_filtered_by_keyboard(browser: Browser, site: str) -> None:
    browser.phone(1440, 900)
    browser.open(f"{site}/{BOARD}")
    browser.press(TAB, ENTER)
    assert browser.run("return document.activeElement.id") == "content"  # the skip link
    browser.press(TAB)
    assert browser.run("return document.activeElement.id") == "find"
    browser.press(*"gödel")
    teams = column(browser, "Team")
    assert teams and all("Gödel" in team for team in teams)
    said = browser.run("return document.querySelector('.count').textContent")
    assert said.startswith(f"{len(teams)} of ")
    browser.press(TAB, TAB, SPACE)  # past the tier, to the baselines
    assert browser.run("return document.querySelector('.reference').hidden") is True
    browser.press(TAB, TAB)  # past the table as a whole, to its first heading
    assert browser.run("return document.activeElement.textContent") == "Rank"
    browser.press(ENTER)
    ranks = [int(rank) for rank in column(browser, "Rank")]
    assert ranks == sorted(ranks, reverse=True) and len(ranks) == len(teams)
    outline = "return getComputedStyle(document.activeElement).outlineStyle"
    assert browser.run(outline) != "none"


def test_the_tier_filter_leaves_at_least_that_tier(browser: Browser, site: str) -> None:
    browser.open(f"{site}/{BOARD}")
    everything = len(column(browser, "Team"))
    browser.run(
        "const e = document.getElementById('tier'); e.value = '2';"
        "e.dispatchEvent(new Event('change'))"
    )
    assert set(column(browser, "Tier")) == {"3", "4"}  # replayed, reproduced
    assert len(column(browser, "Team")) < everything


def test_a_phone_sorts_by_a_list(browser: Browser, site: str) -> None:
    browser.phone(320, 800)
    browser.open(f"{site}/{BOARD}")
    visible = "return getComputedStyle(document.getElementById('{}').closest('.phone')).display"
    assert browser.run(visible.format("sort")) != "none"
    browser.run(
        "const e = document.getElementById('sort');"
        "e.value = [...e.options].find(o => o.text === 'Traffic, MiB').value;"
        "e.dispatchEvent(new Event('change'))"
    )
    values = [float(value) for value in column(browser, "Traffic, MiB")]
    assert values == sorted(values)
    browser.run("document.getElementById('turn').click()")
    assert [float(value) for value in column(browser, "Traffic, MiB")] == sorted(
        values, reverse=True
    )


def test_it_is_a_plain_table_without_scripts(driver: int, site: str, tmp_path: Path) -> None:
    browser = Browser(driver, tmp_path / "profile", scripts=False)
    try:
        browser.open(f"{site}/{BOARD}")
        # WebDriver's own scripts run all the same; the page's would not.
        text = browser.run("return document.body.innerText")
        buttons = browser.run(
            "return [...document.querySelectorAll('button, input, select')]"
            ".filter(e => e.offsetParent !== null).length"
        )
        ranks = column(browser, "Rank")
    finally:
        browser.close()
    assert buttons == 0
    assert "published baseline" in text and "Gödel" in text
    assert [int(rank) for rank in ranks] == sorted(map(int, ranks))


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("page", ["board", "submission", "refused"])
def test_text_has_contrast(page: str, dark: bool, browser: Browser, site: str) -> None:
    """At least 4.5 to 1 (WCAG 2 AA) for all text, in light and in dark."""
    browser.scheme("dark" if dark else "light")
    browser.open(f"{site}/{PAGES[page]}")
    browser.run("document.querySelectorAll('details').forEach(one => one.open = true)")
    pairs = browser.run(
        """
        const back = e => {
          for (; e; e = e.parentElement) {
            const color = getComputedStyle(e).backgroundColor;
            if (!color.endsWith(', 0)')) return color;
          }
          return 'rgb(255, 255, 255)';
        };
        const ink = e => { const s = getComputedStyle(e); return e.closest('svg') ? s.fill : s.color; };
        const texts = [...document.querySelectorAll('body *')].filter(e =>
          !e.matches('title, desc, option') && [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim()));
        return [...new Set(texts.map(e => ink(e) + '|' + back(e)))];
        """  # noqa: E501
    )
    assert len(pairs) >= 4
    for pair in pairs:
        ink, back = pair.split("|")
        assert contrast(ink, back) >= 4.5, pair
    body = browser.run("return getComputedStyle(document.body).backgroundColor")
    assert (luminance(body) < 0.5) is dark


def test_the_switch_stays_on_the_next_page(browser: Browser, site: str) -> None:
    browser.scheme("light")
    browser.open(f"{site}/index.html")
    color = "return getComputedStyle(document.body).backgroundColor"
    light = browser.run(color)
    try:
        browser.run("document.getElementById('theme').click()")
        dark = browser.run(color)
        assert luminance(dark) < 0.1 < luminance(light)
        assert browser.run("return document.getElementById('theme').textContent") == "Light"
        browser.open(f"{site}/{BOARD}")
        assert browser.run(color) == dark
        browser.run("document.getElementById('theme').click()")
        assert browser.run(color) == light
    finally:
        browser.run("localStorage.clear()")


def test_plots_say_what_they_show(browser: Browser, site: str) -> None:
    browser.open(f"{site}/{BOARD}")
    figures = browser.run(
        "return [...document.querySelectorAll('svg')].map(e => [e.getAttribute('role'),"
        "...e.getAttribute('aria-labelledby').split(' ')"
        ".map(id => document.getElementById(id).textContent)])"
    )
    assert [one[:2] for one in figures] == [
        ["img", "Average against communication"],
        ["img", "Average against parameters"],
    ]
    assert all("efficient frontier" in one[2] for one in figures)
    points = "return document.querySelectorAll('svg')[0].querySelectorAll('circle > title').length"
    assert browser.run(points) == len(column(browser, "Team"))


def test_the_pages_work_from_files(browser: Browser, tmp_path: Path) -> None:
    write_site(tmp_path / "site", "Board", [entry(n, division="open") for n in range(0, 21, 7)], [])
    browser.open(f"file://{tmp_path}/site/{BOARD}")
    assert browser.run("return document.querySelector('.controls').hidden") is False
    assert (
        browser.run("return getComputedStyle(document.body).backgroundColor") != "rgba(0, 0, 0, 0)"
    )
    assert browser.logged() == []
