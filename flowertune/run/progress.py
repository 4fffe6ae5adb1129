"""What a person reads while a run goes on: one line a round."""


def duration(seconds: float) -> str:
    """Return seconds as people say them: "42 s", "3 min 20 s", "2 h 05 min"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


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
    people = f"{clients} client" + ("" if clients == 1 else "s")
    if failed:
        people += f" ({failed} failed)"
    left = (rounds - server_round) * seconds_per_round
    end = f"about {duration(left)} left" if server_round < rounds else "done"
    return (
        f"round {server_round:>{len(str(rounds))}}/{rounds} | {people} | loss {loss:.4f} | "
        f"{mib:,.1f} of {budget_mib:,} MiB | {end}"
    )
