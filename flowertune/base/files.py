"""Files and folders that are there whole or not at all, and durable once they are there."""

import errno
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import Any


def flower_home(env: Mapping[str, str]) -> Path:
    """Flower's folder: ``FLWR_HOME`` where it is set, else ``~/.flwr``."""
    given = env.get("FLWR_HOME")
    return Path(given) if given else Path.home() / ".flwr"


def sync(path: Path) -> None:
    """Make a file's or a folder's content durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_atomically(path: Path, content: str | bytes) -> None:
    """Replace the content of ``path``: a reader sees the old content or the new, never a part.

    A symlink stays one (the file it points to is replaced) and the file keeps its mode.

    Raises
    ------
    OSError
        The folder cannot be written or the disk is full; the old file is untouched.
    """
    target = path.resolve()
    target.parent.mkdir(parents=True, exist_ok=True)
    mode = target.stat().st_mode & 0o7777 if target.exists() else 0o666 & ~_umask()
    data = content.encode("utf-8") if isinstance(content, str) else content
    handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, mode)
        os.replace(temporary, target)
        sync(target.parent)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """Yield a folder to fill, which takes the place of ``target`` when the block ends well.

    Its files are made durable first; the last step is a rename, so whoever is killed leaves the
    old folder, the new one, or none. A block that fails leaves ``target`` as it was.

    Raises
    ------
    OSError
        The disk is full, or the folder cannot be written.
    """
    half = target.with_name(f".{target.name}.part")
    shutil.rmtree(half, ignore_errors=True)
    half.mkdir(parents=True)
    try:
        yield half
        replace_folder(half, target)
    except BaseException:
        shutil.rmtree(half, ignore_errors=True)
        raise


def replace_folder(part: Path, target: Path) -> None:
    """Make the files of the folder ``part`` durable, and put it in the place of ``target``.

    Raises
    ------
    OSError
        The disk is full, or the folder cannot be written.
    """
    old = target.with_name(f".{target.name}.old")
    for path in part.iterdir():
        sync(path)
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        os.replace(target, old)
    os.replace(part, target)
    sync(target.parent)
    shutil.rmtree(old, ignore_errors=True)


def replace_file(part: Path, target: Path) -> None:
    """Make the file ``part`` durable, and put it in the place of ``target``.

    Raises
    ------
    OSError
        The disk is full, or the folder cannot be written.
    """
    sync(part)
    os.replace(part, target)
    sync(target.parent)


def write_json(path: Path, body: Mapping[str, Any]) -> None:
    """Write a JSON object for people and tools, whole."""
    write_atomically(path, json.dumps(dict(body), indent=2, sort_keys=True) + "\n")


def write_jsonl(path: Path, lines: Iterable[Mapping[str, Any]]) -> None:
    """Write a JSONL file anew, whole."""
    text = "".join(json.dumps(dict(line), sort_keys=True) + "\n" for line in lines)
    write_atomically(path, text)


def open_regular(path: Path, flags: int = 0) -> BufferedReader:
    """Open a regular file to read it; a named pipe or a device could be waited for.

    Parameters
    ----------
    flags : int
        More flags for ``os.open``.

    Raises
    ------
    OSError
        If it cannot be read, or is no regular file.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | flags)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is no regular file", str(path))
    return os.fdopen(descriptor, "rb")


def read_text(path: Path, errors: str = "strict") -> str:
    """Return the text of a regular file, in UTF-8.

    Parameters
    ----------
    errors : str
        What to do about bytes that are no UTF-8, as for ``bytes.decode``.

    Raises
    ------
    OSError
        If it cannot be read, or is no regular file.
    UnicodeDecodeError
        If it is no UTF-8.
    """
    with open_regular(path) as file:
        return file.read().decode("utf-8", errors)


def parse_json(text: str) -> Any:
    """Return the value of a JSON text; a lone half of a surrogate pair becomes a question mark.

    Raises
    ------
    ValueError, RecursionError
        If it is no JSON, or nested too deep.
    """
    value = json.loads(text)
    if "\\ud" in text.lower():
        # Such a half can be neither printed nor written to a file.
        whole = json.dumps(value, ensure_ascii=False).encode("utf-8", "replace")
        value = json.loads(whole.decode("utf-8"))
    return value


def read_json(path: Path) -> dict[str, Any] | None:
    """Return the JSON object that a file holds; None where there is no such file or object."""
    try:
        body = parse_json(read_text(path))
    except (OSError, ValueError, RecursionError):
        return None
    return body if isinstance(body, dict) else None


def json_objects(lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    """Yield the JSON object of each line; blank lines are passed over.

    Raises
    ------
    ValueError
        A line holds something else; gives its number.
    """
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            body = parse_json(line)
        except (ValueError, RecursionError):
            body = None
        if not isinstance(body, dict):
            raise ValueError(f"line {number} is not a JSON object")
        yield body


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """Return the objects of a JSONL file that this library wrote; none if there is no file.

    A last line without its line break, as a kill leaves one, is left out.

    Raises
    ------
    ValueError
        It cannot be read, or another line is no JSON object; names the file and the line.
    """
    try:
        lines = read_text(path).split("\n")
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text in UTF-8"
        raise ValueError(f"{path} cannot be read: {reason}") from None
    try:
        return list(json_objects(lines[:-1]))
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}") from None


def save_tensors(
    tensors: Mapping[str, Any], path: Path, metadata: dict[str, str] | None = None
) -> None:
    """Write torch tensors to a safetensors file, readable by whoever may read its folder.

    Raises
    ------
    OSError
        If it cannot be written; names the file.
    """
    # Late: what only reads and writes settings and text does without torch.
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    # A strategy may keep one tensor under two names, and safetensors refuses shared memory.
    seen: set[int] = set()
    own = {}
    for name, tensor in tensors.items():
        dense = tensor.to_dense().contiguous()
        memory = dense.untyped_storage().data_ptr()
        own[name] = dense.clone() if memory in seen else dense
        seen.add(memory)
    try:
        save_file(own, path, metadata=metadata)
    except SafetensorError as error:
        raise OSError(errno.EIO, str(error), str(path)) from error
    path.chmod(path.parent.stat().st_mode & 0o666)


def _umask() -> int:
    # the only portable way to read the mask is to set it
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
