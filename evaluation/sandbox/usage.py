"""What all processes of a program use together, and which limit that exceeds.

Runs inside the sandbox, as part of the supervisor, so it uses the standard library only.

Memory is all that the program makes the kernel keep: the pages of its processes, swapped ones and
page tables included, the files of its folder, which lie in memory, and at their highest what can
only be bounded: shared mappings without a file, whose pages need not be in any process, and the
buffers of sockets. The filter of system calls closes what cannot be seen from here.
"""

import os
import resource
from contextlib import suppress

NODE = 2048  # bytes that the kernel keeps for a file or folder, whatever is in it
ANONYMOUS = b"/dev/zero (deleted)"  # how a shared mapping without a file is listed
COUNTED = (b"VmSize", b"VmRSS", b"VmPTE", b"VmSwap")


def over_limit(step, limits, folder, alone, spent_before, thorough):
    """The limit that all processes of the program together exceed, or None.

    ``thorough`` looks at shared mappings, too, which takes longer.
    """
    processes = {}
    seconds = spent_by_children() - spent_before
    for pid in members(alone):
        with suppress(OSError, IndexError, ValueError):
            # user and system time, its own and that of the children it has waited for
            seconds += sum(map(int, stat_of(pid)[11:15])) / os.sysconf("SC_CLK_TCK")
            processes[pid] = sizes_of(pid)
    files = nodes = held = 0
    if alone:
        room = os.statvfs(folder)
        files = (room.f_blocks - room.f_bfree) * room.f_frsize
        nodes = room.f_files - room.f_ffree
        held = nodes * NODE + sockets(limits)
    if thorough:
        held += shared_mappings(processes) * limits["mapping"]
    if memory_of(processes, limits["memory"] - files - held) + files + held > limits["memory"]:
        return "memory"
    if len(processes) > limits["processes"]:
        return "processes"
    if seconds > step["cpu"] + 0.5:
        return "timed out"
    return "disk" if files > limits["disk"] or nodes > limits["nodes"] else None


def sizes_of(pid):
    """The sizes in bytes of a process's memory, by their names in /proc/PID/status."""
    found = read_sizes(f"/proc/{pid}/status")
    if b"VmRSS" not in found:
        # its first thread has ended, and others go on: the memory is theirs
        for thread in os.listdir(f"/proc/{pid}/task"):
            found = found or read_sizes(f"/proc/{pid}/task/{thread}/status")
    return found


def read_sizes(path):
    found = {}
    with open(path, "rb") as file:
        for line in file:
            name, _, rest = line.partition(b":")
            if name in COUNTED:
                found[name] = int(rest.split()[0]) * 1024
    return found


def memory_of(processes, limit):
    """Bytes in memory; pages that several processes share count once if it comes to that."""
    total = sum(map(in_memory, processes.values()))
    if total <= limit:
        return total
    total = 0
    for pid, sizes in processes.items():
        tables, proportional = sizes.get(b"VmPTE", 0), 0
        try:
            with open(f"/proc/{pid}/smaps_rollup", "rb") as file:
                for line in file:
                    if line.startswith((b"Pss:", b"SwapPss:")):
                        proportional += int(line.split()[1]) * 1024
            total += proportional + tables
        except ProcessLookupError:
            continue
        except OSError:
            total += in_memory(sizes)
    return total


def in_memory(sizes):
    return sum(sizes.get(name, 0) for name in (b"VmRSS", b"VmPTE", b"VmSwap"))


def shared_mappings(processes):
    """The number of shared mappings without a file that any process has a part of."""
    found = set()
    for pid, sizes in processes.items():
        try:
            with open(f"/proc/{pid}/maps", "rb") as file:
                for line in file:
                    if line.endswith(ANONYMOUS + b"\n"):
                        found.add(line.split()[4])
        except PermissionError:
            # it hides: all that it could use counts as used
            sizes[b"VmRSS"] = sizes.get(b"VmSize", 0)
        except OSError:
            continue
    return len(found)


def sockets(limits):
    """Bytes that the sockets of this network namespace can hold in their buffers."""
    used = connections = 0
    with suppress(OSError, ValueError, IndexError):
        for name in ("sockstat", "sockstat6"):
            with open(f"/proc/net/{name}") as file:
                for line in file:
                    words = line.split()
                    if words[0] == "sockets:":
                        used = int(words[2])
                    elif words[0] in ("TCP:", "TCP6:"):
                        connections += int(words[2])
    return used * limits["socket"] + connections * limits["connection"]


def spent_by_children():
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def stat_of(pid):
    """The fields of /proc/PID/stat behind the name, which may hold anything."""
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()


def members(alone):
    """The processes of the program: in a sandbox all others, else those that descend from us."""
    try:
        pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    except OSError:
        return []
    me = os.getpid()
    if alone:
        return [pid for pid in pids if pid != me]
    parents = {}
    for pid in pids:
        try:
            parents[pid] = int(stat_of(pid)[1])
        except (OSError, IndexError, ValueError):
            continue
    descendants = []
    for pid in parents:
        above = parents[pid]
        while above in parents and above != me:
            above = parents[above]
        if above == me:
            descendants.append(pid)
    return descendants
