"""The digests of locked values: computed alike everywhere, on record, and checked by a command."""

import hashlib
import json

import pytest

import challenges
from challenges import digests
from flowertune.rules import lock

PAIRS = [(name, rules) for name in challenges.names() for rules in challenges.rule_sets()]


def test_a_digest_is_that_of_canonical_json() -> None:
    text = '{"budget-mib":1,"challenge":"\\u00e9"}'
    assert challenges.digest({"challenge": "é", "budget-mib": 1}) == (
        hashlib.sha256(text.encode()).hexdigest()
    )


@pytest.mark.parametrize(("name", "rules"), PAIRS)
def test_app_and_challenges_agree_on_digests(name: str, rules: str) -> None:
    static = challenges.static_table(name, rules)
    assert lock.digest(static) == challenges.digest(static)
    assert lock.digest(dict(reversed(static.items()))) == challenges.digest(static)
    for key in static:
        assert challenges.digest({**static, key: "other"}) != challenges.digest(static)


@pytest.mark.parametrize(("name", "rules"), PAIRS)
def test_digests_on_record_are_current(name: str, rules: str) -> None:
    static = challenges.static_table(name, rules)
    assert challenges.expected_digest(name, rules) == challenges.digest(static)
    assert json.loads(json.dumps(static)) == static


def test_the_command_prints_the_file_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert digests.main([]) == 0
    assert capsys.readouterr().out == digests.RULES_FILE.read_text("utf-8")
