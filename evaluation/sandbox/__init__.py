"""A box for programs that a model wrote: no network, no files of this machine, hard limits.

    layers.py          the ways to build the box: bubblewrap, else Linux namespaces, else none
    shown.py           what a program may see: the system's tools and this Python, read-only
    box.py             runs one job in the box, from outside
    inside.py          the supervisor in the box: limits, verdict, and the end of every process
    namespaces.py      builds the box where there is no bubblewrap
    python_program.py  runs one Python program as the official scorers do

The box guards this machine, not the score: a program shares its process with the tests that judge
it, as it does with the official scorers, so one that is written to fool its tests may do so.
"""
