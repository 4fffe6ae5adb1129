"""The supervisor inside the sandbox: runs the steps of one program and reports what became of it.

Started as ``python -I -S -c <this text>``, so it uses the standard library only and knows nothing
of this package. It reads one job as JSON from standard input and writes one verdict as JSON to
standard output. In a sandbox of its own it is process 1: when it ends, the kernel ends everything
else in there, and nothing in there can signal it or read its memory.

A job:
    lifeline the reading end of a pipe whose other end closes when the scorer ends or gives up
    folder   where the program runs
    files    {name: text}, written into the folder
    uid      the user the program runs as, or None for the supervisor's own
    limits   memory and disk (bytes, of all processes together), file (bytes of one file),
             processes (their number), threads (RLIMIT_NPROC, or None)
    steps    a list of: argv; stdin (text or None); cpu (seconds, of all processes together);
             wall (seconds); space (bytes of address space of one process, or None); env; token
             (or None: the step is judged by its exit status); until_end (judge when the process
             ends, even if the token came)
A verdict: status (passed, failed, timed out, memory, disk, processes), step (its number),
    detail (the end of what it wrote to standard error), token (whether the token came).
"""

import json
import os
import resource
import select
import signal
import sys
import time
from contextlib import suppress

TICK = 0.02  # seconds between two looks at the sandbox
TICK_OUTSIDE = 0.2  # the same without a sandbox, where a look is at every process of the machine
TAIL = 4096  # bytes of standard error that are kept
TIME_SIGNALS = (signal.SIGXCPU, signal.SIGPROF)  # of the limit, of a timer on CPU time


def main():
    job = json.load(sys.stdin)
    alone = os.getpid() == 1
    harden(alone)
    # a low number, so that a program's closerange() reaches it
    lifeline = os.dup(job["lifeline"])
    os.close(job["lifeline"])
    prepare(job)
    verdict = {}
    for number, step in enumerate(job["steps"]):
        verdict = run_step(step, job, alone, lifeline)
        verdict["step"] = number
        if verdict["status"] != "passed":
            break
    sys.stdout.write(json.dumps(verdict))
    sys.stdout.flush()
    os._exit(0)


def harden(alone):
    """Keep the program from reading or tracing this process; adopt the orphans it makes."""
    try:
        # Late: a Python without it runs programs all the same.
        import ctypes

        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(4, 0, 0, 0, 0)  # PR_SET_DUMPABLE
        libc.prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS
        if not alone:
            libc.prctl(1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG
            libc.prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER
    except (ImportError, OSError, AttributeError):
        pass


def prepare(job):
    os.makedirs(job["folder"], exist_ok=True)
    os.chdir(job["folder"])
    for name, text in job["files"].items():
        with open(name, "w", encoding="utf-8", errors="surrogatepass", newline="") as file:
            file.write(text)
    if job["uid"] is not None:
        for name in [".", *job["files"]]:
            os.chown(name, job["uid"], job["uid"])


def run_step(step, job, alone, lifeline):
    errors, errors_in = os.pipe()
    tokens, tokens_in = os.pipe()
    given, given_in = os.pipe()
    child = os.fork()
    if child == 0:
        become_program(step, job, given, errors_in, tokens_in)
    for end in (errors_in, tokens_in, given):
        os.close(end)
    feed(given_in, step["stdin"] or "")
    expected = step["token"].encode() if step["token"] else None
    output = {errors: bytearray(), tokens: bytearray()}
    waiting = {errors, tokens, lifeline}
    deadline = time.monotonic() + step["wall"]
    next_look, spent_before = 0.0, spent_by_children()
    status = ended = None
    while status is None:
        read_pipes(output, waiting, errors, 0.0 if ended else TICK)
        if lifeline not in waiting:
            end_all(child, alone)
            os._exit(1)
        has_token = expected is not None and bytes(output[tokens]) == expected
        now = time.monotonic()
        if ended:
            status = status_of(ended, step, has_token)
        elif has_token and not step["until_end"]:
            status = "passed"
        elif now > deadline:
            status = "timed out"
        elif now > next_look:
            status = over_limit(step, job["limits"], job["folder"], alone, spent_before)
            next_look = now + (TICK if alone else TICK_OUTSIDE)
        ended = ended or reap(child)
    end_all(child, alone)
    for end in output:
        os.close(end)
    return {
        "status": status,
        "detail": bytes(output[errors]).decode("utf-8", "replace"),
        "token": expected is not None and bytes(output[tokens]) == expected,
    }


def become_program(step, job, given, errors_in, tokens_in):
    """Never returns: the child turns into the program, with its limits."""
    try:
        os.setsid()
        null = os.open(os.devnull, os.O_WRONLY)
        # first out of the way of the numbers that are given out next
        ends = [os.dup2(end, 64 + i, False) for i, end in enumerate((given, null, errors_in))]
        os.dup2(tokens_in, 67, False)
        for number, end in enumerate([*ends, 67]):
            os.dup2(end, number, True)
        os.closerange(4, 256)
        set_limits(step, job)
        if job["uid"] is not None:
            os.setgroups([])
            os.setgid(job["uid"])
            os.setuid(job["uid"])
        os.execve(step["argv"][0], step["argv"], step["env"])
    except BaseException as error:
        os.write(2, f"cannot start: {error!r}".encode())
    finally:
        os._exit(127)


def set_limits(step, job):
    limits = job["limits"]
    cap(resource.RLIMIT_CORE, 0, 0)
    # one more second between the signal that can be caught and the one that cannot
    cap(resource.RLIMIT_CPU, step["cpu"], step["cpu"] + 1)
    cap(resource.RLIMIT_FSIZE, limits["file"], limits["file"])
    cap(resource.RLIMIT_NOFILE, 256, 256)
    if limits["threads"] is not None:
        cap(resource.RLIMIT_NPROC, limits["threads"], limits["threads"])
    if step["space"] is not None:
        cap(resource.RLIMIT_AS, step["space"], step["space"])


def cap(kind, soft, hard):
    ceiling = resource.getrlimit(kind)[1]
    if ceiling != resource.RLIM_INFINITY:
        soft, hard = min(soft, ceiling), min(hard, ceiling)
    resource.setrlimit(kind, (soft, hard))


def feed(end, text):
    """Give the program its input, from a process of its own: the pipe may be too small for it."""
    if os.fork() == 0:
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)
        data = text.encode("utf-8", "surrogatepass")
        try:
            while data:
                data = data[os.write(end, data) :]
        except OSError:
            pass
        finally:
            os._exit(0)
    os.close(end)


def read_pipes(output, waiting, errors, seconds):
    """Read what the pipes hold, so that the program never waits; keep the end of it."""
    for end in select.select(list(waiting), [], [], seconds)[0]:
        data = os.read(end, 65536)
        if not data:
            waiting.discard(end)
        elif end in output:
            output[end] += data
            del output[end][: -TAIL if end == errors else -256]


def reap(child):
    """Collect every process that has ended; returns (exit status, CPU seconds) of ``child``."""
    result = None
    while True:
        try:
            pid, status, usage = os.wait4(-1, os.WNOHANG)
        except ChildProcessError:
            return result
        if pid == 0:
            return result
        if pid == child:
            result = status, usage.ru_utime + usage.ru_stime


def status_of(ended, step, has_token):
    status, seconds = ended
    fine = has_token if step["token"] else os.WIFEXITED(status) and os.WEXITSTATUS(status) == 0
    if fine:
        return "passed"
    # of a compiler's child that the limit stopped there is no signal to see, only the time
    stopped = os.WIFSIGNALED(status) and os.WTERMSIG(status) in TIME_SIGNALS
    return "timed out" if stopped or seconds >= step["cpu"] - 0.1 else "failed"


def over_limit(step, limits, folder, alone, spent_before):
    """The limit that all processes of the program together exceed, or None."""
    pages = processes = 0
    seconds = spent_by_children() - spent_before
    for pid in members(alone):
        try:
            with open(f"/proc/{pid}/statm") as file:
                pages += int(file.read().split()[1])
            # user and system time, its own and that of the children it has waited for
            seconds += sum(map(int, stat_of(pid)[11:15])) / os.sysconf("SC_CLK_TCK")
            processes += 1
        except (OSError, IndexError, ValueError):
            continue
    if pages * resource.getpagesize() > limits["memory"]:
        return "memory"
    if processes > limits["processes"]:
        return "processes"
    if seconds > step["cpu"] + 0.5:
        return "timed out"
    if alone:
        room = os.statvfs(folder)
        if (room.f_blocks - room.f_bfree) * room.f_frsize > limits["disk"]:
            return "disk"
    return None


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


def end_all(child, alone):
    """End every process that the program started, however it hid them."""
    for _ in range(500):
        if alone:
            with suppress(ProcessLookupError):
                os.kill(-1, signal.SIGKILL)  # in a sandbox of its own only: all but this process
        else:
            for pid in members(alone) or [child]:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        time.sleep(0.002)


if __name__ == "__main__":
    main()
