"""docs/guides/hub.md says what is so: its commands are understood, its limits are the hub's."""

import json
import re
import shlex

from challenges.hub import limits
from challenges.hub.__main__ import TOKEN_VARIABLE, parser
from tests.templates import ROOT

PAGE = (ROOT / "docs/guides/hub.md").read_text("utf-8").replace("\\\n", " ")


def test_every_command_of_the_page_is_understood() -> None:
    plain = re.findall(r"^python -m challenges\.hub (serve)$", PAGE, re.MULTILINE)
    unit = re.findall(r"^ExecStart=\S+/python -m challenges\.hub (.*)$", PAGE, re.MULTILINE)
    container = re.findall(r"^CMD (\[.*\])$", PAGE, re.MULTILINE)
    assert (len(plain), len(unit), len(container)) == (1, 1, 1)
    assert parser().parse_args(plain).host == "127.0.0.1"
    assert parser().parse_args(shlex.split(unit[0])).proxy == "127.0.0.1"
    assert parser().parse_args(json.loads(container[0])[3:]).host == "0.0.0.0"


def test_the_options_named_are_there() -> None:
    known = {f"--{name.replace('_', '-')}" for name in vars(parser().parse_args(["serve"]))}
    named = set(re.findall(r"`(--[a-z-]+)", PAGE))
    others = {"--link"}  # of python -m evaluation.submit
    assert {"--public-url", "--uploads", "--rate", "--bundles-a-day"} <= named <= known | others


def test_the_limits_named_are_the_real_ones() -> None:
    text = " ".join(PAGE.split())
    for limit in (
        f"requests of {limits.MAX_QUESTION // 1024} KiB",
        f"uploads {limits.MAX_UPLOAD // 2**20} MiB",
        f"{limits.HEADER_SECONDS:g} seconds for a request's headers",
        f"{limits.BODY_SECONDS:g} for its body",
        f"{limits.ANSWER_SECONDS:g} for reading the answer",
        f"{limits.RENDER_SECONDS:g} for a render",
        f"{limits.CONNECTIONS:,} connections",
        f"{limits.RENDER_CACHE_BYTES // 2**20} MiB of rendered apps",
        f"at most {limits.SHUTDOWN_SECONDS} seconds later",
        f"may have {limits.MAX_BUNDLE // 2**20} MiB",
        f"({limits.VERIFY_SECONDS:g} seconds, {limits.VERIFY_BYTES // 2**30} GiB of memory",
        f"{parser().parse_args(['serve']).bundles_a_day} bundles a day",
        limits.BUNDLES_PATH,
        f"{parser().parse_args(['serve']).rate:g} requests a minute",
        TOKEN_VARIABLE,
    ):
        assert limit in text, limit
