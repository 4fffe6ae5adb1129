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


class Sink(io.TextIOBase):
    """Takes what is printed and forgets it; reading from it is an error."""

    def writable(self):
        return True

    def write(self, text):
        return len(text)


def load_what_the_scorers_have_loaded(code):
    """These are in memory when the official scorers run a program; later they could not load."""
    for name in ("multiprocessing", "numpy", "pandas", "torch"):
        if name in code:
            with suppress(Exception):
                __import__(name)


def switch_off():
    for module, names in SWITCHED_OFF.items():
        namespace = __import__(module)
        for name in names.split():
            setattr(namespace, name, None)
    for name in NOT_IMPORTABLE:
        sys.modules[name] = None  # type: ignore[assignment]


def main():
    job = json.loads(sys.stdin.buffer.read())
    token = job["token"].encode()
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    load_what_the_scorers_have_loaded(job["code"])
    write, leave = os.write, os._exit
    signal.setitimer(signal.ITIMER_PROF, job["cpu"])
    switch_off()
    sys.stdout = sys.stderr = sys.stdin = Sink()
    try:
        exec(job["code"], {})
    except BaseException as error:
        reason = type(error).__name__
        try:
            reason += ": " + str(error)
        finally:
            write(2, reason.encode("utf-8", "replace")[:1000])
            leave(1)
    write(TOKEN_FD, token)
    leave(0)


main()
