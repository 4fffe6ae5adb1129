"""A competition bundle for Codabench: a challenge under its rules, scored by the verifier."""

import io
import zlib
from collections.abc import Mapping
from datetime import UTC, date, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, StrictUndefined
from matplotlib.figure import Figure

import challenges
from flowertune.base.errors import UserError
from submissions.board import scoring
from submissions.bundle.contents import as_json
from submissions.bundle.packing import write_zip

_COMMAND = "python3 -m submissions.board.scoring /app/input /app/output"
_PAGES = ("overview", "evaluation", "terms")
_A_DAY = 5
_SECONDS = 3600


def write_competition(
    target: Path, challenge: str, rules: str, image: str, start: str | None = None
) -> None:
    """Write the zip that an organizer uploads to Codabench.

    Parameters
    ----------
    target
        The file.
    challenge, rules
        What it is for, under the current version of the rules.
    image
        The container image that has this library.
    start
        The day on which it begins, as 2026-12-31; by default today.

    Raises
    ------
    UserError
        There is no such challenge or rule set, the day is none, or the file cannot be written.
    """
    found = competition(challenge, rules, image, start)
    try:
        write_zip(target, found)
    except OSError as error:
        raise UserError(f"{target} cannot be written ({error.strerror}): name another.") from None


def competition(
    challenge: str, rules: str, image: str, start: str | None = None
) -> dict[str, bytes]:
    """Return the files of a competition bundle; as ``write_competition``."""
    try:
        facts = challenges.load(challenge)
        static = challenges.static_table(challenge, rules)
        begins = date.fromisoformat(start) if start else datetime.now(UTC).date()
    except ValueError as error:
        raise UserError(f"{error}{'' if str(error).endswith('.') else '.'}") from None
    if not facts["evaluation"]["sets"]:
        raise UserError(f"The challenge {challenge} is not scored, so there is nothing to rank.")
    version = str(static["rules-version"])
    reference = {"challenge": challenge, "rules": rules, "rules-version": version}
    pages = {f"{name}.md": _page(name, facts, reference, static) for name in _PAGES}
    body = _yaml(facts, reference, image, begins)
    return {
        "competition.yaml": yaml.safe_dump(body, sort_keys=False, allow_unicode=True).encode(),
        "logo.png": _logo(facts["title"]),
        "scoring_program/metadata.yaml": yaml.safe_dump({"command": _COMMAND}).encode(),
        f"reference_data/{scoring.REFERENCE}": as_json(reference),
        **pages,
    }


def _yaml(
    facts: Mapping[str, Any], reference: Mapping[str, str], image: str, begins: date
) -> dict[str, Any]:
    sets = facts["evaluation"]["sets"]
    columns = [
        ("Average", scoring.AVERAGE, "desc"),
        *((s["title"], s["set"], "desc") for s in sets),
    ]
    columns += [(title, key, order) for key, (title, order) in scoring.NUMBERS.items()]
    return {
        "version": 2,
        "title": f"FlowerTune {facts['title']}",
        "description": f"Federated fine-tuning: {facts['about']}",
        "image": "logo.png",
        "terms": "terms.md",
        "registration_auto_approve": False,
        "docker_image": image,
        "make_programs_available": True,
        "enable_detailed_results": True,
        "pages": [
            {"title": name.capitalize(), "file": f"{name}.md"} for name in _PAGES if name != "terms"
        ],
        "phases": [
            {
                "index": 0,
                "name": f"Rules {reference['rules']} {reference['rules-version']}",
                "start": f"{begins.isoformat()} 00:00:00",
                "max_submissions_per_day": _A_DAY,
                "execution_time_limit": _SECONDS,
                "accepts_only_result_submissions": True,
                "tasks": [0],
            }
        ],
        "tasks": [
            {
                "index": 0,
                "name": f"Verify {facts['title']}",
                "description": "The verifier recomputes the scores from the answers in the bundle.",
                "scoring_program": "scoring_program",
                "reference_data": "reference_data",
            }
        ],
        "leaderboards": [
            {
                "title": "Results",
                "key": "main",
                "submission_rule": "Force_Best",
                "columns": [
                    {"title": title, "key": key, "index": number, "sorting": order, "precision": 2}
                    for number, (title, key, order) in enumerate(columns)
                ],
            }
        ],
    }


def _page(
    name: str,
    facts: Mapping[str, Any],
    reference: Mapping[str, str],
    static: Mapping[str, Any],
) -> bytes:
    text = (files("submissions.board") / "templates" / f"{name}.md.jinja").read_text("utf-8")
    environment = Environment(
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    rendered = environment.from_string(text).render(facts=facts, static=static, **{
        key.replace("-", "_"): value for key, value in reference.items()
    })  # fmt: skip
    return rendered.encode()


def _logo(title: str) -> bytes:
    """Return a picture for the competition: its name, and bars whose heights follow from it."""
    heights = [0.25 + (zlib.crc32(f"{title}{n}".encode()) % 60) / 100 for n in range(5)]
    figure = Figure(figsize=(3, 3), dpi=100, facecolor="#ffffff")
    axes = figure.add_axes((0.1, 0.24, 0.8, 0.7))
    axes.bar(range(5), heights, color="#1f63b8")
    axes.set_axis_off()
    figure.text(0.5, 0.1, title, ha="center", fontsize=20, color="#1c2128")
    file = io.BytesIO()
    figure.savefig(file, format="png", metadata={"Software": None})
    return file.getvalue()
