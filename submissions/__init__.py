"""Submissions: bundles made, verified, replayed and ranked.

Above `flowertune` and `evaluation`, and may use all of both; neither imports it. Nothing that a
bundle holds is executed or imported, but for a replay, which runs its app in a sandbox.
"""
