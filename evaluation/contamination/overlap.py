"""Exact and n-gram overlap of training rows with evaluation rows, in one pass over the former.

The evaluation sets are held in memory, as numbers: 8 bytes and a few more for each of their words.
Training rows stream by, so their number costs time only, and in proportion.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from evaluation.contamination.words import normal, words

SIZE = 13  # words, as in the report on GPT-3 and many since
_CHUNK = 2000  # training rows at a time
# Odd, so that no word is multiplied away.
_FACTOR = np.uint64(0x9E3779B97F4A7C15)
_NONE = np.iinfo(np.int64).max


@dataclass(frozen=True)
class Match:
    """An evaluation row that is among the training rows, or shares words with them.

    Attributes:
        training_row: the first training row that has it, counted from 0.
        exact: whether a text of that training row is the question, word for word.
        share: of the evaluation row's 13-grams, how many are in training rows; 0 to 1.
    """

    training_row: int
    exact: bool
    share: float


@dataclass(frozen=True)
class Overlap:
    """What of one evaluation set is also in the training rows.

    Attributes:
        rows: of the evaluation set.
        short: rows of fewer words than an n-gram has, for which only exact copies are found.
        matches: by the number of the evaluation row, counted from 0.
    """

    rows: int
    short: int
    matches: dict[int, Match]


class Index:
    """The evaluation sets, made ready for training rows to be held against them."""

    def __init__(self, sets: Mapping[str, Sequence[Sequence[str]]], size: int = SIZE) -> None:
        """Index sets.

        Args:
            sets: name -> texts of each row: the question, which is looked for as it stands, and
                what belongs to it (options, contexts). The n-grams are of all of them together.
            size: words of an n-gram.
        """
        self._size = size
        self._rows = {name: len(rows) for name, rows in sets.items()}
        self._vocabulary: dict[str, int] = {}  # word -> number; 0 is any other word
        self._questions: dict[str, list[int]] = {}  # normal form -> places of rows
        sequences: list[list[int]] = []
        for row in (row for rows in sets.values() for row in rows):
            place = len(sequences)
            self._questions.setdefault(normal(row[0]), []).append(place)
            sequences.append([self._number(word) for text in row for word in words(text)])
        self._questions.pop("", None)
        self._short = np.array([len(sequence) < size for sequence in sequences], bool)
        random = np.random.default_rng(0)
        self._codes = random.integers(2**64, size=len(self._vocabulary) + 1, dtype=np.uint64)
        made = [self._grams(np.array(sequence, np.int64))[0] for sequence in sequences]
        self._ends = np.cumsum([len(grams) for grams in made], dtype=np.int64)
        everything = np.concatenate([*made, np.empty(0, np.uint64)])
        self._known, self._which = np.unique(everything, return_inverse=True)
        self._first = np.full(len(self._known), _NONE)  # training row of each n-gram
        self._exact: dict[int, int] = {}  # place of an evaluation row -> training row
        self._seen = 0

    def _number(self, word: str) -> int:
        return self._vocabulary.setdefault(word, len(self._vocabulary) + 1)

    def _grams(self, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Hashes of the n-grams that hold no word 0, and where they begin."""
        count = len(numbers) - self._size + 1
        if count < 1:
            return np.empty(0, np.uint64), np.empty(0, np.int64)
        unknown = np.concatenate([[0], np.cumsum(numbers == 0)])
        starts = np.flatnonzero(unknown[self._size :] == unknown[:count])
        codes, hashes = self._codes[numbers], np.zeros(len(starts), np.uint64)
        for place in range(self._size):
            hashes = hashes * _FACTOR + codes[starts + place]
        return hashes, starts

    def see(self, rows: Iterable[Sequence[str]]) -> None:
        """Hold training rows against the sets; each is its texts, in the order of its columns."""
        for chunk in _chunks(rows):
            numbers: list[int] = []
            begins = []
            for row in chunk:
                begins.append(len(numbers))
                numbers += self._see_row(row, self._seen + len(begins) - 1)
                numbers.append(0)  # no n-gram goes from one row into the next
            self._see_grams(np.array(numbers, np.int64), np.array(begins, np.int64))
            self._seen += len(chunk)

    def _see_row(self, row: Sequence[str], number: int) -> list[int]:
        """Return the numbers of a row's words, and note of which questions it is a copy."""
        known = self._vocabulary.get
        numbers, before = [], None
        for text in row:
            found = words(text)
            own = [known(word, 0) for word in found]
            numbers += own
            here = (" ".join(found) or normal(text)) if 0 not in own else None
            # A question may be an instruction and its input together.
            for asked in (here, f"{before} {here}" if before and here else None):
                for place in self._questions.get(asked, ()) if asked else ():
                    self._exact.setdefault(place, number)
            before = here
        return numbers

    def _see_grams(self, numbers: np.ndarray, begins: np.ndarray) -> None:
        hashes, starts = self._grams(numbers)
        if not len(hashes) or not len(self._known):
            return
        places = np.minimum(np.searchsorted(self._known, hashes), len(self._known) - 1)
        hits = self._known[places] == hashes
        rows = np.searchsorted(begins, starts[hits], side="right") - 1 + self._seen
        np.minimum.at(self._first, places[hits], rows)

    def found(self) -> dict[str, Overlap]:
        """Return what was found in the training rows so far, by set."""
        result, place = {}, 0
        for name, rows in self._rows.items():
            places = range(place, place + rows)
            matches = {p - place: match for p in places if (match := self._match(p)) is not None}
            short = int(self._short[place : place + rows].sum())
            result[name] = Overlap(rows, short, matches)
            place += rows
        return result

    def _match(self, place: int) -> Match | None:
        start = self._ends[place - 1] if place else 0
        first = self._first[self._which[start : self._ends[place]]]
        shared = first[first != _NONE]
        exact = self._exact.get(place)
        if exact is None and not len(shared):
            return None
        row = exact if exact is not None else int(shared.min())
        return Match(row, exact is not None, len(shared) / len(first) if len(first) else 0.0)


def _chunks(rows: Iterable[Sequence[str]]) -> Iterator[list[Sequence[str]]]:
    stream = iter(rows)
    while chunk := list(islice(stream, _CHUNK)):
        yield chunk
