"""Who trains on what is a function of seed, round and partition."""

# Toy objects stand in for the libraries' own types here.
# pyright: reportArgumentType=false

from flowertune.data.order import rows_of_round, sample_clients
from flowertune.data.steps import steps_of_round
from tests.apps import settings


def test_the_choice_of_clients_moves_with_round_and_seed_and_not_with_order():
    first = sample_clients(range(50), 5, seed=1, server_round=1)
    assert first == sample_clients(reversed(range(50)), 5, seed=1, server_round=1)
    assert len(set(first)) == 5
    assert first != sample_clients(range(50), 5, seed=1, server_round=2)
    assert first != sample_clients(range(50), 5, seed=2, server_round=1)


def test_every_row_has_its_turn_once_a_lap():
    picked = [row for r in range(1, 8) for row in rows_of_round(21, 6, 3, r, 4)]
    assert sorted(picked[:21]) == list(range(21))
    assert sorted(picked[21:42]) == list(range(21))
    assert picked[:21] != picked[21:42]


def test_rows_differ_between_partitions_and_repeat_for_the_same_seed():
    assert rows_of_round(100, 30, 1, 2, 3) == rows_of_round(100, 30, 1, 2, 3)
    assert rows_of_round(100, 30, 1, 2, 3) != rows_of_round(100, 30, 1, 2, 4)


def test_more_rows_than_there_are_go_round_again():
    assert sorted(rows_of_round(3, 7, 0, 1, 0)[:6]) == [0, 0, 1, 1, 2, 2]


def test_steps_have_the_configured_shape():
    key = "train.training-arguments."
    cfg = settings(
        {
            key + "per-device-train-batch-size": 4,
            key + "gradient-accumulation-steps": 2,
            key + "max-steps": 3,
        }
    )
    steps = steps_of_round(list("abcdefghij"), cfg, 1, 0)
    assert [[len(batch) for batch in step] for step in steps] == [[4, 4]] * 3
    assert steps_of_round(list("abc"), cfg.replace({key + "max-steps": 0}), 1, 0) == []


def test_without_a_dynamic_seed_a_client_sees_the_same_rows_in_every_round():
    key = "train.training-arguments."
    cfg = settings(
        {
            "train.dynamic-data-seed": False,
            key + "per-device-train-batch-size": 2,
            key + "max-steps": 2,
        }
    )
    first, second = (steps_of_round(list("abcdefghij"), cfg, n, 0) for n in (1, 2))
    assert first == second
    cfg = cfg.replace({"train.dynamic-data-seed": True})
    assert first == steps_of_round(list("abcdefghij"), cfg, 1, 0)
    assert first != steps_of_round(list("abcdefghij"), cfg, 2, 0)
