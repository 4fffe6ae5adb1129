"""Every causal architecture of transformers trains, resumes and is scored, or says why not.

Three of the most different ones run always, the others under ``./scripts/test --all``.
"""

import pytest

from tests.architectures.page import page
from tests.architectures.processes import run
from tests.architectures.result import limits, recorded
from tests.architectures.tiny import causal_architectures
from tests.architectures.values import overrides
from tests.templates import ROOT

# Of the most different kinds: a mixture of experts, a state-space model, one with Conv1D layers.
ALWAYS = ("gpt2", "mamba", "olmoe")
CHOSEN = [
    pytest.param(name, marks=() if name in ALWAYS else pytest.mark.full)
    for name in causal_architectures()
]


@pytest.mark.parametrize("architecture", CHOSEN)
def test_an_architecture_is_as_on_record(architecture):
    found = run(architecture)
    assert found.outcome != "fault", f"in stage {found.stage!r}: {found.text}"
    assert found.signature == recorded()[architecture].signature, found.text


def test_every_architecture_has_a_row_in_the_table():
    rows = (ROOT / "docs" / "models.md").read_text("utf-8").splitlines()
    named = [row.split("|")[1].strip(" `") for row in rows if row.startswith("| `")]
    assert named == causal_architectures() == list(recorded())
    assert page() == (ROOT / "docs" / "models.md").read_text("utf-8")


def test_results_on_record_are_whole():
    results = recorded()
    assert sum(one.outcome == "works" for one in results.values()) >= 60
    assert {*limits()} == {name for name, one in results.items() if one.outcome == "limit"}
    assert {*overrides()} <= {*results}
    for one in results.values():
        assert one.outcome in ("works", "refused", "limit")
        assert "\n" not in one.text and "Traceback" not in one.text
        assert bool(one.text) == (one.outcome != "works")
        if one.outcome == "works":
            assert 0 < one.changed <= one.adapted and one.targets
