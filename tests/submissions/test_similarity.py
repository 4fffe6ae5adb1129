"""Bundles that are alike are told of each other; those that are not, are not."""

import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from submissions.verify.similarity import Sketch, compare, sampled
from submissions.verify.weights import WIDTH, look, read_weights


def sketch(number: int, **values: object) -> Sketch:
    random = np.random.default_rng(number)
    given = {
        "name": f"{number}.zip",
        "team": f"team {number}",
        "challenge": "finance",
        "weights": f"{number:064x}",
        "adapter": random.standard_normal(WIDTH).astype(np.float32),
        "answers": random.integers(0, 2**32, 512, dtype=np.uint32),
        "questions": {"fpb": "0" * 64},
        **values,
    }
    return Sketch(**given)  # type: ignore[arg-type]


def told(sketches: list[Sketch]) -> dict[int, set[str]]:
    return {place: {f.check for f in found} for place, found in compare(sketches).items()}


def test_others_are_not_alike() -> None:
    assert told([sketch(n) for n in range(20)]) == {}


def test_one_adapter_twice() -> None:
    found = compare([sketch(0), sketch(1), sketch(2, weights=sketch(0).weights)])
    assert {place: [f.check for f in of] for place, of in found.items()} == {
        0: ["same-adapter"],
        2: ["same-adapter"],
    }
    assert found[2][0].level == "warning"
    assert "'0.zip' of 'team 0'" in found[2][0].sentence


def test_an_adapter_that_was_changed_a_little() -> None:
    one = sketch(0)
    assert one.adapter is not None
    noise = np.random.default_rng(9).standard_normal(WIDTH).astype(np.float32)
    near = sketch(1, adapter=3 * one.adapter + 0.02 * noise)
    assert told([one, sketch(2), near]) == {0: {"alike-adapter"}, 2: {"alike-adapter"}}
    far = sketch(1, adapter=one.adapter + 0.2 * noise)
    assert told([one, far]) == {}


def test_answers_that_were_copied() -> None:
    one = sketch(0)
    few = one.answers.copy()
    few[::200] += 1
    assert told([one, sketch(1, answers=few)]) == {0: {"alike-answers"}, 1: {"alike-answers"}}
    many = one.answers.copy()
    many[::20] += 1
    assert told([one, sketch(1, answers=many)]) == {}


def test_other_challenges_are_not_compared() -> None:
    assert told([sketch(0), sketch(0, challenge="medical")]) == {}


def test_questions_of_its_own() -> None:
    odd = sketch(3, questions={"fpb": "1" * 64})
    assert told([sketch(0), sketch(1), sketch(2), odd]) == {3: {"other-questions"}}


def test_the_sketch_of_weights_is_near_where_they_are(tmp_path: Path) -> None:
    random = np.random.default_rng(0)

    def of(change: float) -> np.ndarray:
        own = np.random.default_rng(7)
        tensors = {
            f"layer{n}.lora_{part}.weight": (
                random.standard_normal((64, 128)) * change + own.standard_normal((64, 128))
            ).astype(np.float32)
            for n in range(8)
            for part in "AB"
        }
        save_file(tensors, tmp_path / "w")
        return look(read_weights(tmp_path / "w")).sketch

    def cosine(one: np.ndarray, other: np.ndarray) -> float:
        return float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))

    assert cosine(of(0), of(0)) == pytest.approx(1)
    assert cosine(of(0), of(0.01)) > 0.999
    assert abs(cosine(of(0), of(1)) - 0.5**0.5) < 0.1


def test_the_same_rows_are_sampled_everywhere() -> None:
    rows = [("fpb", number, f"answer {number}") for number in range(1000)]
    changed = [(name, number, "other" if number < 500 else text) for name, number, text in rows]
    assert len(sampled(rows)) == 512
    assert 0.4 < float(np.mean(sampled(rows) == sampled(changed))) < 0.6


def test_comparing_grows_linearly() -> None:
    def seconds(count: int) -> float:
        sketches = [sketch(n) for n in range(count)]
        began = time.perf_counter()
        compare(sketches)
        return time.perf_counter() - began

    seconds(50)
    assert seconds(400) < 8 * max(seconds(100), 0.05)
