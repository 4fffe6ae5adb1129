"""What a person reads while a run goes on: one line a round."""

from flowertune.base.text import counted, duration


def round_line(
    server_round: int,
    rounds: int,
    clients: int,
    failed: int,
    loss: float,
    mib: float,
    budget_mib: int,
    seconds_per_round: float,
) -> str:
    """Return the line of one finished round."""
    left = (rounds - server_round) * seconds_per_round
    end = f"about {duration(left)} left" if server_round < rounds else "done"
    return (
        f"round {server_round:>{len(str(rounds))}}/{rounds} | {people(clients, failed)} | "
        f"loss {loss:.4f} | {mib:,.1f} of {budget_mib:,} MiB | {end}"
    )


def people(clients: int, failed: int) -> str:
    """Return who took part: "5 clients", "1 client (4 failed)"."""
    return counted(clients, "client") + (f" ({failed} failed)" if failed else "")
