"""A sandbox for programs that a model wrote: no network, no files of this machine, hard limits.

    layers.py          the ways to build the sandbox: bubblewrap, else Linux namespaces, else none
    shown.py           what a program may see: the system's tools and this Python, read-only
    identity.py        whether this process may give programs users of their own
    filter.py          the system calls that are closed to a program
    cgroup.py          a limit on memory that the kernel keeps, where it can be had
    output.py          takes files out of the sandbox
    job.py             runs one job in the sandbox, from outside
    namespaces.py      builds the sandbox where there is no bubblewrap
    inside.py          the supervisor in the sandbox: steps, verdict, and the end of every process
    child.py             turns into the program, under its limits
    usage.py             what all processes of a program use together
    python_program.py  runs one Python program as the official scorers do
    end_mark.js        lets a JavaScript program give back its token at the end of its file
    hosts              shown to programs as /etc/hosts

The sandbox guards this machine, not the score: a program shares its process with its tests, as it
does with the official scorers, so one that is written to fool its tests may do so.
"""
