"""A real browser, as far as tests of pages need one: chromium, told what to do by chromedriver.

Debian: chromium, chromium-driver. Modules that import the fixtures are skipped where they are not.
"""

import base64
import json
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

DRIVER, CHROMIUM = shutil.which("chromedriver"), shutil.which("chromium")
needs_browser = pytest.mark.skipif(
    not (DRIVER and CHROMIUM), reason="needs chromium and chromedriver"
)
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
        wanted = {
            "capabilities": {
                "alwaysMatch": {
                    "goog:chromeOptions": options,
                    "goog:loggingPrefs": {"browser": "ALL"},
                }
            }
        }
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

    def tell(self, command: str, **params: Any) -> Any:
        """Give a command of the DevTools protocol; return what it answers."""
        return self._call("POST", "/goog/cdp/execute", {"cmd": command, "params": params})

    def open(self, address: str) -> None:
        self._call("POST", "/url", {"url": address})

    def run(self, script: str) -> Any:
        return self._call("POST", "/execute/sync", {"script": script, "args": []})

    def press(self, *keys: str) -> None:
        """Press keys one after the other: characters, or WebDriver's code points for others."""
        downs = [{"type": kind, "value": key} for key in keys for kind in ("keyDown", "keyUp")]
        self._call("POST", "/actions", {"actions": [{"type": "key", "id": "k", "actions": downs}]})

    def whole(self, file: Path) -> None:
        """Take a picture of the whole page, not only of what the screen shows."""
        made = self.tell("Page.captureScreenshot", captureBeyondViewport=True)
        file.write_bytes(base64.b64decode(made["data"]))

    def logged(self) -> list[str]:
        """What the browser's console has said since the last call."""
        return [entry["message"] for entry in self._call("POST", "/se/log", {"type": "browser"})]

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


def luminance(color: str) -> float:
    """Relative luminance of "rgb(r, g, b)", as WCAG defines it."""
    parts = [int(part) / 255 for part in color[color.index("(") + 1 : -1].split(",")[:3]]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(ink: str, back: str) -> float:
    """How well a color stands out from another, as WCAG defines it: 1 to 21."""
    light, dim = sorted((luminance(ink), luminance(back)), reverse=True)
    return (light + 0.05) / (dim + 0.05)
