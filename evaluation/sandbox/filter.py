"""The filter of system calls: what a program in the sandbox cannot ask of the kernel.

Limits on memory hold only if all of it is counted. So whatever keeps memory where nothing counts
it is closed (memfd, System V segments, message queues, pages given to a pipe), and with it what
no honest program needs and attacks on the kernel begin with: new namespaces, mounts, io_uring,
keys, tracing, sockets other than Unix and TCP or UDP. Calls newer than this list do not exist.

The filter is a program for seccomp in classic BPF: https://docs.kernel.org/userspace-api/seccomp_filter.html
"""

import errno
import platform
import struct
from dataclasses import dataclass

SHARED_MAPPING = 16 * 2**20  # bytes of one shared mapping without a file

# numbers of x86_64; of the table that newer machines share; from 424 on all have the same
_CLOSED = {
    "acct": (163, 89),
    "add_key": (248, 217),
    "adjtimex": (159, 171),
    "bpf": (321, 280),
    "chroot": (161, 51),
    "clock_adjtime": (305, 266),
    "clock_settime": (227, 112),
    # its flags lie in memory, which a filter cannot read; C libraries fall back on clone
    "clone3": (435, 435),
    "create_module": (174, None),
    "delete_module": (176, 106),
    "fanotify_init": (300, 262),
    "fanotify_mark": (301, 263),
    "finit_module": (313, 273),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fsopen": (430, 430),
    "fspick": (433, 433),
    "init_module": (175, 105),
    "inotify_init": (253, None),
    "inotify_init1": (294, 26),
    "io_cancel": (210, 3),
    "io_destroy": (207, 1),
    "io_getevents": (208, 4),
    "io_pgetevents": (333, 292),
    "io_setup": (206, 0),
    "io_submit": (209, 2),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "io_uring_setup": (425, 425),
    "ioperm": (173, None),
    "iopl": (172, None),
    "kcmp": (312, 272),
    "kexec_file_load": (320, 294),
    "kexec_load": (246, 104),
    "keyctl": (250, 219),
    "lookup_dcookie": (212, 18),
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "modify_ldt": (154, None),
    "mount": (165, 40),
    "mount_setattr": (442, 442),
    "move_mount": (429, 429),
    "mq_getsetattr": (245, 185),
    "mq_notify": (244, 184),
    "mq_open": (240, 180),
    "mq_timedreceive": (243, 183),
    "mq_timedsend": (242, 182),
    "mq_unlink": (241, 181),
    "msgctl": (71, 187),
    "msgget": (68, 186),
    "msgrcv": (70, 188),
    "msgsnd": (69, 189),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "open_tree": (428, 428),
    "perf_event_open": (298, 241),
    "personality": (135, 92),
    "pidfd_getfd": (438, 438),
    "pivot_root": (155, 41),
    "process_madvise": (440, 440),
    "process_mrelease": (448, 448),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "ptrace": (101, 117),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "reboot": (169, 142),
    "request_key": (249, 218),
    "semctl": (66, 191),
    "semget": (64, 190),
    "semop": (65, 193),
    "semtimedop": (220, 192),
    "setdomainname": (171, 162),
    "sethostname": (170, 161),
    "setns": (308, 268),
    "settimeofday": (164, 170),
    "shmat": (30, 196),
    "shmctl": (31, 195),
    "shmdt": (67, 197),
    "shmget": (29, 194),
    "swapoff": (168, 225),
    "swapon": (167, 224),
    "syslog": (103, 116),
    "umount2": (166, 39),
    "unshare": (272, 97),
    "uselib": (134, None),
    "userfaultfd": (323, 282),
    "vhangup": (153, 58),
    "vmsplice": (278, 75),
}
# attributes of files are memory, too; copying a file goes on without them
_NO_ATTRIBUTES = {"setxattr": (188, 5), "lsetxattr": (189, 6), "fsetxattr": (190, 7)}
_SOCKET, _SOCKETPAIR, _CLONE, _MMAP = (41, 198), (53, 199), (56, 220), (9, 222)
_LAST = 462  # mseal, of Linux 6.10

_NEW_NAMESPACES = 0x7E020000  # any CLONE_NEW… flag of clone
_UNIX, _INET, _INET6 = 1, 2, 10
_PROTOCOLS = (0, 6, 17)  # the family's own, TCP, UDP
_MAP_SHARED, _MAP_ANONYMOUS, _MAP_HUGETLB = 0x1, 0x20, 0x40000

_LOAD, _EQUAL, _GREATER, _ANY_BIT, _AND, _RETURN = 0x20, 0x15, 0x25, 0x45, 0x54, 0x06
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_NUMBER, _MACHINE = 0, 4  # offsets in what a filter sees of a call


@dataclass(frozen=True)
class Machine:
    """A kind of machine as the kernel names it, and its column in the tables of numbers."""

    audit: int
    column: int


MACHINES = {
    "x86_64": Machine(0xC000003E, 0),
    "aarch64": Machine(0xC00000B7, 1),
    "riscv64": Machine(0xC00000F3, 1),
}


def system_call_filter(machine: str | None = None) -> bytes | None:
    """Return the filter as an array of ``struct sock_filter``; None where none is known.

    Parameters
    ----------
    machine
        As ``platform.machine()`` names it; this one by default.
    """
    found = MACHINES.get(machine or platform.machine())
    if found is None:
        return None
    code = [
        # other tables of calls (32-bit programs) are closed as a whole
        (_LOAD, 0, 0, _MACHINE),
        (_EQUAL, 1, 0, found.audit),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER),
        # the calls of x32 have high numbers
        (_GREATER, 0, 1, _LAST),
        (_RETURN, 0, 0, _ERRNO | errno.ENOSYS),
    ]
    for table, error in ((_CLOSED, errno.ENOSYS), (_NO_ATTRIBUTES, errno.EOPNOTSUPP)):
        for numbers in table.values():
            if numbers[found.column] is not None:
                code += [(_EQUAL, 0, 1, numbers[found.column]), (_RETURN, 0, 0, _ERRNO | error)]
    for numbers, block in (
        (_CLONE, _clone()),
        (_SOCKET, _socket()),
        (_SOCKETPAIR, _socketpair()),
        (_MMAP, _mmap()),
    ):
        code += [(_EQUAL, 0, len(block), numbers[found.column]), *block]
    code.append((_RETURN, 0, 0, _ALLOW))
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in code)


# Each of these blocks ends in a return, so that the number of the call need not be loaded again.


def _clone():
    return [
        (_LOAD, 0, 0, _argument(0)),
        (_ANY_BIT, 0, 1, _NEW_NAMESPACES),
        (_RETURN, 0, 0, _ERRNO | errno.EPERM),
        (_RETURN, 0, 0, _ALLOW),
    ]


def _socket():
    return [
        (_LOAD, 0, 0, _argument(0)),
        (_EQUAL, 6, 0, _UNIX),
        (_EQUAL, 1, 0, _INET),
        (_EQUAL, 0, 5, _INET6),
        (_LOAD, 0, 0, _argument(2)),
        *[(_EQUAL, 2 - n, 0, protocol) for n, protocol in enumerate(_PROTOCOLS[:-1])],
        (_EQUAL, 0, 1, _PROTOCOLS[-1]),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _ERRNO | errno.EAFNOSUPPORT),
    ]


def _socketpair():
    return [
        (_LOAD, 0, 0, _argument(0)),
        (_EQUAL, 0, 1, _UNIX),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _ERRNO | errno.EAFNOSUPPORT),
    ]


def _mmap():
    """No huge pages, which no limit counts; a shared mapping without a file has a size."""
    return [
        (_LOAD, 0, 0, _argument(3)),
        (_ANY_BIT, 7, 0, _MAP_HUGETLB),
        (_AND, 0, 0, _MAP_SHARED | _MAP_ANONYMOUS),
        (_EQUAL, 0, 4, _MAP_SHARED | _MAP_ANONYMOUS),
        (_LOAD, 0, 0, _argument(1) + 4),
        (_EQUAL, 0, 3, 0),
        (_LOAD, 0, 0, _argument(1)),
        (_GREATER, 1, 0, SHARED_MAPPING),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _ERRNO | errno.ENOMEM),
    ]


def _argument(number: int) -> int:
    """Offset of the lower half of an argument, on machines that put it first."""
    return 16 + 8 * number
