"""What all processes of a program use together, and which limit that exceeds.

Runs inside the sandbox, as part of the supervisor, so it uses the standard library only.

Memory is all that the program makes the kernel keep: the pages of its processes, swapped ones and
page tables included, the files of its folder, which lie in memory, and at their highest what can
only be bounded: shared mappings without a file, whose pages need not be in any process, and the
buffers of sockets. The filter of system calls closes what cannot be seen from here.
"""

import os
import resource
import time
from contextlib import suppress

NODE = 2048  # bytes that the kernel keeps for a file or folder, whatever is in it
ANONYMOUS = b" /dev/zero (deleted)\n"  # how a shared mapping without a file is listed
COUNTED = (b"VmRSS", b"VmPTE", b"VmSwap")
EVERY = 0.1  # seconds between two looks at mappings, which take longer


class Watch:
    """Looks at the processes of one step of a job, again and again."""

    def __init__(self, step, job, alone, others):
        self.limits, self.folder, self.alone = job["limits"], job["folder"], alone
        self.seconds = step["cpu"] + 0.5
        self.spent_before = spent_by_children()
        self.others = others  # processes of the supervisor
        self.next_mappings = 0.0
        self.mappings = 0
        self.hidden = set()  # processes whose mappings could not be read the last time

    def over_limit(self):
        """The limit that all processes together exceed, or None."""
        limits = self.limits
        processes, seconds = [], spent_by_children() - self.spent_before
        for pid in members(self.alone):
            with suppress(OSError, IndexError, ValueError):
                # user and system time, its own and that of the children it has waited for
                seconds += sum(map(int, stat_of(pid)[11:15])) / os.sysconf("SC_CLK_TCK")
                processes.append(Process(pid))
        files = nodes = held = 0
        if self.alone:
            room = os.statvfs(self.folder)
            files = (room.f_blocks - room.f_bfree) * room.f_frsize
            nodes = room.f_files - room.f_ffree
            held = nodes * NODE + sockets(limits)
        if not self.look_at_mappings(processes):
            return "memory"
        rest = limits["memory"] - files - held - self.mappings * limits["mapping"]
        if memory_of(processes, rest) > rest:
            return "memory"
        if len(processes) > limits["processes"]:
            return "processes"
        if seconds > self.seconds:
            return "timed out"
        return "disk" if files > limits["disk"] or nodes > limits["nodes"] else None

    def look_at_mappings(self, processes):
        """Count the shared mappings without a file, now and then; False if a process hides them.

        A process hides them for a moment while it starts, and so does one of the supervisor's.
        """
        now = time.monotonic()
        if now < self.next_mappings:
            return True
        self.next_mappings = now + EVERY
        found, hidden = set(), set()
        for process in processes:
            try:
                found |= shared_mappings(process.place)
            except PermissionError:
                hidden.add(process.pid)
            except OSError:
                continue
        before, self.hidden = self.hidden, hidden - self.others
        self.mappings = len(found)
        return not before & self.hidden


class Process:
    """What one process has in memory, in bytes, and the folder in /proc that shows it."""

    def __init__(self, pid):
        self.pid = pid
        self.place = f"/proc/{pid}"
        sizes = read_sizes(self.place)
        if b"VmRSS" not in sizes:
            # its first thread has ended, and others go on: the memory is theirs
            for thread in os.listdir(f"/proc/{pid}/task"):
                self.place = f"/proc/{pid}/task/{thread}"
                sizes = read_sizes(self.place)
                if b"VmRSS" in sizes:
                    break
        self.tables = sizes.get(b"VmPTE", 0)
        self.memory = sum(sizes.values())


def read_sizes(place):
    sizes = {}
    with open(f"{place}/status", "rb") as file:
        for line in file:
            name, _, rest = line.partition(b":")
            if name in COUNTED:
                sizes[name] = int(rest.split()[0]) * 1024
    return sizes


def memory_of(processes, limit):
    """Bytes in memory; pages that several processes share count once if it comes to that."""
    total = sum(process.memory for process in processes)
    return total if total <= limit else sum(map(proportional_memory, processes))


def proportional_memory(process):
    shares = 0
    try:
        with open(f"{process.place}/smaps_rollup", "rb") as file:
            for line in file:
                if line.startswith((b"Pss:", b"SwapPss:")):
                    shares += int(line.split()[1]) * 1024
    except OSError:
        return process.memory
    return shares + process.tables


def shared_mappings(place):
    """The shared mappings without a file that a process has a part of, by their inodes."""
    with open(f"{place}/maps", "rb") as file:
        return {line.split()[4] for line in file if line.endswith(ANONYMOUS)}


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
