"""A box for programs that a model wrote: no network, no files of this machine, hard limits."""
