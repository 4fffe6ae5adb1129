"""Write a folder's worth of files as a zip: the same files give the same bytes."""

import hashlib
import zipfile
from collections.abc import Mapping
from pathlib import Path
from tempfile import NamedTemporaryFile

from flowertune.base.files import replace_file
from flowertune.base.hashing import file_sha256
from submissions import layout

Content = bytes | Path
_TIME = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip can say
_MODE = 0o100644 << 16
_PIECE = 2**20
UNSUMMED = (layout.SUMS, layout.SIGNATURE, layout.MODEL_SIGNATURE)


def sha256_of(content: Content) -> str:
    """Return the sha256 of bytes, or of a file's, in hex."""
    if isinstance(content, bytes):
        return hashlib.sha256(content).hexdigest()
    return file_sha256(content)


def sums(files: Mapping[str, Content]) -> bytes:
    """Return SHA256SUMS of these files, as ``sha256sum`` writes it; signatures are left out."""
    names = sorted(name for name in files if name not in UNSUMMED)
    return "".join(f"{sha256_of(files[name])}  {name}\n" for name in names).encode("utf-8")


def write_zip(target: Path, files: Mapping[str, Content]) -> None:
    """Write files to a zip, whole or not at all, in the order of their names.

    Raises
    ------
    OSError
        A file cannot be read, or the zip cannot be written.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with NamedTemporaryFile(dir=target.parent, prefix=f".{target.name}.", delete=False) as part:
        half = Path(part.name)
    try:
        with zipfile.ZipFile(half, "w") as archive:
            for name in sorted(files):
                _add(archive, name, files[name])
        half.chmod(0o644)
        replace_file(half, target)
    except BaseException:
        half.unlink(missing_ok=True)
        raise


def _add(archive: zipfile.ZipFile, name: str, content: Content) -> None:
    info = zipfile.ZipInfo(name, _TIME)
    info.create_system, info.external_attr = 3, _MODE
    # Weights do not get smaller, and they are most of the bytes.
    dense = name.endswith(".safetensors")
    info.compress_type = zipfile.ZIP_STORED if dense else zipfile.ZIP_DEFLATED
    if isinstance(content, bytes):
        archive.writestr(info, content)
        return
    info.file_size = content.stat().st_size
    with content.open("rb") as source, archive.open(info, "w") as member:
        while piece := source.read(_PIECE):
            member.write(piece)
