"""Build the sandbox with Linux namespaces alone, where there is no bubblewrap.

Started as ``python -I -S -c <this text> SPEC``, so it uses the standard library only. It enters
new user (unless it is root), mount, process, network, IPC and host name namespaces, builds a file
system out of the paths it is given, read-only, and turns into the supervisor as process 1.

SPEC is JSON: binds (paths inside, each with the path of this machine that is shown there,
read-only), hosts (the file to show as /etc/hosts), devices,
links ({path: target}), folders to make (the last is where the supervisor starts), size and nodes
(bytes of the one writable file system, and its files and folders), own_user (whether to enter a
user namespace) and inside (user and group in there), argv and env of the supervisor.
"""

import ctypes
import json
import os
import signal
import sys

NEWNS, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET = (
    0x00020000,
    0x04000000,
    0x08000000,
    0x10000000,
    0x20000000,
    0x40000000,
)
RDONLY, NOSUID, NODEV, NOEXEC, REMOUNT, BIND, REC, PRIVATE = (
    1,
    2,
    4,
    8,
    32,
    4096,
    16384,
    1 << 18,
)
DETACH = 2
MOUNT_SETATTR, AT_FDCWD, AT_RECURSIVE = 442, -100, 0x8000
PIVOT_ROOT = {"x86_64": 155, "aarch64": 41, "riscv64": 41}
AF_INET, SOCK_DGRAM, SET_FLAGS, UP = 2, 2, 0x8914, 1

libc = ctypes.CDLL(None, use_errno=True)


def main():
    spec = json.loads(sys.argv[1])
    end_with_parent()
    uid, gid = os.getuid(), os.getgid()
    kinds = NEWNS | NEWUTS | NEWIPC | NEWPID | NEWNET
    own_user, inside = spec["own_user"], spec["inside"]
    call("unshare", libc.unshare(kinds | NEWUSER if own_user else kinds))
    if own_user:
        put("/proc/self/setgroups", "deny")
        # not as root, who would keep the rights of this namespace in the programs it starts
        put("/proc/self/uid_map", f"{inside} {uid} 1")
        put("/proc/self/gid_map", f"{inside} {gid} 1")
    first = os.fork()
    if first:
        for inherited in (0, 1):
            os.close(inherited)
        _, status = os.waitpid(first, 0)
        code = os.waitstatus_to_exitcode(status)
        os._exit(code if code >= 0 else 128 - code)
    end_with_parent()
    build(spec)
    raise_loopback()
    os.chdir(spec["folders"][-1])
    libc.prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS
    os.execve(spec["argv"][0], spec["argv"], spec["env"])


def end_with_parent():
    call("prctl", libc.prctl(1, signal.SIGKILL, 0, 0, 0))  # PR_SET_PDEATHSIG


def build(spec):
    mount("none", "/", None, REC | PRIVATE)
    mount("tmpfs", "/tmp", "tmpfs", NOSUID | NODEV, "mode=0755,size=1m")
    os.mkdir("/tmp/new")
    os.mkdir("/tmp/old")
    # the old root moves aside first, so that paths below /tmp can be shown as well
    pivot_root("/tmp", "/tmp/old")
    os.chdir("/")
    mount("tmpfs", "/new", "tmpfs", NOSUID | NODEV, "mode=0755,size=1m")
    # before the binds: an environment may lie below /tmp
    os.mkdir("/new/tmp")
    limits = f"mode=1777,size={spec['size']},nr_inodes={spec['nodes']}"
    mount("tmpfs", "/new/tmp", "tmpfs", NOSUID | NODEV, limits)
    for path, of_this_machine in spec["binds"]:
        show(of_this_machine, path)
    show(spec["hosts"], "/etc/hosts")
    for path, target in spec["links"].items():
        os.makedirs(os.path.dirname("/new" + path), exist_ok=True)
        os.symlink(target, "/new" + path)
    for path in spec["devices"]:
        place(path, path, NOSUID | NOEXEC)
    os.mkdir("/new/proc")
    # denied in some containers, and without it nothing counts what a program uses
    mount("proc", "/new/proc", "proc", NOSUID | NODEV | NOEXEC)
    for path in spec["folders"]:
        os.mkdir("/new" + path)
        os.chmod("/new" + path, 0o1777)
    os.chdir("/new")
    pivot_root(".", ".")
    call("umount", libc.umount2(b".", DETACH))
    os.chdir("/")
    mount("none", "/", None, REMOUNT | BIND | RDONLY | NOSUID | NODEV)
    libc.sethostname(b"sandbox", 7)


def raise_loopback():
    """Let programs talk to themselves by TCP and UDP, which needs the interface to be up."""
    request = ctypes.create_string_buffer(
        b"lo".ljust(16, b"\0") + UP.to_bytes(2, sys.byteorder), 40
    )
    end = libc.socket(AF_INET, SOCK_DGRAM, 0)
    libc.ioctl(end, ctypes.c_ulong(SET_FLAGS), request)
    os.close(end)


def show(path, target):
    if os.path.exists("/old" + path):
        place(path, target, 0)
        read_only("/new" + target)


def place(path, target, flags):
    source, target = "/old" + path, "/new" + target
    if os.path.isdir(source):
        os.makedirs(target, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        with open(target, "w"):
            pass
    mount(source, target, None, BIND | REC | flags)


def read_only(path):
    class Attributes(ctypes.Structure):
        _fields_ = [(name, ctypes.c_uint64) for name in ("set", "clear", "propagation", "userns")]

    wanted = Attributes(RDONLY | NOSUID | NODEV, 0, 0, 0)
    done = libc.syscall(
        MOUNT_SETATTR,
        AT_FDCWD,
        os.fsencode(path),
        AT_RECURSIVE,
        ctypes.byref(wanted),
        ctypes.c_size_t(ctypes.sizeof(wanted)),
    )
    if done != 0:
        # before Linux 5.12
        mount("none", path, None, REMOUNT | BIND | RDONLY | NOSUID | NODEV)


def pivot_root(new, old):
    number = PIVOT_ROOT[os.uname().machine]
    call("pivot_root", libc.syscall(number, os.fsencode(new), os.fsencode(old)))


def mount(source, target, kind, flags, options=None):
    done = libc.mount(
        os.fsencode(source),
        os.fsencode(target),
        os.fsencode(kind) if kind else None,
        ctypes.c_ulong(flags),
        os.fsencode(options) if options else None,
    )
    call("mount " + target, done)


def put(path, text):
    try:
        with open(path, "w") as file:
            file.write(text)
    except OSError as error:
        # that of a write does not name the file
        raise OSError(error.errno, f"{path}: {error.strerror}") from None


def call(what, result):
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


main()
