"""The lock names everything in which a run is not as its challenge wants it."""

import challenges
from flowertune.rules import lock

LOCKED = challenges.static_table("finance", "50-supernodes")


def found(static=LOCKED, supernodes=50, partitions=(50,)):
    return [
        (d.key, d.given, d.locked)
        for d in lock.differences(static, LOCKED, supernodes, set(partitions))
    ]


def test_a_run_that_keeps_everything_is_official():
    assert found() == []
    assert lock.verdict(LOCKED, []).startswith("OFFICIAL run (finance, rules 50-supernodes 1.0.0)")


def test_every_difference_is_named():
    changed = {**LOCKED, "dataset.name": "x", "budget-mib": 1, "extra": 2}
    assert found(changed, 3, {3, 50}) == [
        ("static.budget-mib", 1, 200000),
        ("static.dataset.name", "x", LOCKED["dataset.name"]),
        ("static.extra", 2, None),
        ("SuperNodes", 3, 50),
        ("partitions", [3, 50], [50]),
    ]


def test_the_verdict_is_one_line_with_what_differs():
    differences = lock.differences({**LOCKED, "dataset.name": "x"}, LOCKED, 3, {3})
    line = lock.verdict(LOCKED, differences)
    assert line.startswith("UNOFFICIAL run") and "\n" not in line
    assert "static.dataset.name is 'x' (locked: 'flwrlabs/fingpt-sentiment-train')" in line
    assert "SuperNodes is 3 (locked: 50)" in line


def test_any_number_of_supernodes_where_none_is_locked():
    base = challenges.static_table("flowertune-llm", "50-supernodes")
    assert lock.differences(base, base, 7, {7}) == []


def test_static_values_are_taken_from_the_run_config_without_their_prefix():
    cfg = {"seed": 1, "static.challenge": "finance", "static.dataset.name": "d"}
    assert lock.static_values(cfg) == {"challenge": "finance", "dataset.name": "d"}


def test_app_and_challenges_agree_on_the_digest():
    for name in challenges.names():
        table = challenges.static_table(name, "flower.ai")
        assert lock.digest(table) == challenges.digest(table)
    assert lock.digest(dict(reversed(LOCKED.items()))) == lock.digest(LOCKED)
    assert lock.digest({**LOCKED, "num-supernodes": 49}) != lock.digest(LOCKED)
