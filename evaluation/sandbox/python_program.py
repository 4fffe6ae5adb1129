"""Runs one Python program the way the official scorers do; started inside the sandbox.

Started as ``python -c <this text>`` with {"code", "token", "cpu"} as JSON on standard input; the
``cpu`` seconds begin when the interpreter is ready, as they do there. The program runs by
``exec`` in an empty namespace, so ``__name__`` is "builtins" and a block under
``if __name__ == "__main__"`` does not run. What the official scorers switch off is switched off,
because a program that uses it fails there too; protection is the sandbox's task. Only a program
that runs to its end gives back the token: leaving early is failing.
"""

import io
import json
import os
import signal
import sys
import tempfile
from contextlib import suppress

TOKEN_FD = 3
# what the scorers of HumanEval and MBPP set to None
SWITCHED_OFF = {
    "os": (
        "kill system putenv remove removedirs rmdir fchdir setuid fork forkpty killpg rename "
        "renames truncate replace unlink fchmod fchown chmod chown chroot lchflags lchmod lchown "
        "getcwd chdir"
    ),
    "shutil": "rmtree move chown",
    "subprocess": "Popen",
    "builtins": "exit quit help",
}
NOT_IMPORTABLE = ("ipdb", "joblib", "resource", "psutil", "tkinter")
# that are not of the standard library, but in memory when the official scorers run a program
LOADED = {"numpy", "pandas", "torch"}
NEVER_LOADED = {"antigravity", "idlelib", "this", "tkinter", "turtle", "turtledemo"}
# calls that a function may nest before it is stopped, where the official scorers start a program
DEPTH = {(3, 12): 984, (3, 13): 983}.get(sys.version_info[:2], 982)


class Stream(io.StringIO):
    """All standard streams of a program in one: keeps what is printed, and cannot be read."""

    def read(self, *given):
        raise OSError

    def readline(self, *given):
        raise OSError

    def readlines(self, *given):
        raise OSError

    def readable(self):
        return False


def load_what_the_scorers_have_loaded(code):
    """Modules take functions that are then switched off along when they are loaded."""
    tempfile.gettempdir()
    with suppress(Exception):
        known = (LOADED | set(sys.stdlib_module_names)) - NEVER_LOADED - set(NOT_IMPORTABLE)
        for name in names_in(compile(code, "<string>", "exec", dont_inherit=True)):
            if name.partition(".")[0] in known:
                with suppress(Exception):
                    __import__(name)


def names_in(code):
    """The names in a code object and in those inside it, those of imported modules among them."""
    found = set(code.co_names)
    for constant in code.co_consts:
        if hasattr(constant, "co_names"):
            found |= names_in(constant)
    return found


def switch_off():
    for module, names in SWITCHED_OFF.items():
        namespace = __import__(module)
        for name in names.split():
            setattr(namespace, name, None)
    for name in NOT_IMPORTABLE:
        sys.modules[name] = None  # type: ignore[assignment]


def depth_left():
    try:
        return 1 + depth_left()
    except RecursionError:
        return 0


def run(code, above):
    """Run the program under as many calls as the official scorers do."""
    if above > 0:
        run(code, above - 1)
    else:
        exec(code, {})


def main():
    job = json.loads(sys.stdin.buffer.read())
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    sys.stdout = sys.stderr = Stream()
    load_what_the_scorers_have_loaded(job["code"])
    write, leave = os.write, os._exit
    signal.setitimer(signal.ITIMER_PROF, job["cpu"])
    switch_off()
    sys.stdout = sys.stderr = sys.stdin = Stream()
    try:
        # no variable holds the token while the program runs, which can read those of its callers
        given = job.pop("token").encode(), run(job["code"], depth_left() - DEPTH - 2)
    except BaseException as error:
        reason = type(error).__name__
        try:
            reason += ": " + str(error)
        finally:
            write(2, reason.encode("utf-8", "replace")[:1000])
            leave(1)
    write(TOKEN_FD, given[0])
    leave(0)


main()
