"""The digests of locked values: computed alike everywhere, on record, and checked by a command."""

import hashlib
import json

import pytest

import challenges
from challenges import digests
from flowertune.base.hashing import json_sha256
from flowertune.rules import lock

PAIRS = [(name, rules) for name in challenges.names() for rules in challenges.rule_sets()]


def test_a_digest_is_that_of_canonical_json() -> None:
    text = '{"budget-mib":1,"challenge":"\\u00e9"}'
    assert json_sha256({"challenge": "é", "budget-mib": 1}) == (
        hashlib.sha256(text.encode()).hexdigest()
    )


@pytest.mark.parametrize(("name", "rules"), PAIRS)
def test_every_locked_value_counts_and_their_order_does_not(name: str, rules: str) -> None:
    static = challenges.static_table(name, rules)
    cfg = {"seed": 1, **{f"static.{key}": static[key] for key in reversed(static)}}
    assert lock.static_digest(cfg) == json_sha256(static)
    for key in static:
        assert json_sha256({**static, key: "other"}) != json_sha256(static)


@pytest.mark.parametrize(("name", "rules"), PAIRS)
def test_digests_on_record_are_current(name: str, rules: str) -> None:
    static = challenges.static_table(name, rules)
    assert challenges.expected_digest(name, rules) == json_sha256(static)
    assert json.loads(json.dumps(static)) == static


def test_the_command_prints_the_file_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert digests.main([]) == 0
    assert capsys.readouterr().out == digests.RULES_FILE.read_text("utf-8")
