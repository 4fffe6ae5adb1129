"""A bundle's answers to some rows beside those that the model gives now."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from evaluation.sets import Answer, Form
from flowertune.base.text import one_line
from submissions.rescore.ties import likelihood_gap

# In logits, or in log-likelihoods: how far apart two machines may be. See the guide.
TIE = {"float32": 0.01, "bfloat16": 0.25, "float16": 0.25}
SAME, TIED, DIFFERENT = "same", "tied", "different"

Gap = Callable[[str, str, str], float | None]  # of context, claimed text, text now


@dataclass(frozen=True)
class RowCompared:
    """What became of a row: SAME, TIED or DIFFERENT, and in a phrase why."""

    row: int
    verdict: str
    why: str = ""


def compare_row(
    number: int, claimed: Mapping[str, Any], again: Answer, form: Form, tie: float, gap: Gap
) -> RowCompared:
    """Compare one row.

    Parameters
    ----------
    claimed : Mapping[str, Any]
        The line in the bundle: the document's fields, and "checkpoint" with the answer.
    gap : Callable
        ``ties.token_gap``, of a context and two texts.
    """
    document = {key: claimed.get(key) for key in again.document}
    if document != again.document:
        return RowCompared(number, DIFFERENT, "its question or target is not that of the set")
    said = claimed["checkpoint"]
    points = float(again.outcome.points)
    if form.config()["output_type"] == "multiple_choice":
        return _choices(number, said, again, tie)
    if said["responses"] == again.responses:
        if said["points"] == points and said["answer"] == again.outcome.answer:
            return RowCompared(number, SAME)
        if form.program is not None and "timed out" in again.outcome.answer:
            return RowCompared(number, TIED, "a program took too long here")
        return RowCompared(
            number,
            DIFFERENT,
            f"the same text counts {points:g} points here, and {said['points']:g} in the bundle",
        )
    context = str(again.document["context"])
    pairs = zip(said["responses"], again.responses, strict=False)
    gaps = [gap(context, one, now) for one, now in pairs if one != now]
    if len(said["responses"]) == len(again.responses) and all(
        apart is not None and apart <= tie for apart in gaps
    ):
        return RowCompared(number, TIED, f"up to {max(g or 0.0 for g in gaps):.2g} below the best")
    return RowCompared(
        number,
        DIFFERENT,
        f"the answer is {_short(again.outcome.answer)} with {points:g} points, and in the bundle "
        f"{_short(said['answer'])} with {said['points']:g}; {_apart(gaps)}",
    )


def _choices(number: int, said: Mapping[str, Any], again: Answer, tie: float) -> RowCompared:
    apart = likelihood_gap(said["responses"], again.responses)
    if apart is None or apart > tie:
        how = "are not as many" if apart is None else f"are {apart:.2g} apart"
        return RowCompared(number, DIFFERENT, f"the log-likelihoods of its choices {how}")
    if said["answer"] == again.outcome.answer and said["points"] == float(again.outcome.points):
        return RowCompared(number, SAME)
    return RowCompared(number, TIED, "its best two choices are equally likely")


def _apart(gaps: list[float | None]) -> str:
    known = [gap for gap in gaps if gap is not None]
    if not known:
        return "the texts differ in no token of the answer"
    return f"its token is {max(known):.2g} below the best one"


def _short(answer: Any) -> str:
    return one_line(repr(str(answer)), 40)
