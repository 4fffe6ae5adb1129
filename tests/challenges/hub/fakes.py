"""A hub in this process, with a template of two releases and renders that cost nothing."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from time import sleep

from starlette.testclient import TestClient

from challenges.hub import limits
from challenges.hub.api import Hub, web_app
from challenges.hub.bundle_store import BundleStore
from challenges.hub.catalog import Catalog
from challenges.hub.middleware import Middleware, RateLimit
from challenges.hub.render_cache import RenderCache
from challenges.hub.rendering import Order
from challenges.hub.repository import TemplateRepository
from challenges.hub.upload_store import UploadStore
from tests.templates import commit, git

COPIER = """\
challenge: {type: str, choices: [finance, law], default: finance}
rules: {type: str, choices: [own, other.ai], default: own}
"""
RULES = """\
own:
  version: "1.0.0"
  changes: [{version: "1.0.0", text: "The <first> rules."}]
  budget-mib: 200000
other.ai:
  version: "2.0.0"
  changes: [{version: "2.0.0", text: Others.}]
  budget-mib: 100
"""
FACTS = """\
title: "{title}"
about: questions & answers
official: {official}
dataset: {{name: hub/data}}
supernodes: {{own: 50, other.ai: 0}}
model: some/model
num-server-rounds: 3
fraction-train: 0.5
evaluation: {{sets: [{{set: a, title: A, rows: 5, baseline: "1.00"}}], average: "1.00"}}
"""


def small_template(folder: Path) -> Path:
    """A repository with what the hub reads: release 1.0.0 with finance, release 1.10.0 with law."""
    (folder / "challenges").mkdir(parents=True)
    git(folder, "init", "--quiet")
    (folder / "copier.yml").write_text(COPIER.replace(", law", ""))
    (folder / "challenges/rules.yml").write_text(RULES)
    finance = FACTS.format(title="Finance", official="flowertune-llm-finance")
    (folder / "challenges/finance.yml").write_text(finance)
    commit(folder, "v1.0.0")
    (folder / "copier.yml").write_text(COPIER)
    law = FACTS.format(title="Law & <order>", official="null")
    (folder / "challenges/law.yml").write_text(law)
    commit(folder, "1.10.0")
    git(folder, "tag", "--annotate", "v1.9.0", "v1.0.0^{commit}", "--message", "annotated")
    for tag in ("v2.0.0rc1", "nightly"):
        git(folder, "tag", tag)
    return folder


class Renders:
    """Stands in for rendering, and counts."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.orders: list[Order] = []
        self._lock = Lock()
        self._seconds = seconds

    def __call__(self, order: Order) -> bytes:
        """Return something that names the order."""
        sleep(self._seconds)
        with self._lock:
            self.orders.append(order)
        return f"{order.kind} {order.tag} {order.account}/{order.name} {order.source}".encode()


def client(
    folder: Path,
    renders: Callable[[Order], bytes] | None = None,
    rate: float = 0,
    patience: float = 5,
    uploads: UploadStore | None = None,
) -> TestClient:
    """A client of a hub on `small_template`."""
    return client_of(small_template(folder), renders, rate, patience, uploads)


def client_of(
    template: Path,
    renders: Callable[[Order], bytes] | None = None,
    rate: float = 0,
    patience: float = 5,
    uploads: UploadStore | None = None,
    site: Path | None = None,
    bundles: BundleStore | None = None,
) -> TestClient:
    """A client of a hub on any template."""
    catalog = Catalog(TemplateRepository(template, "unused"))
    catalog.refresh()
    cache = RenderCache(renders or Renders(), ThreadPoolExecutor(4), 10_000, patience)
    hub = Hub(catalog, cache, "https://example.org/template.git", uploads, site, bundles)
    guarded = Middleware(web_app(hub), limits.max_body, RateLimit(rate), requests=100)
    return TestClient(guarded, base_url="http://hub.test", raise_server_exceptions=False)
