"""The lock names everything in which a run is not as its challenge wants it."""

import challenges
from flowertune.base.hashing import json_sha256
from flowertune.rules import lock

LOCKED = challenges.static_table("finance", "50-supernodes")


def found(static=LOCKED, nodes=50, partitions=(50,), seen=None):
    digests = {json_sha256(static if seen is None else seen)}
    differences = lock.check_lock(static, nodes, set(partitions), digests)
    return [(d.key, d.given, d.locked) for d in differences]


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


def test_another_partitioner_is_a_difference():
    changed = {**LOCKED, "partitioner.name": "dirichlet"}
    assert found(changed) == [("static.partitioner.name", "dirichlet", "iid")]
    line = lock.verdict(LOCKED, lock.check_lock(changed, 50, {50}, {json_sha256(changed)}))
    assert line.startswith("UNOFFICIAL") and "is 'dirichlet' (locked: 'iid')" in line


def test_clients_with_other_locked_values_are_a_difference():
    other = {**LOCKED, "dataset.name": "x"}
    ((key, given, locked),) = found(seen=other)
    assert key == "the digest that clients see"
    assert (given, locked) == ([json_sha256(other)], [json_sha256(LOCKED)])


def test_the_verdict_is_one_line_with_what_differs():
    changed = {**LOCKED, "dataset.name": "x"}
    differences = lock.check_lock(changed, 3, {3}, {json_sha256(changed)})
    line = lock.verdict(LOCKED, differences)
    assert line.startswith("UNOFFICIAL run") and "\n" not in line
    assert "static.dataset.name is 'x' (locked: 'flwrlabs/fingpt-sentiment-train')" in line
    assert "SuperNodes is 3 (locked: 50)" in line


def test_any_number_of_supernodes_where_none_is_locked():
    static = challenges.static_table("flowertune-llm", "50-supernodes")
    assert found(static, 7, {7}) == []
    assert "rules 50-supernodes 1.0.0, any number of SuperNodes)" in lock.verdict(static, [])
    assert "any number" not in lock.verdict(LOCKED, [])


def test_rules_that_are_not_on_record_are_the_one_difference():
    for key, value in (("rules-version", "9.9.9"), ("rules", "../../x"), ("challenge", "nothing")):
        ((name, given, _),) = found({**LOCKED, key: value})
        assert name == "static.rules-version" and value in given


def test_static_values_are_taken_from_the_run_config_without_their_prefix():
    cfg = {"seed": 1, "static.challenge": "finance", "static.dataset.name": "d"}
    assert lock.static_values(cfg) == {"challenge": "finance", "dataset.name": "d"}
    assert lock.static_digest(cfg) == json_sha256({"challenge": "finance", "dataset.name": "d"})


def test_the_record_holds_the_challenges_own_locked_values():
    for name in challenges.names():
        for rules in challenges.rule_sets():
            table = challenges.static_table(name, rules)
            assert lock.locked_values(table) == table
            assert challenges.expected_digest(name, rules) == json_sha256(table)


def test_a_digest_depends_on_values_and_not_on_their_order():
    assert json_sha256(dict(reversed(LOCKED.items()))) == json_sha256(LOCKED)
    assert json_sha256({**LOCKED, "num-supernodes": 49}) != json_sha256(LOCKED)


def test_a_number_of_another_type_is_another_value():
    ((key, given, locked),) = found({**LOCKED, "budget-mib": 200000.0})
    assert (key, given, locked) == ("static.budget-mib", 200000.0, 200000)
