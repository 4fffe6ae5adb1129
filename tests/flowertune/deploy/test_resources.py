"""flowertune.deploy.resources: what one client gets of a machine."""

import pytest
import ray
from flwr.simulation.ray_transport.ray_actor import pool_size_from_resources

from flowertune.base.errors import UserError
from flowertune.deploy.resources import Choice, Machine, _container_limit, at_once, choose

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


def started(machine: Machine, choice: Choice, monkeypatch) -> int:
    """How many workers Flower starts on a machine."""
    node = {"Resources": {"CPU": float(machine.cpus), "GPU": float(machine.gpus)}}
    monkeypatch.setattr(ray, "nodes", lambda: [node])
    client = {"num_cpus": choice.num_cpus, "num_gpus": choice.num_gpus}
    return pool_size_from_resources(client)


@pytest.mark.parametrize("share", [1.0, 0.5, 0.4, 0.3, 1 / 3, 0.25, 0.7, 2.0])
@pytest.mark.parametrize("gpus", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("cpus", [1, 4, 8, 16, 24, 64])
def test_every_gpu_is_used_where_there_are_cores(cpus, gpus, share, monkeypatch):
    machine = Machine(cpus, gpus)
    choice = choose(machine, asked=(None, min(share, gpus)))
    workers = started(machine, choice, monkeypatch)
    # Ray puts a client on one GPU, or on several whole ones.
    held = gpus * int(1 / share) if share < 1 else int(gpus / min(share, gpus))
    assert workers == min(held, int(cpus / choice.num_cpus))
    assert workers == min(held, cpus)
    assert 1 <= choice.num_cpus <= 6 and choice.num_cpus == int(choice.num_cpus)
    assert at_once(machine, choice).startswith(f"{workers} client")


@pytest.mark.parametrize(
    ("machine", "asked", "expected"),
    [
        # What 6 cores for every client made of these: 1, 1, 2 and 1 clients at a time.
        (Machine(8, 1), (None, 0.5), "2 clients at a time: 1 GPU x 2."),
        (Machine(8, 2), (None, None), "2 clients at a time: 2 GPUs, 1 each."),
        (Machine(16, 4), (None, None), "4 clients at a time: 4 GPUs, 1 each."),
        (Machine(8, 2), (None, 0.5), "4 clients at a time: 2 GPUs x 2."),
        (Machine(8, 2), (None, 2), "1 client at a time: 2 GPUs, 2 each."),
        (
            Machine(8, 2),
            (6, 0.5),
            "1 client at a time: 8 cores, 6 each, are fewer than the 4 that 2 GPUs would hold; "
            "--num-cpus 2 lets 4 train.",
        ),
        (
            Machine(2, 1),
            (None, 0.25),
            "2 clients at a time: 2 cores, 1 each, are fewer than the 4 that 1 GPU would hold.",
        ),
        (Machine(8, 0), (2, None), "4 clients at a time: 8 cores, 2 each."),
        (Machine(1, 0), (None, None), "1 client at a time: 1 core, 1 each."),
    ],
)
def test_what_trains_at_once_is_said(machine, asked, expected):
    assert at_once(machine, choose(machine, asked)) == expected


def test_no_worker_is_started_for_which_there_is_no_gpu():
    choice = choose(Machine(16, 2), asked=(None, 0.4))
    assert choice.num_gpus == 0.5
    assert any("num-gpus is 0.5 instead of 0.4" in note for note in choice.notes)
    assert choose(Machine(16, 1), asked=(None, 0.4)).num_gpus == 0.4


def test_cores_that_were_chosen_for_a_whole_gpu_do_not_keep_two_clients_from_sharing_it():
    machine = Machine(8, 1)
    assert choose(machine, asked=(None, 0.5), current=(6, 1.0)).num_cpus == 4
    assert choose(machine, asked=(None, 0.5), current=(3, 0.5)).num_cpus == 3


def test_without_a_gpu_of_its_own_a_client_gets_all_cores():
    assert choose(BIG_GPU, asked=(None, 0)).num_cpus == 32


def test_a_reduction_is_said():
    notes = choose(SMALL_GPU, asked=(6, None)).notes
    assert any("num-cpus is 4 instead of 6" in note for note in notes)
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
