"""Evaluations of a run: by whom, and what a round's line says of one."""

from collections.abc import Mapping
from typing import Any

from flowertune.comms.evaluation import HeldOut
from flowertune.config.checks import evaluating_clients
from flowertune.config.settings import Settings
from flowertune.data.held_out import held_out_of
from flowertune.data.order import sample_clients
from flowertune.rules.held_out import ASKED, LOSS, LOST, REPLIES, ROWS, mean_of


def panel(cfg: Settings, rows: Mapping[int, int]) -> dict[int, int]:
    """Return the partitions that evaluate, with how many rows each holds out.

    They are the same in every evaluation: losses of two rounds are compared, and so have to be of
    the same rows.

    Parameters
    ----------
    rows : Mapping[int, int]
        How many rows with room for an answer each partition has.
    """
    held = {p: n for p, count in rows.items() if (n := held_out_of(count, cfg.train.held_out))}
    count = min(evaluating_clients(cfg, len(rows)), len(held))
    return {p: held[p] for p in sample_clients(list(held), count, cfg.seed, 0)}


def line_of(said: Mapping[int, HeldOut], reasons: Mapping[int, str], asked: int) -> dict[str, Any]:
    """Return what a round's line says of an evaluation with ``asked`` messages.

    The loss is the mean over all answer tokens; it is null where somebody did not answer.
    """
    mean = mean_of((one.loss, one.tokens) for one in said.values())
    return {
        LOSS: None if reasons else mean,
        ROWS: sum(one.rows for one in said.values()),
        ASKED: asked,
        REPLIES: {str(partition): vars(said[partition]) for partition in sorted(said)},
        LOST: {str(partition): why for partition, why in sorted(reasons.items())},
    }
