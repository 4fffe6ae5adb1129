"""evaluation.sandbox.filter: the BPF program, run here by a machine of its few instructions."""

import errno
import re
import struct
from pathlib import Path

import pytest

from evaluation.sandbox import filter as calls
from evaluation.sandbox.filter import MACHINES, SHARED_MAPPING, system_call_filter

ALLOW, KILL, ERRNO = 0x7FFF0000, 0x80000000, 0x00050000


def answer(machine, number, *given, audit=None):
    """What the filter says of a call: 0 (allowed), an error number, or "kill"."""
    audit = MACHINES[machine].audit if audit is None else audit
    data = struct.pack("<IIQ6Q", number, audit, 0, *(*given, *[0] * (6 - len(given))))
    code = list(struct.iter_unpack("=HBBI", system_call_filter(machine) or b""))
    place = held = 0
    while True:
        kind, yes, no, value = code[place]
        place += 1
        if kind == 0x20:
            held = struct.unpack_from("<I", data, value)[0]
        elif kind == 0x54:
            held &= value
        elif kind == 0x06:
            return {ALLOW: 0, KILL: "kill"}.get(value, value - ERRNO)
        else:
            test = {0x15: held == value, 0x25: held > value, 0x45: bool(held & value)}[kind]
            place += yes if test else no


@pytest.mark.parametrize("machine", MACHINES)
def test_what_is_open_and_what_is_not(machine):
    column = MACHINES[machine].column

    def said(name, *given):
        table = {**calls._CLOSED, "socket": calls._SOCKET, "socketpair": calls._SOCKETPAIR}
        table |= {"clone": calls._CLONE, "mmap": calls._MMAP, **calls._NO_ATTRIBUTES}
        return answer(machine, table[name][column], *given)

    read = (0, 63)[column]
    assert answer(machine, read) == 0
    assert answer(machine, read, audit=0x40000003) == "kill"
    assert answer(machine, 0x40000000 + read) == errno.ENOSYS
    assert answer(machine, 462) == 0
    assert answer(machine, 463) == errno.ENOSYS
    for name, numbers in calls._CLOSED.items():
        if numbers[column] is not None:
            assert said(name) == errno.ENOSYS
    assert said("fsetxattr") == errno.EOPNOTSUPP
    # a thread of the C library, a child, one with a user namespace
    assert said("clone", 0x3D0F00) == said("clone", 17) == 0
    assert said("clone", 0x10000011) == said("clone", 0x7E020000) == errno.EPERM
    assert [said("socket", family, 1, 0) for family in (1, 2, 10)] == [0, 0, 0]
    assert [said("socket", 2, 2, protocol) for protocol in (6, 17, 1, 132, 262)] == [
        0, 0, errno.EAFNOSUPPORT, errno.EAFNOSUPPORT, errno.EAFNOSUPPORT
    ]  # fmt: skip
    for family in (0, 16, 17, 38, 40):
        assert said("socket", family, 1, 0) == errno.EAFNOSUPPORT
    assert said("socketpair", 1) == 0
    assert said("socketpair", 2) == errno.EAFNOSUPPORT
    # private, shared with a file, shared without one, huge
    assert said("mmap", 0, 2**40, 3, 0x22) == said("mmap", 0, 2**40, 3, 0x1) == 0
    assert said("mmap", 0, SHARED_MAPPING, 3, 0x21) == 0
    assert said("mmap", 0, SHARED_MAPPING + 1, 3, 0x21) == errno.ENOMEM
    assert said("mmap", 0, 2**32 + 1, 3, 0x21) == errno.ENOMEM
    assert said("mmap", 0, 4096, 3, 0x40022) == errno.ENOMEM


def test_other_machines_have_no_filter():
    assert system_call_filter("s390x") is None


HEADERS = ("/usr/include/x86_64-linux-gnu/asm/unistd_64.h", "/usr/include/asm-generic/unistd.h")


@pytest.mark.parametrize("column", [0, 1])
def test_the_numbers_are_those_of_the_headers(column):
    header = Path(HEADERS[column])
    if not header.exists():
        pytest.skip(f"{header} is not here (apt install linux-libc-dev)")
    known = dict(re.findall(r"#define __NR(?:3264)?_(\w+) (\d+)", header.read_text()))
    table = {**calls._CLOSED, **calls._NO_ATTRIBUTES, "socket": calls._SOCKET}
    table |= {"socketpair": calls._SOCKETPAIR, "clone": calls._CLONE, "mmap": calls._MMAP}
    # newer than the header, or of another form there
    compared = {name: pair[column] for name, pair in table.items() if name in known}
    assert len(compared) >= 70
    assert compared == {name: int(known[name]) for name in compared}
