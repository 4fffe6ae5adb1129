"""DP-FedAvg (McMahan et al., Learning Differentially Private Recurrent Language Models, 2018), on
adapters, with a trusted server.

    d_k = x_k - x                                       over all tensors of the adapter together
    x <- x + 1 / K (sum d_k min(1, C / |d_k|) + noise C g),    g normal, K clients of a round

So what one client does moves the sum by C at most, and (epsilon, delta) follows for a client with
all its rows. Examples do not weigh: with the weights n_k / sum n a client of many rows would move
the mean by more than C / K, and the weights themselves tell of the rows. K is how many were asked:
a client whose reply does not count adds nothing, and how many did count divides nothing. For the
same reason strategy.max-update-norm, by which others decide whether a client counts, is not used.

Each adapter that is saved is a release. Its noise follows from the server's secret key, the round,
who replied and the clipped sum: a round that is done again alike is the same release with the same
noise, and costs nothing; one that comes out otherwise (another client was lost) has fresh noise,
and counts once more. The run ends before a release that would pass epsilon.

Protected are the adapters. Losses, drift, residual and lengths in a run's records are not, nor who
took part. Noise is added in float64, and the result rounded to float32, far coarser than the
noise's own grid: a guard against the attack on low bits (Mironov, 2012), and no proof.
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from flowertune.config.lora import INIT
from flowertune.config.settings import EVA, WHERE
from flowertune.methods import base, privacy
from flowertune.methods.cores import on_all_cores
from flowertune.methods.noise_key import NoiseKey, key_named, key_of_run
from flowertune.methods.options import NAME, Option, number, read_options, share, text_of
from flowertune.methods.options import OPTIONS as SETTING

OPTIONS = (
    Option("clip", 1.0, number(0, above=True), "C: the norm that an update is cut to"),
    Option("noise", 2.0, number(0, 1e6, above=True), "the noise's standard deviation, in C"),
    Option("epsilon", 8.0, number(0, above=True), "the run ends before a release that passes it"),
    Option("delta", 1e-5, share(zero=False), "the delta of (epsilon, delta)"),
)
KEY = "noise-key"


def check(run_config: Mapping[str, Any]) -> list[str]:
    """Return a sentence if nothing can be accounted, or the first release passes epsilon."""
    if not privacy.can_account():
        return [f"{NAME} is 'dp-fedavg', which {privacy.MISSING}."]
    if run_config.get(INIT) == EVA:
        return [
            f"{NAME} is 'dp-fedavg', and {INIT} is {EVA!r}, whose first adapter is made of the "
            "rows of one client, without noise and in no account; use another one "
            f"({WHERE})."
        ]
    values, problems = read_options(text_of(run_config, SETTING), OPTIONS, "dp-fedavg")
    if problems or privacy.releases_within(values["epsilon"], values["noise"], values["delta"]):
        return []
    first = privacy.epsilon([values["noise"]], values["delta"])
    return [
        f"{SETTING} gives epsilon of dp-fedavg the value {values['epsilon']:g}, and the first "
        f"release has {first:.3g} with noise={values['noise']:g}: raise one of them ({WHERE})."
    ]


class Server(base.MethodServer):
    """Clips, adds, and adds noise."""

    layerwise = False

    def __init__(
        self,
        nodes: dict[int, int],
        clients: int,
        seed: int,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(nodes, clients, seed, options)
        self.key: NoiseKey = key_of_run()
        self.tag, self.replied = "", list[int]()  # of the round's result

    def combine(self, server_round: int, replies: Sequence[base.Reply]) -> base.Tensors:
        """Return the adapter, moved by the noisy sum of the clipped updates."""
        clip, noise = self.options["clip"], self.options["noise"]
        self.replied = sorted(reply.partition for reply in replies)
        cuts = [min(1.0, clip / n) if n else 1.0 for n in on_all_cores(self._norm, replies)]
        sums = on_all_cores(lambda name: self._sum(name, replies, cuts), self.start)
        named = list(zip(self.start, sums, strict=True))
        digests = on_all_cores(lambda pair: self._digest(*pair), named)
        made_of = repr((self.clients, self.options)).encode() + b"".join(digests)
        self.tag = self.key.tag(server_round, self.replied, made_of)

        def new(pair: tuple[str, np.ndarray]) -> tuple[str, np.ndarray]:
            name, total = pair
            self.key.add_noise(total, noise * clip, self.tag, name)
            total /= self.clients
            total += self.start[name]
            return name, total.astype(np.float32)

        return dict(on_all_cores(new, named))

    def _norm(self, reply: base.Reply) -> float:
        total = 0.0
        for name, start in self.start.items():
            row, before = reply.adapter[name].reshape(-1), start.reshape(-1)
            for first in range(0, row.size, base.BLOCK):
                part = slice(first, first + base.BLOCK)
                update = np.subtract(row[part], before[part], dtype=np.float64)
                total += float(np.square(update, out=update).sum())  # as ever, on any threads
        return float(np.sqrt(total))

    def _sum(self, name: str, replies: Sequence[base.Reply], cuts: Sequence[float]) -> np.ndarray:
        total, before = np.zeros(self.start[name].shape), self.start[name].reshape(-1)
        flat, rows = total.reshape(-1), [reply.adapter[name].reshape(-1) for reply in replies]
        for first in range(0, flat.size, base.BLOCK):
            part = slice(first, first + base.BLOCK)
            for row, cut in zip(rows, cuts, strict=True):
                flat[part] += cut * np.subtract(row[part], before[part], dtype=np.float64)
        return total

    def _digest(self, name: str, total: np.ndarray) -> bytes:
        digest = hashlib.sha256(name.encode("utf-8"))
        for values in (self.start[name], total):
            digest.update(np.ascontiguousarray(values).data)
        return digest.digest()

    @property
    def budget(self) -> privacy.Budget:
        """What has been released, and what may be."""
        epsilon, delta, noise = (self.options[name] for name in ("epsilon", "delta", "noise"))
        return privacy.Budget(self.key, epsilon, delta, noise)

    def stop_before(self, server_round: int) -> str | None:
        """Return why a round is not begun: its release would pass epsilon."""
        return self.budget.stop_before(server_round)

    def release(self, server_round: int) -> str | None:
        """Count the round's result as released; return why it must not be, if it must not."""
        return self.budget.release(server_round, self.replied, self.tag)

    def privacy(self, rounds: int) -> dict[str, Any]:
        """Return what has been spent after so many rounds."""
        return {**self.budget.record(rounds), "clip": self.options["clip"]}

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Return the name of the key; who has the state can go on where the key lies."""
        self.key.save()
        return {KEY: torch.frombuffer(bytearray.fromhex(self.key.name), dtype=torch.uint8)}

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        """Take the key of that name."""
        name = bytes(state[KEY].numpy()).hex()
        if self.key.name != name:
            self.key = key_named(name)
