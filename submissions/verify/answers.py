"""What one answer may look like: its types, its question's, and what a decoding can give."""

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from evaluation import score
from evaluation.mcq import OFFICIAL_BATCH
from evaluation.sets import Form, Outcome
from flowertune.base.text import counted
from flowertune.rules.values import shown

_TOKEN = 128  # the longest token of a known tokenizer, in characters: a run of blanks
_WORDS = 4  # words in a token, at the very most
_SETTLED = 2 * _TOKEN  # characters that the token may bring which settles an answer
_STATUSES = 12  # kinds of ends that a program can have, with room


def document_problem(document: Mapping[str, Any], form: Form) -> str | None:
    """Return what is wrong with a row's question and target, to stand after "The question"."""
    if not isinstance(document.get("target"), str):
        return "has no target that is a text"
    kwargs = form.config().get("generation_kwargs")
    if kwargs is None:
        return None
    wanted = {"context", "target"}
    wanted |= {"as_long_as"} if "length_of" in kwargs else set()
    wanted |= {"tests"} if form.program is not None else set()
    if document.keys() != wanted:
        return f"has the fields {shown(sorted(document))}, which have to be {sorted(wanted)}"
    if not all(isinstance(value, str) for value in document.values()):
        return "has a field that is no text"
    return None if document["context"].strip() else "is blank"


def order_problem(documents: list[dict[str, Any]], form: Form) -> str | None:
    """Return what is wrong with the rows of a set together; None if nothing is."""
    kwargs = form.config().get("generation_kwargs") or {}
    if kwargs.get("length_of") != "as_long_as":
        return None
    for number, document in enumerate(documents):
        first = documents[number - number % OFFICIAL_BATCH]["target"]
        if document["as_long_as"] != first:
            return (
                f"Row {number} may be answered as long as {shown(document['as_long_as'])}, and the "
                f"official limit is the first target of its {OFFICIAL_BATCH} rows, {shown(first)}"
            )
    return None


def shape_problem(given: Any, form: Form) -> str | None:
    """Return what is wrong with an answer's fields, to stand after "The answer of MODEL"."""
    if not isinstance(given, dict):
        return "is missing"
    if sorted(given) != ["answer", "parseable", "points", "responses"]:
        return f"has the fields {shown(sorted(given))}"
    responses = given["responses"]
    if not isinstance(responses, list) or not responses:
        return "has no responses"
    if form.config()["output_type"] == "multiple_choice":
        if not all(_is_likelihood(one) for one in responses):
            return "has a response that is no log-likelihood"
    elif not all(isinstance(one, str) for one in responses):
        return "has a response that is no text"
    elif form.program is None and len(responses) != 1:
        return f"has {len(responses)} responses, and greedy decoding gives one"
    if not isinstance(given["answer"], str) or type(given["points"]) not in (int, float):
        return "has no answer, or no points"
    if not 0 <= given["points"] <= 1:
        return f"has {shown(given['points'])} points"
    return None if given["parseable"] in (True, False, None) else "says no usable parseable"


def _is_likelihood(one: Any) -> bool:
    return (
        isinstance(one, list)
        and len(one) == 2
        and type(one[0]) in (int, float)
        and one[0] <= 0
        and type(one[1]) is bool
    )


def program_outcome(given: Mapping[str, Any]) -> Outcome | str:
    """Return the outcome of programs as the row has it, or what contradicts itself in it.

    Programs are not run here: whether a program passes is for a re-score to see.
    """
    samples = len(given["responses"])
    statuses = given["answer"].split(", ") if given["answer"] else []
    points = Fraction(given["points"]).limit_denominator(samples)
    passed = points * samples
    if abs(float(points) - given["points"]) > 1e-9 or passed.denominator != 1:
        return f"has {shown(given['points'])} points of {counted(samples, 'program')}"
    if not statuses or sorted(set(statuses)) != statuses or len(statuses) > _STATUSES:
        return f"has the statuses {shown(given['answer'])}"
    if ("passed" in statuses) != (passed > 0) or (statuses == ["passed"]) != (passed == samples):
        return f"has {passed} of {samples} points with the statuses {shown(given['answer'])}"
    return Outcome(given["answer"], points)


@dataclass(frozen=True)
class Limits:
    """What bounds an answer.

    Attributes
    ----------
    tokens
        The most new tokens; None where each row has its own limit.
    length_of
        The document's field that says how long its answer is, None where none does.
    whole_row
        Whether a response begins with its prompt.
    settles
        Whether a response ends where its answer is settled.
    stops
        Texts that no response holds.
    """

    tokens: int | None
    length_of: str | None
    whole_row: bool
    settles: bool
    stops: tuple[str, ...]


def limits(form: Form, results: Mapping[str, Any]) -> Limits:
    """Return what bounds the answers of a form, with a result's settings of generation."""
    kwargs = form.config().get("generation_kwargs") or {}
    followed = results["decoding"].get("generation-config")
    own = followed.get("max_new_tokens") if isinstance(followed, dict) else None
    tokens = kwargs.get("max_length")
    return Limits(
        tokens=own if type(own) is int and tokens is not None else tokens,
        length_of=kwargs.get("length_of"),
        whole_row=kwargs.get("response") == "whole row",
        settles="settled" in kwargs and results["decoding"].get("batching") == "rows",
        stops=tuple(kwargs.get("until", ())),
    )


def impossible(document: Mapping[str, Any], response: Any, limits: Limits) -> str | None:
    """Return why no decoding gives a response, to stand after "The answer of MODEL"."""
    if not isinstance(response, str):
        return None
    tokens = limits.tokens
    if limits.length_of is not None:
        # Each byte of a text is a token at most, and some tokenizers put one before a text.
        tokens = len(document[limits.length_of].encode()) + 1
    if tokens is None:
        return None
    new = response
    if limits.whole_row:
        new = without_prompt(response, document["context"])
        if new is None:
            return "does not begin with its question"
    if len(new) > _TOKEN * tokens or len(new.split()) > _WORDS * tokens:
        return f"has {len(new):,} characters, more than {counted(tokens, 'token')} hold"
    if stop := next((word for word in limits.stops if word in new), None):
        return f"goes on after {shown(stop)}, where it stops"
    if limits.settles and _beyond_settled(response):
        return "goes on after the word that settles it"
    return None


def without_prompt(row: str, prompt: str) -> str | None:
    """Return what follows a prompt in a decoded row; None if the row does not begin with it.

    Tokenizers change blanks when they decode, and write what they do not know in another way.
    """
    if row.startswith(prompt):
        return row[len(prompt) :]
    wanted = [char for char in prompt if not char.isspace()]
    place = missed = 0
    for char in wanted:
        end = place
        while end < len(row) and end - place < _TOKEN and row[end] != char:
            end += 1
        if end < len(row) and row[end] == char:
            skipped = sum(not one.isspace() for one in row[place:end])
            if skipped <= 8:
                place = end + 1
                continue
        missed += 1
        if missed > 8 + len(wanted) // 10:
            return None
    return row[place:]


def _beyond_settled(row: str) -> bool:
    text = score.sentiment_text(row)
    places = [place for word in ("positive", "Positive") if (place := text.find(word)) >= 0]
    return bool(places) and len(text) - min(places) > _SETTLED
