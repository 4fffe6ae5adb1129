"""The files of a result: results.json, results.md, one row file per set, and lm-eval's own."""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from evaluation import lm_eval_files, report
from evaluation.run import Pass
from flowertune.base.errors import UserError

# Some readers take these for the end of a line; JSON may have them as they are or escaped.
_SEPARATORS = {ord(char): f"\\u{ord(char):04x}" for char in "\u0085\u2028\u2029"}


def write(folder: Path, results: dict[str, Any], passes: dict[str, Pass]) -> None:
    """Write all files of a result to `folder`.

    They are written beside their places and put there whole. What stands in the way is replaced if
    it is a file or a link; no link is followed.

    Raises:
        UserError: the folder cannot be written, or a link or file stands where a folder has to be.
    """
    try:
        with _staged(folder) as staging:
            (staging / "rows").mkdir()
            for name in results["sets"]:
                _write(staging / "rows" / f"{name}.jsonl", _rows(name, passes))
            for model, one in passes.items():
                lm_eval_files.write(staging / "lm-eval", model, one)
            _write(staging / "results.md", report.markdown(results))
            _write(staging / "results.json", json.dumps(results, indent=2, ensure_ascii=False))
    except OSError as error:
        raise UserError(
            f"the results cannot be written to {folder} ({error.strerror}): choose another folder "
            "with --output"
        ) from None


@contextmanager
def _staged(folder: Path) -> Iterator[Path]:
    """Yield a new folder inside `folder`, whose files are moved into `folder` at the end."""
    folder.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(dir=folder, prefix=".results-"))
    try:
        yield staging
        for file in sorted(path for path in staging.rglob("*") if path.is_file()):
            place = folder
            for part in file.relative_to(staging).parts[:-1]:
                place /= part
                if place.is_symlink() or (place.exists() and not place.is_dir()):
                    raise UserError(
                        f"the results cannot be written to {folder}: {place} is a link or a file, "
                        "and a folder has to be there; remove it, or choose another folder with "
                        "--output"
                    )
                place.mkdir(exist_ok=True)
            os.replace(file, place / file.name)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _write(path: Path, text: str) -> None:
    path.write_text(text.rstrip("\n") + "\n", "utf-8")


def _rows(name: str, passes: dict[str, Pass]) -> str:
    columns = {model: one.answers[name] for model, one in passes.items()}
    first = next(iter(columns.values()))
    lines = []
    for number, answer in enumerate(first):
        line: dict[str, Any] = {"row": number, **answer.document}
        for model, answers in columns.items():
            one = answers[number]
            line[model] = {
                "responses": one.responses,
                "answer": one.outcome.answer,
                "points": float(one.outcome.points),
                "parseable": one.outcome.parseable,
            }
        lines.append(_line(line))
    return "\n".join(lines)


def _line(body: dict[str, Any]) -> str:
    return json.dumps(body, ensure_ascii=False).translate(_SEPARATORS)
