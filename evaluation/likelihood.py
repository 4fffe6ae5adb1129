"""Log-likelihoods of answers that are given: one pass for all that one pass says."""

from collections.abc import Sequence
from typing import Any

import torch

from evaluation.decoding.forward import Reader, alike
from evaluation.decoding.memory import Slots, in_slots

Pair = tuple[list[int], list[int]]  # tokens of a context, and of what may follow
Likelihood = tuple[float, bool]  # the log-likelihood, and whether it is what the model would say


class Likelihoods:
    """What a model thinks of continuations.

    Continuations that differ in their last token need one pass together; of a pass, only the scores
    of continuations are computed; what all rows of a batch begin with is read once.
    """

    def __init__(
        self, model: Any, pad_id: int, slots: Slots, *, max_length: int, share: bool
    ) -> None:
        """Begin.

        Args:
            model: a causal language model.
            pad_id: any token id.
            slots: how many rows are in one pass.
            max_length: tokens that the model can read; longer contexts are cut on the left.
            share: see `forward.Reader`.
        """
        self.model, self.slots, self.max_length = model, slots, max_length
        self.reader = Reader(model, pad_id, share=share)
        self.single = Reader(model, pad_id, share=False)

    def of(self, pairs: Sequence[Pair], *, alone: bool = False) -> list[Likelihood]:
        """Return the likelihood of each continuation; with `alone`, every row goes by itself.

        Raises:
            UserError: there is not memory for one row.
        """
        rows: dict[tuple[int, ...], list[int]] = {}
        for number, (context, continuation) in enumerate(pairs):
            row = (context + continuation)[-(self.max_length + 1) :][:-1]
            rows.setdefault(tuple(row), []).append(number)
        found: dict[int, Likelihood] = {}
        tokens = list(rows)

        def work(batch: Sequence[int]) -> Sequence[int]:
            read = [tokens[number] for number in batch]
            asked = [rows[row] for row in read]
            widths = [max(len(pairs[n][1]) for n in numbers) for numbers in asked]
            found.update(self._answers(pairs, read, asked, widths, alone))
            return batch

        size = 1
        if not alone and tokens:
            size = self.slots.at_most(self.model, max(map(len, tokens)), len(tokens))
        for batch in alike(tokens, size):
            in_slots(batch, min(size, self.slots.most or size), self.slots, work)
        return [found[number] for number in range(len(pairs))]

    @torch.inference_mode()
    def _answers(
        self,
        pairs: Sequence[Pair],
        rows: list[tuple[int, ...]],
        asked: list[list[int]],
        widths: list[int],
        alone: bool,
    ) -> dict[int, Likelihood]:
        places = [
            list(range(len(row) - width, len(row))) for row, width in zip(rows, widths, strict=True)
        ]
        reader = self.single if alone else self.reader
        scores = torch.cat(reader.scores(rows, places))
        best = scores.argmax(-1).tolist()
        sums = scores.logsumexp(-1)
        lines: list[int] = []
        tokens: list[int] = []
        parts: list[tuple[int, int]] = []
        line = 0
        for numbers, width in zip(asked, widths, strict=True):
            line += width
            for number in numbers:
                continuation = pairs[number][1]
                lines += range(line - len(continuation), line)
                tokens += continuation
                parts.append((number, len(continuation)))
        values = (scores[lines, tokens] - sums[lines]).tolist()
        found, first = {}, 0
        for number, count in parts:
            own = slice(first, first + count)
            greedy = all(best[n] == token for n, token in zip(lines[own], tokens[own], strict=True))
            found[number] = (sum(values[own]), greedy)
            first += count
        return found
