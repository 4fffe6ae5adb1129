"""The child that turns into the program, under its limits; part of the supervisor.

Runs inside the sandbox, so it uses the standard library only.
"""

import base64
import os
import resource

NO_NEW_PRIVILEGES, DUMPABLE, SECCOMP, SECCOMP_FILTER = 38, 4, 22, 2  # of prctl


def become_program(step, job, given, errors_in, tokens_in):
    """Never returns. Its standard input, output and error, and 3 for the token, are all it has."""
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
        set_filter(job["filter"])
        os.execve(step["argv"][0], step["argv"], step["env"])
    except BaseException as error:
        os.write(2, f"cannot start: {error!r}".encode())
    finally:
        os._exit(127)


def set_limits(step, job):
    limits = job["limits"]
    be_ended_first()
    cap(resource.RLIMIT_CORE, 0, 0)
    # one more second between the signal that can be caught and the one that cannot
    cap(resource.RLIMIT_CPU, step["cpu"], step["cpu"] + 1)
    cap(resource.RLIMIT_FSIZE, limits["file"], limits["file"])
    cap(resource.RLIMIT_NOFILE, 256, 256)
    for name in ("RLIMIT_MSGQUEUE", "RLIMIT_SIGPENDING"):
        if hasattr(resource, name):
            cap(getattr(resource, name), 4096, 4096)
    if limits["threads"] is not None:
        cap(resource.RLIMIT_NPROC, limits["threads"], limits["threads"])
    if step["space"] is not None:
        cap(resource.RLIMIT_AS, step["space"], step["space"])


def cap(kind, soft, hard):
    ceiling = resource.getrlimit(kind)[1]
    if ceiling != resource.RLIM_INFINITY:
        soft, hard = min(soft, ceiling), min(hard, ceiling)
    resource.setrlimit(kind, (soft, hard))


def be_ended_first():
    """Where memory runs out the kernel takes the program, not the supervisor."""
    try:
        # late: a Python without it runs programs all the same, if not in a sandbox
        import ctypes

        # a process that nobody may look into may not write this either
        ctypes.CDLL(None).prctl(DUMPABLE, 1, 0, 0, 0)
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write("1000")
    except (ImportError, OSError, AttributeError):
        pass


def set_filter(encoded):
    """Close the system calls that the filter names, to this process and all that it starts."""
    if encoded is None:
        return
    import ctypes

    class Filter(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("code", ctypes.c_char_p))

    code = base64.b64decode(encoded)
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    given = Filter(len(code) // 8, code)
    if libc.prctl(SECCOMP, SECCOMP_FILTER, ctypes.byref(given), 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "the filter of system calls was refused")
