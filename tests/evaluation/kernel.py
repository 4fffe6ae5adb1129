"""Programs that ask the kernel directly: for what a sandbox closes, and for memory out of sight."""

import sys

# numbers of x86_64 and of the other machines, and arguments with which an open call succeeds
CALLS = {
    "add_key": ((248, 217), "b'user', b'planted', b'word', 4, -3"),
    "bpf": ((321, 280), "0, room(128), 128"),
    "clone with a user namespace": ((56, 220), "0x10000011, 0, 0, 0, 0"),
    "fsopen": ((430, 430), "b'tmpfs', 0"),
    "inotify_init1": ((294, 26), "0"),
    "io_setup": ((206, 0), "8, room(8)"),
    "io_uring_setup": ((425, 425), "8, room(120)"),
    "kcmp": ((312, 272), "me, me, 0, 0, 0"),
    "keyctl": ((250, 219), "0, -3, 1"),
    "memfd_create": ((319, 279), "b'x', 0"),
    "mq_open": ((240, 180), "b'x', 0o102, 0o600, None"),
    "msgget": ((68, 186), "0, 0o1600"),
    "name_to_handle_at": ((303, 264), "-100, b'/tmp', bytes_of(128, 136), room(8), 0"),
    "personality": ((135, 92), "0x40000"),
    "perf_event_open": ((298, 241), "perf(), 0, -1, -1, 0"),
    "pidfd_getfd": ((438, 438), "os.pidfd_open(me), 1, 0"),
    "process_vm_readv": ((310, 270), "me, None, 0, None, 0, 0"),
    "ptrace": ((101, 117), "0, 0, 0, 0"),
    "request_key": ((249, 218), "b'user', b'planted', None, -3"),
    "semget": ((64, 190), "0, 1, 0o1600"),
    "setns": ((308, 268), "os.open('/proc/self/ns/user', 0), 0"),
    "shmget": ((29, 194), "0, 4096, 0o1600"),
    "unshare": ((272, 97), "0x10000000"),
    "userfaultfd": ((323, 282), "1"),
    "vmsplice": ((278, 75), "os.pipe()[1], None, 0, 0"),
}
SOCKETS = {
    "AF_NETLINK": (16, 3, 0),
    "AF_PACKET": (17, 3, 0),
    "AF_ALG": (38, 5, 0),
    "AF_VSOCK": (40, 1, 0),
    "ping": (2, 2, 1),
    "SCTP": (2, 1, 132),
    "MPTCP": (2, 1, 262),
}
DEVICES = ("/dev/ptmx", "/dev/pts/ptmx", "/dev/zero", "/dev/kmsg", "/dev/fuse", "/dev/tty")

TOOLS = """
import ctypes, mmap, os, posix, signal, socket, struct, threading, time
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
libc.mmap.restype = ctypes.c_void_p
me, MB = os.getpid(), 1 << 20
room = ctypes.create_string_buffer
def call(number, *given):
    words = [ctypes.c_long(x) if isinstance(x, int) else x for x in given]
    return libc.syscall(ctypes.c_long(number), *words)
def bytes_of(first, size): return room(bytes([first]).ljust(size, b"\\0"))
def perf(): return room(struct.pack("IIQ", 1, 128, 0).ljust(128, b"\\0"))
def shared(size):
    place = libc.mmap(None, ctypes.c_size_t(size), 3, 0x21, -1, 0)
    assert place != ctypes.c_void_p(-1).value
    ctypes.memset(place, 1, size)
    return place
"""


def attempts(column: int) -> str:
    """A program that fails with the names of all that is open to it; ``column`` of the numbers."""
    calls = {
        name: f"call({numbers[column]}, {more}) >= 0" for name, (numbers, more) in CALLS.items()
    }
    calls |= {name: f"socket.socket{given}" for name, given in SOCKETS.items()}
    calls |= {path: f"os.open({path!r}, os.O_RDWR) >= 0" for path in DEVICES}
    calls["huge pages"] = "libc.mmap(None, 2 * MB, 3, 0x40022, -1, 0) != 2**64 - 1"
    calls["much shared memory"] = "shared(17 * MB)"
    calls["attributes of files"] = "not os.setxattr(os.getcwd(), 'user.a', b'x')"
    calls["openpty"] = "os.openpty()"
    if column == 0:
        calls["x32"] = "call(0x40000000 + 39) > 0"
    return f"{TOOLS}\ncalls = {calls!r}" + CHECK


# each in a process of its own: some change the process
CHECK = """
found = []
for name, text in calls.items():
    child = posix.fork()
    if child == 0:
        try:
            posix._exit(0 if eval(text) else 1)
        except BaseException:
            posix._exit(1)
    if posix.waitpid(child, 0)[1] == 0:
        found.append(name)
raise Exception("open: " + ", ".join(found))
"""

# pages that no process shows: thrown out of the one that made them, and kept all the same
SHARED_MAPPINGS = """
for _ in range(80):
    libc.munmap(ctypes.c_void_p(shared(16 * MB) + 4096), ctypes.c_size_t(16 * MB - 4096))
time.sleep(0.5)
"""
MEMORY = {
    "keeps shared mappings": SHARED_MAPPINGS,
    "hides its mappings": "libc.prctl(4, 0, 0, 0, 0)\n" + SHARED_MAPPINGS + "time.sleep(0.5)",
    "goes on without its first thread": """
def more():
    held = [bytearray(b"x") * (10 * MB) for _ in range(70)]
    time.sleep(0.5)
threading.Thread(target=more).start()
call({"x86_64": 60}.get(os.uname().machine, 93), 0)
""",
    "fills sockets": """
held, ends = 0, []
while held < 600 * MB:
    ours, theirs = socket.socketpair()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 30)
    ours.setblocking(False)
    ends.append((ours, theirs))
    if len(ends) == 100 and posix.fork():
        time.sleep(2)
        break
    try:
        while True: held += ours.send(b"x" * 65536)
    except BlockingIOError: pass
time.sleep(0.5)
""",
    "makes many files": """
for number in range(60000):
    os.close(os.open(str(number), os.O_CREAT))
time.sleep(0.5)
""",
}
MEMORY = {name: TOOLS + code for name, code in MEMORY.items()}

if __name__ == "__main__":
    exec(attempts(int(sys.argv[1])), {})
