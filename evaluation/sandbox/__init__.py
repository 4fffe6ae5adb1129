"""A sandbox for programs that a model wrote: no network, no files of this machine, hard limits.

    layers.py          the ways to build the sandbox: bubblewrap, else Linux namespaces, else none
    shown.py           what a program may see: the system's tools and this Python, read-only
    job.py             runs one job in the sandbox, from outside
    inside.py          the supervisor in the sandbox: limits, verdict, and the end of every process
    namespaces.py      builds the sandbox where there is no bubblewrap
    python_program.py  runs one Python program as the official scorers do

The sandbox guards this machine, not the score: a program shares its process with its tests, as it
does with the official scorers, so one that is written to fool its tests may do so.
"""
