"""The members of a zip that every program reads alike: nothing hidden, doubled or left over.

A zip says everything twice, before each member and in its directory, and programs differ in which
of the two they believe. Here both have to agree, and members have to follow each other from the
file's first byte to its directory.
"""

import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import BinaryIO

from submissions.names import problem, shown

_END, _END_64, _LOCATOR = b"PK\x05\x06", b"PK\x06\x06", b"PK\x06\x07"
_LOCAL = struct.Struct("<4s5H3L2H")
_ENCRYPTED, _DESCRIPTOR, _PATCH, _STRONG, _UTF8 = 0x1, 0x8, 0x20, 0x40, 0x800
_FULL_16, _FULL_32 = 0xFFFF, 0xFFFFFFFF
_ZIP64, _UNICODE_NAME = 1, 0x7075
# Sizes, times and owners, as zip programs write them.
_HARMLESS = frozenset({_ZIP64, 0x000A, 0x5455, 0x5855, 0x7855, 0x7875})
_KINDS = {
    0o120000: "a symbolic link",
    0o060000: "a device",
    0o020000: "a device",
    0o010000: "a named pipe",
    0o140000: "a socket",
}
_PIECE = 2**20
_DIRECTORY = 16 * 2**20


class UnusableZip(ValueError):
    """A zip, or a member of it, cannot be used; the text is a sentence without its full stop."""


@dataclass(frozen=True)
class Member:
    """A file in a zip: its name, its sizes in bytes, and where its data begin."""

    name: str
    size: int
    packed: int
    stored: bool
    crc: int
    begin: int


def members(file: BinaryIO, size: int, most: int) -> list[Member]:
    """Return the files of a zip, in the order in which they lie in it.

    Parameters
    ----------
    file
        The zip, open for reading.
    size
        Its bytes.
    most
        How many members it may have.

    Raises
    ------
    UnusableZip
        It is no zip, or one that not every program reads alike.
    """
    directory = _directory(file, size, most)
    found, folders, position = [], list[str](), 0
    for entry in sorted(directory.entries, key=lambda e: e.header_offset):
        if entry.header_offset != position:
            what = "overlap" if entry.header_offset < position else "have a gap between them"
            raise UnusableZip(
                f"it has data that {what} before {shown(entry.orig_filename)}, and members have to "
                "follow each other"
            )
        member, position = _member(file, entry, directory.begin)
        if member is not None:
            found.append(member)
        else:
            folders.append(entry.orig_filename.rstrip("/"))
    if position != directory.begin:
        raise UnusableZip(
            f"it has {directory.begin - position:,} bytes between its last member and its "
            "directory, and nothing may lie there"
        )
    there = {member.name for member in found}
    for folder in folders:
        if folder in there:
            raise UnusableZip(f"{shown(folder)} is a folder and a file")
        if reason := problem(folder):
            raise UnusableZip(f"the name {shown(folder)} of a folder {reason}")
    return found


@dataclass(frozen=True)
class _Directory:
    entries: list[zipfile.ZipInfo]
    begin: int


def _directory(file: BinaryIO, size: int, most: int) -> _Directory:
    tail = _read(file, max(0, size - 22), 22)
    if len(tail) < 22 or not tail.startswith(_END):
        file.seek(0)
        head = file.read(4)
        what = (
            "it has data or a comment behind its end, or is cut off"
            if head == b"PK\x03\x04"
            else "it is no zip"
        )
        raise UnusableZip(f"{what}: a bundle is a zip as `python -m evaluation.submit` writes it")
    disk, start_disk, here, count, length, begin, comment = struct.unpack("<4H2LH", tail[4:])
    end = size - 22
    if comment:
        raise UnusableZip("it has a comment, and a bundle has none")
    locator = _read(file, end - 20, 20) if end >= 20 else b""
    if locator.startswith(_LOCATOR):
        end = end - 20 - 56
        at = struct.unpack("<Q", locator[8:16])[0]
        record = _read(file, end, 56) if end >= 0 else b""
        if at != end or not record.startswith(_END_64):
            raise UnusableZip("its zip64 record is not where its end says it is")
        more, _, _, disk, start_disk, here, count, long, first = struct.unpack(
            "<QHHLLQQQQ", record[4:]
        )
        if more != 44 or _contradict((length, long), (begin, first)):
            raise UnusableZip("its zip64 record and its end contradict each other")
        length, begin = long, first
    elif _FULL_32 in (length, begin) or count == _FULL_16:
        raise UnusableZip("its end names a zip64 record, and it has none")
    if disk or start_disk or here != count:
        raise UnusableZip("it says that it is one of several disks, and a bundle is one file")
    if begin + length != end:
        raise UnusableZip(
            "its directory is not where its end says it is: something was put before or into it"
        )
    if count > most or length > _DIRECTORY:
        raise UnusableZip(f"it has {count:,} members, and at most {most:,} are read")
    entries = _entries(file, begin, length)
    if len(entries) != count:
        raise UnusableZip(f"its end says {count:,} members, and its directory has {len(entries):,}")
    return _Directory(entries, begin)


def _contradict(*pairs: tuple[int, int]) -> bool:
    return any(short not in (_FULL_32, long) for short, long in pairs)


def _entries(file: BinaryIO, begin: int, length: int) -> list[zipfile.ZipInfo]:
    # zipfile reads only the directory here: its copy in memory, with an end that fits it.
    data = _read(file, begin, length)
    count = _count(data)
    end = struct.pack("<4s4H2LH", _END, 0, 0, min(count, _FULL_16), min(count, _FULL_16),
                      len(data), 0, 0)  # fmt: skip
    try:
        with zipfile.ZipFile(BytesIO(data + end)) as opened:
            return opened.infolist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError, struct.error) as error:
        raise UnusableZip(f"its directory is damaged ({error})") from None


def _count(data: bytes) -> int:
    """Return how many entries a directory has, by walking over them."""
    count = position = 0
    while position < len(data):
        if data[position : position + 4] != b"PK\x01\x02" or position + 46 > len(data):
            raise UnusableZip("its directory is damaged")
        name, extra, comment = struct.unpack_from("<3H", data, position + 28)
        position += 46 + name + extra + comment
        count += 1
    if position != len(data):
        raise UnusableZip("its directory is damaged")
    return count


def _member(file: BinaryIO, entry: zipfile.ZipInfo, limit: int) -> tuple[Member | None, int]:
    """Return a member (None for a folder) and where its data end."""
    name = entry.orig_filename
    said = shown(name)
    if "\0" in name:
        raise UnusableZip(f"the name {said} holds a zero byte, where some programs end it")
    if entry.flag_bits & (_ENCRYPTED | _STRONG):
        raise UnusableZip(f"{said} is encrypted, and nothing in a bundle is")
    if entry.flag_bits & _PATCH or entry.compress_type not in (
        zipfile.ZIP_STORED,
        zipfile.ZIP_DEFLATED,
    ):
        raise UnusableZip(
            f"{said} is packed by method {entry.compress_type}, and only stored and deflated "
            "members are read"
        )
    if not name.isascii() and not entry.flag_bits & _UTF8:
        raise UnusableZip(f"{said} does not say that its name is UTF-8")
    kind = (entry.external_attr >> 16) & 0o170000
    if kind in _KINDS:
        raise UnusableZip(f"{said} is {_KINDS[kind]}, and a bundle holds regular files")
    if entry.comment:
        raise UnusableZip(f"{said} has a comment, and nothing in a bundle has one")
    _extra(entry.extra, said)
    begin = _agrees(file, entry, said)
    end = begin + entry.compress_size
    if entry.flag_bits & _DESCRIPTOR:
        end += _descriptor(file, entry, end, said)
    if end > limit:
        raise UnusableZip(f"the data of {said} reach beyond the zip's directory")
    if name.endswith("/"):
        if entry.file_size or entry.compress_size:
            raise UnusableZip(f"{said} is a folder with data")
        return None, end
    stored = entry.compress_type == zipfile.ZIP_STORED
    if stored and entry.file_size != entry.compress_size:
        raise UnusableZip(f"{said} is stored, and its two sizes differ")
    return Member(name, entry.file_size, entry.compress_size, stored, entry.CRC, begin), end


def _agrees(file: BinaryIO, entry: zipfile.ZipInfo, said: str) -> int:
    """Return where a member's data begin; refuse it where its own header says something else."""
    header = _read(file, entry.header_offset, _LOCAL.size)
    if len(header) < _LOCAL.size or not header.startswith(b"PK\x03\x04"):
        raise UnusableZip(f"{said} has no header of its own")
    _, _, flags, method, _, _, crc, packed, size, named, more = _LOCAL.unpack(header)
    rest = _read(file, entry.header_offset + _LOCAL.size, named + more)
    extra = _extra(rest[named:], said)
    wide = extra.get(_ZIP64, b"")
    if _FULL_32 in (size, packed) and len(wide) >= 16:
        size, packed = struct.unpack("<QQ", wide[:16])
    later = bool(flags & _DESCRIPTOR)
    facts = (crc, packed, size)
    own = (entry.CRC, entry.compress_size, entry.file_size)
    name = entry.orig_filename.encode("utf-8" if entry.flag_bits & _UTF8 else "ascii", "replace")
    if (
        flags != entry.flag_bits
        or method != entry.compress_type
        or rest[:named] != name
        # Sizes that follow the data are zero before it, or right already.
        or any(a != b and not (later and a == 0) for a, b in zip(facts, own, strict=True))
    ):
        raise UnusableZip(f"{said} has a header that contradicts the zip's directory")
    return entry.header_offset + _LOCAL.size + named + more


def _descriptor(file: BinaryIO, entry: zipfile.ZipInfo, end: int, said: str) -> int:
    """Return the bytes of the sizes that follow a member's data."""
    own = (entry.CRC, entry.compress_size, entry.file_size)
    data = _read(file, end, 24)
    for mark in (b"PK\x07\x08", b""):
        for form in ("<3L", "<LQQ"):
            width = len(mark) + struct.calcsize(form)
            whole = data.startswith(mark) and len(data) >= width
            if whole and struct.unpack_from(form, data, len(mark)) == own:
                return width
    raise UnusableZip(f"the sizes behind {said} contradict the zip's directory")


def _extra(data: bytes, said: str) -> Mapping[int, bytes]:
    fields: dict[int, bytes] = {}
    while data:
        if len(data) < 4:
            raise UnusableZip(f"{said} has a damaged extra field")
        number, length = struct.unpack_from("<HH", data)
        if len(data) < 4 + length or number in fields:
            raise UnusableZip(f"{said} has a damaged or doubled extra field")
        fields[number], data = data[4 : 4 + length], data[4 + length :]
    if _UNICODE_NAME in fields:
        raise UnusableZip(f"{said} has a second name, which some programs use")
    if other := sorted(fields.keys() - _HARMLESS):
        raise UnusableZip(f"{said} has an extra field ({other[0]:#06x}) that nothing here reads")
    return fields


def content(file: BinaryIO, member: Member) -> Iterator[bytes]:
    """Yield a member's content in pieces; never more bytes than its size says.

    Raises
    ------
    UnusableZip
        Its data are damaged, longer or shorter than they should be, or have another checksum.
    """
    said, left, crc = shown(member.name), member.size, 0
    for piece in _stored(file, member) if member.stored else _inflated(file, member, said):
        left -= len(piece)
        if left < 0:
            raise UnusableZip(f"{said} unpacks to more than the {member.size:,} bytes it names")
        crc = zlib.crc32(piece, crc)
        yield piece
    if left:
        raise UnusableZip(f"{said} unpacks to fewer than the {member.size:,} bytes it names")
    if crc != member.crc:
        raise UnusableZip(f"{said} is damaged: its checksum is not that of its data")


def _stored(file: BinaryIO, member: Member) -> Iterator[bytes]:
    position, end = member.begin, member.begin + member.packed
    while position < end:
        piece = _read(file, position, min(_PIECE, end - position))
        if not piece:
            return
        position += len(piece)
        yield piece


def _inflated(file: BinaryIO, member: Member, said: str) -> Iterator[bytes]:
    stream = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        for piece in _stored(file, member):
            while piece and not stream.eof:
                yield stream.decompress(piece, _PIECE)
                piece = stream.unconsumed_tail
            if stream.eof and (piece or stream.unused_data):
                raise UnusableZip(f"{said} has data behind its end")
        yield stream.flush()
    except zlib.error as error:
        raise UnusableZip(f"{said} is damaged ({error})") from None
    if not stream.eof:
        raise UnusableZip(f"{said} is cut off")


def _read(file: BinaryIO, position: int, length: int) -> bytes:
    file.seek(max(0, position))
    return file.read(max(0, length))
