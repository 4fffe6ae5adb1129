"""flowertune.deploy.resources: what one client gets of a machine."""

import pytest

from flowertune.base.errors import UserError
from flowertune.deploy.resources import Machine, _container_limit, choose

BIG_GPU = Machine(cpus=32, gpus=2)
SMALL_GPU = Machine(cpus=4, gpus=1)
CPU = Machine(cpus=2, gpus=0)


@pytest.mark.parametrize(
    ("machine", "asked", "current", "expected"),
    [
        (BIG_GPU, (None, None), (None, None), (6, 1.0)),
        (SMALL_GPU, (None, None), (None, None), (4, 1.0)),
        (CPU, (None, None), (None, None), (2, 0.0)),
        (CPU, (8, 1.0), (None, None), (2, 0.0)),
        (CPU, (None, None), (6, 1.0), (2, 0.0)),
        (BIG_GPU, (None, None), (3, 0.5), (3, 0.5)),
        (BIG_GPU, (8, 0.25), (3, 0.5), (8, 0.25)),
        (CPU, (0.5, None), (None, None), (0.5, 0.0)),
    ],
)
def test_asked_wins_then_what_fits_then_the_default(machine, asked, current, expected):
    choice = choose(machine, asked, current)
    assert (choice.num_cpus, choice.num_gpus) == expected


def test_a_reduction_is_said():
    assert any("num-cpus is 4 instead of 6" in note for note in choose(SMALL_GPU).notes)
    notes = choose(CPU, asked=(None, 1.0)).notes
    assert any("num-gpus is 0 instead of 1" in note for note in notes)


def test_a_kept_value_is_said():
    assert any("stays 3" in note for note in choose(BIG_GPU, current=(3, 1.0)).notes)
    assert choose(BIG_GPU, current=(6, 1.0)).notes == ()


@pytest.mark.parametrize("asked", [(0, None), (-1, None), (2.5, None), (None, -0.5), (None, 1.5)])
def test_impossible_values_are_refused(asked):
    with pytest.raises(UserError, match="--num-"):
        choose(BIG_GPU, asked)


def test_all_impossible_values_are_named_at_once():
    with pytest.raises(UserError, match=r"--num-cpus.*--num-gpus"):
        choose(BIG_GPU, (0, -1))


@pytest.mark.parametrize(
    ("text", "expected"), [("150000 100000\n", 1.5), ("max 100000\n", None), ("", None)]
)
def test_container_limit(tmp_path, text, expected):
    file = tmp_path / "cpu.max"
    file.write_text(text)
    assert _container_limit(file) == expected
