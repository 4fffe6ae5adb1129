"""Evaluations within a run: ask the clients of the panel after every so many rounds."""

from collections.abc import Mapping, Sequence
from logging import INFO, WARNING
from typing import Any

import torch
from flwr.app import ArrayRecord
from flwr.common import log

from flowertune.base.errors import UserError
from flowertune.base.text import counted
from flowertune.comms.codec import pack
from flowertune.comms.evaluation import HeldOut, ask_losses
from flowertune.config.checks import is_evaluated
from flowertune.config.settings import WHERE
from flowertune.data.lengths import Lengths
from flowertune.rules.held_out import CHOSEN, LOSS, best_of
from flowertune.run.base import BaseRun
from flowertune.run.data_check import usable_rows
from flowertune.run.evaluation import line_of, panel

_OF_A_REPLY = 1024  # bytes at the most, with what a message holds beside the adapter


class Evaluator:
    """Evaluates the global adapter of a run on rows that no client trains on.

    Attributes
    ----------
    panel : dict[int, int]
        The partitions that are asked, with how many rows each holds out.
    nbytes : int
        The most that an evaluation takes, both directions.
    """

    def __init__(
        self,
        run: BaseRun,
        lengths: Mapping[int, list[Lengths]],
        adapter: Mapping[str, torch.Tensor],
        beside: Mapping[str, ArrayRecord],
    ) -> None:
        """Choose who evaluates.

        Parameters
        ----------
        lengths : Mapping[int, list[Lengths]]
            Of every partition's rows.
        adapter : Mapping[str, torch.Tensor]
            One of the run's shapes.
        beside : Mapping[str, ArrayRecord]
            What a client needs beside the adapter, by record.

        Raises
        ------
        UserError
            If no client has a row to hold out.
        """
        self._run, self._beside, cfg = run, beside, run.cfg
        self.panel = panel(cfg, usable_rows(lengths, cfg.train.seq_length))
        if not self.panel:
            raise UserError(
                f"train.evaluate-every is {cfg.train.evaluate_every}, and no client has two rows, "
                f"to hold one out; set it to 0 ({WHERE})."
            )
        packed = pack(adapter, cfg.train.transport)
        records = (packed, *beside.values())
        size = sum(len(array.data) for record in records for array in record.values())
        self.nbytes = len(self.panel) * (size + _OF_A_REPLY)
        log(INFO, "after every %s, %s evaluate on %s held-out rows (partitions %s)",
            counted(cfg.train.evaluate_every, "round"), counted(len(self.panel), "client"),
            f"{sum(self.panel.values()):,}", ", ".join(map(str, self.panel)))  # fmt: skip

    def bytes_of(self, server_round: int) -> int:
        """Return the most bytes that the evaluation after a round takes; 0 where none is due."""
        return self.nbytes if is_evaluated(self._run.cfg, server_round) else 0

    def evaluate(
        self,
        server_round: int,
        adapter: Mapping[str, torch.Tensor],
        before: Sequence[Mapping[str, Any]],
    ) -> dict[str, Any]:
        """Return what a round's line says of held-out rows; nothing where no evaluation is due.

        Those that do not answer are asked again, once. Without all of them the loss is of other
        rows than before: then it is null, and decides nothing.

        Parameters
        ----------
        before : Sequence[Mapping[str, Any]]
            The lines of earlier rounds.

        Raises
        ------
        UserError
            If nobody could evaluate.
        """
        run = self._run
        if not is_evaluated(run.cfg, server_round):
            return {}
        if not run.ledger.has_room_for(self.nbytes):
            log(WARNING, "round %d is not evaluated: that would pass the budget of %s MiB",
                server_round, f"{run.ledger.budget_mib:,}")  # fmt: skip
            return {}
        said, reasons, asked = self._ask(server_round, adapter)
        for partition, reason in reasons.items():
            log(WARNING, "round %d, partition %d did not evaluate: %s", server_round, partition,
                reason)  # fmt: skip
        if not said:
            raise UserError(
                f"no client could evaluate the adapter of round {server_round}: "
                f"{next(iter(reasons.values()))}; mend evaluate() of client_app.py, or set "
                f"train.evaluate-every to 0 ({WHERE})."
            )
        line = line_of(said, reasons, asked)
        best = best_of([*before, {"round": server_round, **line}])
        if line[LOSS] is not None and best is not None:
            log(INFO, "round %d: loss %.4f on held-out rows (lowest: %.4f, round %d)",
                server_round, line[LOSS], best["loss"], best["round"])  # fmt: skip
        return {**line, CHOSEN: best}

    def _ask(
        self, server_round: int, adapter: Mapping[str, torch.Tensor]
    ) -> tuple[dict[int, HeldOut], dict[int, str], int]:
        run, said = self._run, dict[int, HeldOut]()
        reasons, asked = dict[int, str](), 0
        run.live.say(f"evaluating the adapter of round {server_round}")
        with run.profile.phase("evaluate"):
            for _ in range(2):
                left = {p: rows for p, rows in self.panel.items() if p not in said}
                if left and run.ledger.has_room_for(self.nbytes):
                    came, reasons = ask_losses(
                        run.grid, run.cfg, run.registry, run.ledger, server_round, adapter, left,
                        self._beside,
                    )  # fmt: skip
                    said |= came
                    asked += len(left)
        return said, reasons, asked
