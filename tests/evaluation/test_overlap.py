"""Which evaluation rows are found among training rows, against a plain search."""

import random
import subprocess
import sys
from itertools import pairwise

import pytest

from evaluation.contamination.overlap import SIZE, Index, Match
from evaluation.contamination.words import normal, words

SENTENCE = "Operating profit rose to EUR 13.1 mn from EUR 8.7 mn in the same quarter of 2008"


def found(evaluation, training):
    index = Index({"set": evaluation})
    index.see(training)
    return index.found()["set"]


def test_case_signs_white_space_and_unicode_forms_make_no_difference():
    assert words("The ﬁrst, (of 2) — GRÖSSE_x!") == ["the", "first", "of", "2", "grösse", "x"]
    assert normal("A  b.") == normal("a B") == "a b"
    assert normal(" 👍 ! ") == "👍!"
    assert found([("Is it so?",)], [("is it, SO",)]).matches == {0: Match(0, True, 0.0)}


def test_a_question_is_a_column_or_two_in_a_row_and_never_a_part_of_one():
    asked = [("Name three colors of the sky",), ("Say it: hello",), ("👍",), ("",)]
    training = [
        ("Name three", "colors of the sky", "blue"),
        ("Say it", "hello there"),
        ("Please say it", "hello"),
        ("👍", ""),
    ]
    assert found(asked, training).matches == {0: Match(0, True, 0.0), 2: Match(3, True, 0.0)}


def test_thirteen_words_in_a_row_count_and_twelve_do_not():
    kept = SENTENCE.split()
    thirteen, twelve = " ".join(kept[2:15]), " ".join(kept[2:14])
    assert len(words(thirteen)) == 15  # 13.1 and 8.7 are two words each
    match = found([(SENTENCE,)], [("other",), ("A new text", f"that says {thirteen} and more")])
    (one,) = match.matches.values()
    assert (one.training_row, one.exact, round(one.share, 4)) == (1, False, 0.4286)  # 3 of 7
    assert found([(SENTENCE,)], [(" ".join(words(twelve)[:12]),)]).matches == {}
    # The row before ends with what the next one begins with: no text goes across.
    assert found([(SENTENCE,)], [(" ".join(kept[:9]),), (" ".join(kept[9:]),)]).matches == {}
    assert found([(SENTENCE,)], [(" ".join(kept[:9]), " ".join(kept[9:]))]).matches != {}


def test_rows_too_short_for_an_n_gram_are_counted():
    overlap = found([("one two",), (SENTENCE,), ("one two three", SENTENCE)], [])
    assert (overlap.rows, overlap.short, overlap.matches) == (3, 1, {})
    assert found([], [("a",)]).rows == 0


def plain(evaluation, training):
    """The same by the definition, without hashes."""

    def grams(texts):
        every = [word for text in texts for word in words(text)]
        return [tuple(every[n : n + SIZE]) for n in range(len(every) - SIZE + 1)]

    matches = {}
    for number, row in enumerate(evaluation):
        own = grams(row)
        exact = [
            n
            for n, texts in enumerate(training)
            if normal(row[0]) in {normal(text) for text in texts}
            or normal(row[0]) in {normal(f"{a} {b}") for a, b in pairwise(texts)}
        ]
        shared = [n for n, texts in enumerate(training) if {*own} & {*grams(texts)}]
        there = {gram for texts in training for gram in grams(texts)}
        if exact or shared:
            share = sum(gram in there for gram in own) / len(own) if own else 0.0
            matches[number] = Match((exact or shared)[0], bool(exact), share)
    return matches


@pytest.mark.parametrize("seed", range(6))
def test_what_is_found_is_what_a_plain_search_finds(seed, monkeypatch):
    from evaluation.contamination import overlap

    monkeypatch.setattr(overlap, "_CHUNK", 7)  # several chunks
    draw = random.Random(seed)
    letters = "ab" if seed % 2 else "abcdefgh"  # n-grams by chance, or none

    def text(most):
        return " ".join(draw.choices(letters, k=draw.randint(1, most)))

    evaluation = [(text(20), text(12)) for _ in range(30)]
    training = [(text(6), text(16), text(30)) for _ in range(40)]
    training[::9] = [(evaluation[n][0], "x", text(3)) for n in range(len(training[::9]))]
    matches = found(evaluation, training).matches
    assert matches == plain(evaluation, training)
    assert len(matches) >= 5 and any(not one.exact for one in matches.values()) == seed % 2


def test_sets_are_told_apart_and_rows_may_stream():
    index = Index({"a": [("x y",), ("z",)], "b": [("x y",)], "c": []})
    index.see(iter([("q",)]))
    index.see(iter([("X, y",)]))
    every = index.found()
    assert [list(every[name].matches) for name in "abc"] == [[0], [0], []]
    assert every["a"].matches[0].training_row == 1


_MEASURED = """
import random, resource, sys, time
from evaluation.contamination.overlap import Index
draw = random.Random(1)
names = ["w%d" % n for n in range(60_000)]
weights = [1 / (n + 5) for n in range(len(names))]
def text(count): return " ".join(draw.choices(names, weights, k=count))
pool = [text(100) for _ in range(2000)]
rows = int(sys.argv[1])
index = Index({"set": [(text(20), draw.choice(pool)) for _ in range(int(sys.argv[2]))]})
before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
index.see((draw.choice(pool), str(n)) for n in range(rows))
index.found()
print(time.process_time() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.full
def test_time_is_linear_in_training_rows_and_memory_is_not_theirs():
    def measured(rows):
        command = [sys.executable, "-c", _MEASURED, str(rows), "10000"]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
        seconds, kib = map(float, done.stdout.split())
        return seconds, kib / 1024

    (few, _), (many, mib) = measured(25_000), measured(100_000)
    assert many < 6 * few and many < 60
    assert mib < 100
