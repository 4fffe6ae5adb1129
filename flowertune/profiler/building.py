"""Build the app's package: as setuptools does, and with the line that brings `flwr profile`.

The build backend of the app's pyproject.toml. setuptools has no way to put a file beside the
packages, which is where Python looks for lines to run when it starts; so this adds one to the
wheel that setuptools made, editable or not. pip installs and uninstalls it with the app.

Every app has this package under the same name, `flowertune`. Where two of them are installed into
one environment (not editable), uninstalling one takes files of the other with it; the command is
therefore read from a copy under a name that no other app has.
"""

import base64
import hashlib
import os
import re
import zipfile
from pathlib import Path
from typing import Any

from setuptools import build_meta
from setuptools.build_meta import (
    build_sdist,
    get_requires_for_build_editable,
    get_requires_for_build_sdist,
    get_requires_for_build_wheel,
    prepare_metadata_for_build_editable,
    prepare_metadata_for_build_wheel,
)

__all__ = [
    "build_editable",
    "build_sdist",
    "build_wheel",
    "get_requires_for_build_editable",
    "get_requires_for_build_sdist",
    "get_requires_for_build_wheel",
    "prepare_metadata_for_build_editable",
    "prepare_metadata_for_build_wheel",
]

PACKAGE = "flowertune"
COPIED = re.compile(rf"{PACKAGE}/profiling/\w+\.py")
# Only a process called flwr does more than compare a name; and nothing may keep it from starting.
AT_START = """\
import os
if os.path.basename((getattr(sys, "argv", None) or [""])[0]) in ("flwr", "flwr.exe"):
    try:
        from {module} import install
        install()
    except Exception:
        pass
"""


def build_wheel(
    wheel_directory: str,
    config_settings: dict[str, Any] | None = None,
    metadata_directory: str | None = None,
) -> str:
    """Build the wheel that ``pip install .`` installs."""
    name = build_meta.build_wheel(wheel_directory, config_settings, metadata_directory)
    _complete(Path(wheel_directory, name), copied=True)
    return name


def build_editable(
    wheel_directory: str,
    config_settings: dict[str, Any] | None = None,
    metadata_directory: str | None = None,
) -> str:
    """Build the wheel that ``pip install -e .`` installs: it points to this folder."""
    name = build_meta.build_editable(wheel_directory, config_settings, metadata_directory)
    _complete(Path(wheel_directory, name), copied=False)
    return name


def _complete(wheel: Path, copied: bool) -> None:
    project = wheel.name.split("-")[0]
    own = f"_{project}_profiling"
    half = wheel.with_suffix(".part")
    with zipfile.ZipFile(wheel) as before, zipfile.ZipFile(half, "w", zipfile.ZIP_DEFLATED) as new:
        record = next(name for name in before.namelist() if name.endswith(".dist-info/RECORD"))
        module = f"{own}.hook" if copied else f"{PACKAGE}.profiling.hook"
        # After the line of an editable install that says where the package is.
        added = {f"zz_{project}_profile.pth": line(module)}
        for info in before.infolist():
            if info.filename == record:
                continue
            data = before.read(info)
            new.writestr(info, data)
            if copied and COPIED.fullmatch(info.filename):
                text = data.decode().replace(f"{PACKAGE}.profiling", own)
                added[f"{own}/{info.filename.rpartition('/')[2]}"] = text
        lines = before.read(record).decode()
        for name, text in added.items():
            new.writestr(name, text)
            lines += f"{name},sha256={_digest(text)},{len(text.encode())}\n"
        new.writestr(record, lines)
    os.replace(half, wheel)


def line(module: str) -> str:
    """Return the line that runs ``install`` of a module where Python starts as ``flwr``."""
    # A file of this kind may only have lines of paths, and lines that begin with an import.
    return f"import sys; exec({AT_START.format(module=module)!r})\n"


def _digest(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
