"""How long to pause between two looks for something that another process does."""

SHORTEST, SHARE, LONGEST = 0.05, 0.05, 3.0


def pause(waited: float) -> float:
    """Return the seconds to the next look, after so many of waiting.

    What is waited for is noticed late by a twentieth of the time that it took; whoever waits long
    asks as seldom as Flower does.
    """
    return min(max(SHORTEST, SHARE * waited), LONGEST)
