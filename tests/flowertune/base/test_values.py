"""Numbers, words, seeds, digests and what a worker keeps."""

import math
from collections.abc import Mapping
from typing import Any

import pytest

from flowertune.base.cache import cached, clear_cache
from flowertune.base.hashing import file_sha256, json_sha256
from flowertune.base.hub import is_hub_id
from flowertune.base.numbers import as_float, as_int
from flowertune.base.seeds import derive_seed
from flowertune.base.text import counted, duration, one_line
from flowertune.base.versions import package_version, package_versions


def test_a_number_is_what_it_should_be():
    record: dict[str, Any] = {"n": 3, "x": 2.5, "b": True, "s": "3", "l": [3]}
    assert as_int(record, "n") == 3
    assert (as_float(record, "n"), as_float(record, "x")) == (3.0, 2.5)
    for key in ("x", "b", "s", "l"):
        with pytest.raises(TypeError, match=f"{key} is .*, not a whole number"):
            as_int(record, key)
    for key in ("b", "s", "l"):
        with pytest.raises(TypeError, match=f"{key} is .*, not a number"):
            as_float(record, key)
    assert math.isnan(as_float({"x": math.nan}, "x"))


def test_how_numbers_and_errors_read():
    spans = {0: "0 s", 59.4: "59 s", 59.6: "1 min 00 s", 3599: "59 min 59 s", 7500: "2 h 05 min"}
    assert {seconds: duration(seconds) for seconds in spans} == spans
    assert (counted(1, "client"), counted(5000, "client")) == ("1 client", "5,000 clients")
    assert one_line(ValueError("a\n  b\tc"), 4) == "a b "
    assert one_line(ValueError()) == "ValueError"


def test_a_seed_depends_on_its_parts_alone():
    assert derive_seed("rows", 1, 2) == derive_seed("rows", "1", 2) != derive_seed("rows", 12)
    assert 0 <= derive_seed("x") < 2**63
    # Runs are repeated with what they were seeded with: this number may never change.
    assert derive_seed("rows", 2024, 0, 0) == 8385406260129776024


def test_digests_are_the_usual_ones(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert file_sha256(tmp_path / "a") == abc
    assert json_sha256({"b": "é", "a": 1}) == json_sha256({"a": 1, "b": "é"})
    assert json_sha256({"a": 1}) != json_sha256({"a": 1.5})


def test_versions_are_of_what_is_installed():
    assert package_version("no-such-package") is None
    versions = package_versions()
    assert {"python", "flwr", "torch", "transformers", "peft"} <= set(versions)
    assert "no-such-package" not in package_versions(["no-such-package"])


def test_what_can_be_on_the_hub():
    assert is_hub_id("owner/name") and is_hub_id("gpt2")
    assert not is_hub_id("a/b/c") and not is_hub_id("-x")


def test_a_worker_makes_things_once_for_the_settings_they_depend_on():
    made: list[Any] = []

    def make(cfg: Mapping[str, Any], *arguments: Any) -> object:
        made.append((dict(cfg), arguments))
        return object()

    clear_cache()
    cfg = {"model.name": "a", "train.x": 1}
    first = cached(make, cfg, ("model.",))
    assert cached(make, {**cfg, "train.x": 2}, ("model.",)) is first
    assert cached(make, {**cfg, "model.name": "b"}, ("model.",)) is not first
    assert len(made) == 2
    # One is kept: the first is made anew.
    assert cached(make, cfg, ("model.",)) is not first
    clear_cache()
    kept = [cached(make, cfg, ("model.",), n, keep=2) for n in (1, 2)]
    assert [cached(make, cfg, ("model.",), n, keep=2) for n in (1, 2)] == kept
    cached(make, cfg, ("model.",), 3, keep=2)
    assert cached(make, cfg, ("model.",), 2, keep=2) is kept[1]
    assert cached(make, cfg, ("model.",), 1, keep=2) is not kept[0]
    clear_cache()
