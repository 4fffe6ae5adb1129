"""Text files that the user brings: UTF-8 with or without a byte order mark, else one sentence."""

import json
from pathlib import Path
from typing import Any

from flowertune.base.errors import UserError
from flowertune.base.text import one_line

Rows = list[dict[str, Any]]


def read_jsonl(path: Path) -> Rows:
    """Read one JSON object a line. Only a line feed or carriage return ends a line.

    Raises:
        UserError: no such file, no UTF-8, no rows, or a line that is no JSON object.
    """
    text = _text(path, "--data-dir needs one file <set>.jsonl for each set")
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    try:
        rows = [_object(number, line) for number, line in enumerate(lines, 1) if line.strip()]
    except ValueError as error:
        raise UserError(
            f"{path} cannot be read ({one_line(error)}): write one row of the set on each line"
        ) from None
    if not rows:
        raise UserError(f"{path} has no rows: write one row of the set on each line")
    return rows


def read_json_object(path: Path) -> dict[str, Any]:
    """Read a file that is one JSON object.

    Raises:
        UserError: no such file, no UTF-8, or something else than a JSON object.
    """
    text = _text(path, "give the file as its publishers ship it")
    try:
        body = json.loads(text)
    except (RecursionError, ValueError) as error:
        body, reason = None, f" ({one_line(error)})"
    else:
        reason = ""
    if not isinstance(body, dict) or not body:
        raise UserError(
            f"{path} is no JSON object with entries{reason}: give the file as its publishers "
            "ship it"
        )
    return body


def _object(number: int, line: str) -> dict[str, Any]:
    # Not by the library's own reader, which mends half surrogate pairs: a row is refused for them.
    try:
        body = json.loads(line)
    except (RecursionError, ValueError):
        body = None
    if not isinstance(body, dict):
        raise ValueError(f"line {number} is not a JSON object")
    return body


def _text(path: Path, cure: str) -> str:
    try:
        if path.exists() and not path.is_file():
            raise UserError(f"{path} is no file that can be read to its end: {cure}")
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): {cure}") from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise UserError(
            f"line {line} of {path} is not UTF-8 (it may be Latin-1): convert the file with "
            "`iconv -f LATIN1 -t UTF-8`"
        ) from None
