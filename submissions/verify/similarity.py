"""Bundles that are alike: identical or near-identical adapters and answers, by sketches.

Each bundle is looked at once and leaves a sketch of some kilobytes. Sketches are compared only
where a band of them is equal (locality-sensitive hashing): a thousand bundles take a thousand times
what one takes.
"""

import hashlib
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from flowertune.rules.values import shown
from submissions import layout
from submissions.findings import Finding
from submissions.verify.case import Case

ALIKE_ADAPTERS = 0.999  # cosine
ALIKE_ANSWERS = 0.99  # share of sampled answers that are equal
_BANDS, _BITS = 16, 16  # of an adapter's sketch
_SAMPLED, _ROWS = 512, 32  # answers in a sketch, and in a band of it
_LEAST = 100  # answers that have to be there
_PLANES = 7  # of the projection's random generator: any fixed number


@dataclass(frozen=True)
class Sketch:
    """What is kept of a bundle to compare it with others.

    Attributes
    ----------
    name, team
        Of the bundle, and who it says made it.
    challenge
        Only bundles of one challenge are compared.
    weights
        sha256 of the adapter's weights.
    adapter
        A random projection of the adapter (see ``weights.look``); None where it was not there.
    answers
        A hash of each sampled answer; empty where answers could not be read.
    questions
        sha256 of the questions and targets of each set.
    """

    name: str
    team: str
    challenge: str
    weights: str | None
    adapter: np.ndarray | None
    answers: np.ndarray
    questions: dict[str, str]


def sketch_of(case: Case) -> Sketch | None:
    """Return the sketch of a bundle; None where it does not say which challenge it is for."""
    if case.manifest is None:
        return None
    given = case.bundle.given
    return Sketch(
        given.name or str(given),
        str((case.submission or {}).get("team", "")),
        case.manifest["challenge"],
        # The manifest has it where the weights are kept elsewhere, too.
        case.bundle.sums.get(layout.WEIGHTS) or case.manifest["adapter-sha256"],
        case.sketch,
        case.answers if case.answers is not None else np.empty(0, np.uint32),
        dict(case.facts.get("questions", {})),
    )


def sampled(rows: Sequence[tuple[str, int, str]]) -> np.ndarray:
    """Return a hash of each of at most 512 answers, the same rows in every bundle.

    Parameters
    ----------
    rows
        Set, number and answer of each row, in the order of sets and rows.
    """
    order = np.random.default_rng(_PLANES).permutation(len(rows))[:_SAMPLED]
    return np.array([_short(f"{rows[i][0]}\0{rows[i][1]}\0{rows[i][2]}") for i in order], np.uint32)


def _short(text: str) -> int:
    digest = hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=4).digest()
    return int.from_bytes(digest, "little")


def compare(sketches: Sequence[Sketch]) -> dict[int, list[Finding]]:
    """Return what is alike among bundles: findings for each, by its place in the list.

    Each is told of one other bundle at most: the first that it is alike with.
    """
    found: dict[int, list[Finding]] = {}
    for challenge in sorted({sketch.challenge for sketch in sketches}):
        places = [n for n, sketch in enumerate(sketches) if sketch.challenge == challenge]
        told: set[int] = set()
        for first, other, sentence, check in [
            *_identical(sketches, places),
            *_adapters(sketches, places),
        ]:
            if other not in told:
                told.add(other)
                _tell(found, sketches, first, other, sentence, check, layout.WEIGHTS)
        told = set()
        for first, other, sentence in _answers(sketches, places):
            if other not in told:
                told.add(other)
                _tell(found, sketches, first, other, sentence, "alike-answers", layout.ROWS)
        for place, name in _questions(sketches, places):
            sentence = f"The questions or targets of {name} are not those of most other bundles."
            finding = Finding("score", "warning", layout.ROWS, sentence, "other-questions")
            found.setdefault(place, []).append(finding)
    return found


def _tell(
    found: dict[int, list[Finding]],
    sketches: Sequence[Sketch],
    first: int,
    other: int,
    sentence: str,
    check: str,
    place: str,
) -> None:
    kind = "score" if check == "alike-answers" else "run"
    for own, its in ((other, first), (first, other)):
        twin = sketches[its]
        text = f"{sentence} {shown(twin.name)} of {shown(twin.team)}."
        known = [finding for finding in found.get(own, ()) if finding.check == check]
        if not known:
            found.setdefault(own, []).append(Finding(kind, "warning", place, text, check))


def _identical(
    sketches: Sequence[Sketch], places: Sequence[int]
) -> Iterable[tuple[int, int, str, str]]:
    first: dict[str, int] = {}
    for place in places:
        digest = sketches[place].weights
        if digest is None:
            continue
        if digest in first:
            yield first[digest], place, "The adapter is, byte for byte, that of", "same-adapter"
        first.setdefault(digest, place)


def _adapters(
    sketches: Sequence[Sketch], places: Sequence[int]
) -> Iterable[tuple[int, int, str, str]]:
    planes = np.random.default_rng(_PLANES)
    unit: dict[int, np.ndarray] = {}
    for place in places:
        adapter = sketches[place].adapter
        if adapter is not None and (norm := float(np.linalg.norm(adapter))) > 0:
            unit[place] = adapter / norm
    if not unit:
        return
    width = len(next(iter(unit.values())))
    matrix = planes.standard_normal((width, _BANDS * _BITS)).astype(np.float32)

    def bands(place: int) -> list[Hashable]:
        bits = (unit[place] @ matrix > 0).reshape(_BANDS, _BITS)
        return [band.tobytes() for band in bits]

    for one, other in _candidates(list(unit), bands):
        cosine = float(unit[one] @ unit[other])
        if cosine >= ALIKE_ADAPTERS:
            yield (
                one, other,
                f"The adapter points where that of another does (cosine {cosine:.4f}):",
                "alike-adapter",
            )  # fmt: skip


def _answers(sketches: Sequence[Sketch], places: Sequence[int]) -> Iterable[tuple[int, int, str]]:
    known = [place for place in places if len(sketches[place].answers) >= _LEAST]

    def bands(place: int) -> list[Hashable]:
        answers = sketches[place].answers
        return [answers[n : n + _ROWS].tobytes() for n in range(0, len(answers), _ROWS)]

    for one, other in _candidates(known, bands):
        first, second = sketches[one].answers, sketches[other].answers
        share = float(np.mean(first == second)) if len(first) == len(second) else 0.0
        if share >= ALIKE_ANSWERS:
            yield one, other, f"{share:.1%} of the sampled answers are, word for word, those of"


def _candidates(
    places: Sequence[int], bands: Callable[[int], list[Hashable]]
) -> Iterable[tuple[int, int]]:
    """Yield each place with the first one that it shares a band with, once."""
    first: dict[tuple[int, Hashable], int] = {}
    for place in places:
        seen = set()
        for number, band in enumerate(bands(place)):
            other = first.setdefault((number, band), place)
            if other != place and other not in seen:
                seen.add(other)
                yield other, place


def _questions(sketches: Sequence[Sketch], places: Sequence[int]) -> Iterable[tuple[int, str]]:
    """Yield bundles whose questions differ from those of most others, with the set's name."""
    counts: dict[tuple[str, str], int] = {}
    for place in places:
        for pair in sketches[place].questions.items():
            counts[pair] = counts.get(pair, 0) + 1
    totals: dict[str, int] = {}
    for (name, _), count in counts.items():
        totals[name] = totals.get(name, 0) + count
    for place in places:
        for pair in sketches[place].questions.items():
            if totals[pair[0]] > 2 and 2 * counts[pair] < totals[pair[0]]:
                yield place, pair[0]
