"""The acceptance suite for a machine with a GPU: ``./scripts/test --gpu``.

It runs what no machine without one can: rounds of a model of 7B shapes with random weights, made
on the spot, in 4 bit, 8 bit and 16 bit; repeats, sharing, too little memory, scoring. The result is
one table. A rehearsal runs the same code on a CPU with a tiny model: it keeps the suite itself
working where there is no GPU, and says nothing of one.
"""
