"""Versions of Python and of the packages that decide a result, and where one came from."""

import json
import platform
import re
from collections.abc import Iterable
from functools import cache
from importlib.metadata import PackageNotFoundError, distributions, version
from typing import Any

PACKAGES = (
    "flwr", "flwr-datasets", "torch", "transformers", "peft", "bitsandbytes", "datasets", "ray",
    "numpy", "safetensors", "tokenizers",
)  # fmt: skip


def package_version(package: str) -> str | None:
    """Return the version that is installed, or None."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def package_versions(packages: Iterable[str] = PACKAGES) -> dict[str, str]:
    """Return the versions of Python and of those of these packages that are installed."""
    versions = {package: package_version(package) for package in packages}
    return {"python": platform.python_version()} | {p: v for p, v in versions.items() if v}


@cache
def installed_packages() -> dict[str, str]:
    """Return the version of every distribution that is installed, by its name; looked at once."""
    found: dict[str, str] = {}
    for one in distributions():
        name = one.metadata["Name"]
        # The first on the path is the one that is imported.
        if name and one.version:
            found.setdefault(_canonical(name), one.version)
    return dict(sorted(found.items()))


def _canonical(name: str) -> str:
    return re.sub("[-_.]+", "-", name).lower()


def read_direct_url(text: str | None) -> dict[str, Any]:
    """Return what a ``direct_url.json`` (PEP 610) says; empty where there is none to read."""
    try:
        origin = json.loads(text or "{}")
    except ValueError:
        return {}
    return origin if isinstance(origin, dict) else {}
