"""The tiers of a submission: what was done to check it, in order of strength."""

from dataclasses import dataclass

DECLARED = "declared"
CONSISTENT = "consistent"
RESCORED = "re-scored"
REPLAYED = "replayed"
REPRODUCED = "reproduced"


@dataclass(frozen=True)
class Tier:
    """A tier, and in a phrase each what it proves and what it cannot."""

    name: str
    done: str
    proves: str
    cannot: str


TIERS = (
    Tier(
        DECLARED,
        "nothing yet: the bundle's own word",
        "nothing",
        "anything",
    ),
    Tier(
        CONSISTENT,
        "`python -m evaluation.verify`",
        "the bundle is complete and does not contradict itself, the rules, the published record "
        "or arithmetic; its scores follow from its own answers",
        "that a model gave these answers, or that a run made this model: somebody who writes "
        "every file anew, consistently, passes",
    ),
    Tier(
        RESCORED,
        "`python -m evaluation.verify --rescore N`",
        "the adapter in the bundle gives the answers in the bundle, on rows drawn at random after "
        "submission",
        "that the adapter was trained within the rules: on the challenge's rows, by federated "
        "rounds, within the budget",
    ),
    Tier(
        REPLAYED,
        "`python -m evaluation.replay`",
        "the first round, the last and the drawn ones, trained again by the organizer with the "
        "pinned data and base model, give the states that the chain fixed before they were drawn",
        "that the rounds that were not drawn are true (a share f of false rounds is seen with "
        "1 - (1 - f)^k), that no test data are hidden in the method's files, that the base model "
        "has not seen the test data, or that the seed was not searched for",
    ),
    Tier(
        REPRODUCED,
        "a replay by another party, signed with a key that the organizer lists",
        "the same as replayed, without having to trust one organizer's machine",
        "the same as replayed",
    ),
)
NAMES = tuple(tier.name for tier in TIERS)


def rank(name: str) -> int:
    """Return a tier's place in the order, 0 for the weakest.

    Raises
    ------
    ValueError
        There is no such tier.
    """
    return NAMES.index(name)
