"""Whether the files of a model's folder are whole, before any of them is loaded."""

import json
import struct
import zipfile
from pathlib import Path

SAFETENSORS = "model.safetensors"
PICKLED = "pytorch_model.bin"
WEIGHTS = (SAFETENSORS, f"{SAFETENSORS}.index.json", PICKLED, f"{PICKLED}.index.json")
_POINTER = b"version https://git-lfs"
_READ_BY_NAME = (
    "config.json", "generation_config.json", "tokenizer.model", "tokenizer.json",
    "tokenizer_config.json",
)  # fmt: skip
_HEADER_BYTES = 100 * 2**20  # the most that the safetensors library reads


def problem_of(folder: Path, needed: bool = True) -> str | None:
    """Return what is wrong with a model's files, a clause; None where nothing is seen to be.

    Only beginnings and sizes of files are read, so this takes no time even for large models.

    Parameters
    ----------
    needed : bool
        Whether the weights must be there.
    """
    for name in _READ_BY_NAME:
        if _is_pointer(folder / name):
            return _pointer(name)
    chosen = next((name for name in WEIGHTS if (folder / name).is_file()), None)
    if chosen is None:
        return f"{folder} holds no weights ({SAFETENSORS} or the like)" if needed else None
    names = [chosen]
    if chosen.endswith(".index.json"):
        try:
            mapped = json.loads((folder / chosen).read_bytes())["weight_map"]
            names = sorted({str(name) for name in mapped.values()})
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            pointer = _is_pointer(folder / chosen)
            return _pointer(chosen) if pointer else f"its {chosen} is damaged"
    for name in names:
        # A name with a folder in it, or of a link that leads elsewhere, is the owner's affair.
        if not (folder / name).is_file():
            return f"its {chosen} names {name}, which is not in {folder}"
        if _is_pointer(folder / name):
            return _pointer(name)
        damage = _damage(folder / name)
        if damage:
            return f"its {name} {damage}"
    return None


def _damage(file: Path) -> str | None:
    if not file.name.endswith(".safetensors"):
        # What torch.save writes is a zip file, whose directory is at its end; once, a pickle.
        with file.open("rb") as opened:
            pickled = opened.read(1) == b"\x80"
        whole = pickled or zipfile.is_zipfile(file)
        return None if whole else "is cut short, or no file that torch.save wrote"
    size = file.stat().st_size
    with file.open("rb") as opened:
        start = opened.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        if not 2 <= length <= _HEADER_BYTES:
            return "is no safetensors file"
        header = opened.read(length)
    if len(header) < length:
        return f"is cut short ({size:,} bytes, and its header alone has {8 + length:,})"
    try:
        entries = {k: v for k, v in json.loads(header).items() if k != "__metadata__"}
        end = max((int(entry["data_offsets"][1]) for entry in entries.values()), default=0)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError):
        return "is no safetensors file"
    wanted = 8 + length + end
    if size < wanted:
        return f"is cut short ({size:,} of {wanted:,} bytes)"
    return None if size == wanted else f"has {size - wanted:,} bytes more than its header says"


def _is_pointer(file: Path) -> bool:
    if not file.is_file():
        return False
    with file.open("rb") as opened:
        return opened.read(len(_POINTER)) == _POINTER


def _pointer(name: str) -> str:
    return f"its {name} is a Git LFS pointer and not the file: run `git lfs pull` in the folder"
