"""Versions of Python and of the packages that decide a result."""

import platform
from importlib.metadata import PackageNotFoundError, version

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


def package_versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that decide a result."""
    found = {package: package_version(package) for package in PACKAGES}
    return {"python": platform.python_version()} | {p: v for p, v in found.items() if v}
