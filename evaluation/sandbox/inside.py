"""The supervisor inside the sandbox: runs the steps of one program and reports what became of it.

Started as ``python -I -S -c <the text of usage.py, child.py and this>``, so it uses the standard
library only. It reads one job as JSON from standard input and writes one verdict as JSON to
standard output. In a sandbox of its own it is process 1: when it ends, the kernel ends everything
else in there, and nothing in there can signal it or read its memory.

A job:
    lifeline the reading end of a pipe whose other end closes when the scorer ends or gives up
    folder   where the program runs
    files    {name: text}, written into the folder
    uid      the user the program runs as, or None for the supervisor's own
    filter   the filter of system calls in base64, or None
    limits   of all processes together: memory, disk (bytes), nodes (files and folders), processes;
             file (bytes of one file), threads (RLIMIT_NPROC, or None); what one of them counts as,
             in bytes: mapping (shared, without a file), socket, connection (TCP)
    output   (may be missing) end: where to write the files that the program leaves, as
             ``send_files`` does; folder: where it leaves them
    steps    a list of: argv; stdin (text or None); cpu (seconds, of all processes together);
             wall (seconds); space (bytes of address space of one process, or None); env; token
             (or None) to be given back besides exit status 0; until_end (judge when the process
             ends, even if the token came)
A verdict: status (passed, failed, timed out, memory, disk, processes; killed: by itself, or by the
    kernel for want of memory), step (its number), detail (the end of what it wrote to standard
    error), token (whether the token came).
"""

import json
import os
import select
import signal
import stat
import sys
import time
from contextlib import suppress

from evaluation.sandbox.child import become_program
from evaluation.sandbox.usage import Watch, members

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
    if "output" in job:
        os.set_inheritable(job["output"]["end"], False)
    prepare(job)
    verdict = {}
    for number, step in enumerate(job["steps"]):
        verdict = run_step(step, job, alone, lifeline)
        verdict["step"] = number
        if verdict["status"] != "passed":
            break
    if "output" in job:
        send_files(job["output"])
    sys.stdout.write(json.dumps(verdict))
    sys.stdout.flush()
    os._exit(0)


def harden(alone):
    """Keep the program from reading or tracing this process; adopt the orphans it makes."""
    try:
        # late: a Python without it runs programs all the same, if not in a sandbox
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
    watch = Watch(step, job, alone, {feed(given_in, step["stdin"] or "")})
    expected = step["token"].encode() if step["token"] else None
    output = {errors: bytearray(), tokens: bytearray()}
    waiting = {errors, tokens, lifeline}
    deadline = time.monotonic() + step["wall"]
    next_look = 0.0
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
            status = watch.over_limit()
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


def feed(end, text):
    """Give the program its input, from a process of its own: the pipe may be too small for it.

    Returns its number.
    """
    feeder = os.fork()
    if feeder == 0:
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
    return feeder


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
    fine = os.WIFEXITED(status) and os.WEXITSTATUS(status) == 0
    if fine and (has_token or not step["token"]):
        return "passed"
    # of a compiler's child that the limit stopped there is no signal to see, only the time
    signaled = os.WTERMSIG(status) if os.WIFSIGNALED(status) else None
    if signaled in TIME_SIGNALS or seconds >= step["cpu"] - 0.1:
        return "timed out"
    return "killed" if signaled == signal.SIGKILL else "failed"


def send_files(output):
    """Write the regular files of a folder to a pipe: a line of JSON, then the bytes, for each.

    All processes of the program have ended, so nothing changes meanwhile. What cannot be read ends
    it, and the last line says why.
    """
    with suppress(OSError), os.fdopen(output["end"], "wb") as pipe:
        problem = ""
        try:
            for name in sorted(os.listdir(output["folder"])):
                path = os.path.join(output["folder"], name)
                if not stat.S_ISREG(os.lstat(path).st_mode):
                    continue
                with open(path, "rb") as file:
                    size = os.fstat(file.fileno()).st_size
                    pipe.write(json.dumps({"name": name, "bytes": size}).encode() + b"\n")
                    while piece := file.read(2**20):
                        pipe.write(piece)
        except BrokenPipeError:
            raise
        except OSError as error:
            problem = f"{error.strerror}: {error.filename}"
        pipe.write(json.dumps({"problem": problem}).encode() + b"\n")


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
