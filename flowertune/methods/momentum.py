"""Momentum on the server: what FedAvgM and Nesterov's step share."""

from flowertune.methods.options import Option, number, share

MOMENTUM = Option("momentum", 0.9, share(), "what stays of the velocity in each round")


def rate(default: float) -> Option:
    """Return the option for the server's learning rate."""
    return Option("lr", default, number(0, above=True), "the server's learning rate")
