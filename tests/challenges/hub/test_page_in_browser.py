"""The hub's page in a real browser: it fits a phone, reads without scripts, and loads nothing else.

Needs chromium and chromedriver (Debian: chromium, chromium-driver); skipped where they are not.
"""

import base64
import json
import os
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import challenges
from tests.challenges.hub.running import RunningHub

DRIVER, CHROMIUM = shutil.which("chromedriver"), shutil.which("chromium")
pytestmark = pytest.mark.skipif(not (DRIVER and CHROMIUM), reason="needs chromium and chromedriver")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-sync",
    "--disable-background-networking",
    "--disable-component-update",
]


class Browser:
    """The little of WebDriver that these tests need."""

    def __init__(self, port: int, profile: Path, scripts: bool) -> None:
        self._base = f"http://127.0.0.1:{port}"
        setting = {"profile.managed_default_content_settings.javascript": 1 if scripts else 2}
        options = {
            "binary": CHROMIUM,
            "args": [*FLAGS, f"--user-data-dir={profile}"],
            "prefs": setting,
        }
        wanted = {"capabilities": {"alwaysMatch": {"goog:chromeOptions": options}}}
        made = self._call("POST", "/session", wanted)
        self._base += f"/session/{made['sessionId']}"

    def _call(self, method: str, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._base + path, data, method=method)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)["value"]

    def phone(self, width: int, height: int) -> None:
        """Be a screen of this many CSS pixels (a window cannot be narrower than 500)."""
        size = {"width": width, "height": height, "deviceScaleFactor": 2, "mobile": True}
        self.tell("Emulation.setDeviceMetricsOverride", **size)

    def scheme(self, name: str) -> None:
        """Prefer this color scheme."""
        feature = {"name": "prefers-color-scheme", "value": name}
        self.tell("Emulation.setEmulatedMedia", features=[feature])

    def as_started(self) -> None:
        """Be no phone, prefer nothing, have nothing kept and nothing open."""
        self.tell("Emulation.clearDeviceMetricsOverride")
        self.tell("Emulation.setEmulatedMedia", features=[])
        self.tell("Network.clearBrowserCache")
        self.open("about:blank")

    def tell(self, command: str, **params: Any) -> None:
        """Give a command of the DevTools protocol."""
        self._call("POST", "/goog/cdp/execute", {"cmd": command, "params": params})

    def open(self, address: str) -> None:
        self._call("POST", "/url", {"url": address})

    def run(self, script: str) -> Any:
        return self._call("POST", "/execute/sync", {"script": script, "args": []})

    def screenshot(self, file: Path) -> None:
        file.write_bytes(base64.b64decode(self._call("GET", "/screenshot")))

    def close(self) -> None:
        self._call("DELETE", "")


@pytest.fixture(scope="module")
def driver() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [str(DRIVER), f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    for _ in range(100):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.1)
    yield port
    process.terminate()
    process.wait(10)


@pytest.fixture(scope="module")
def opened(driver: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    browser = Browser(driver, tmp_path_factory.mktemp("browser") / "profile", scripts=True)
    yield browser
    browser.close()


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
        light, dim = sorted((luminance(ink), luminance(back)), reverse=True)
        assert (light + 0.05) / (dim + 0.05) >= 4.5
    assert (luminance(pairs[0][1]) < 0.5) is dark
    if folder := os.environ.get("HUB_SCREENSHOTS"):
        browser.screenshot(Path(folder) / f"hub-{'dark' if dark else 'light'}.png")


def luminance(color: str) -> float:
    """Relative luminance of "rgb(r, g, b)", as WCAG defines it."""
    parts = [int(part) / 255 for part in color[color.index("(") + 1 : -1].split(",")[:3]]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
