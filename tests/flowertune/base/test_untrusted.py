"""Files of other people: each is read within limits, or refused in a phrase, at once."""

import os
import time

import pytest

from flowertune.base.untrusted import (
    JSON_DEPTH,
    UnusableFile,
    copy_regular,
    read_strict_json,
    strict_json,
)


def nested(depth):
    return b'{"a":' * depth + b"1" + b"}" * depth


TWICE = b"{" + b"".join(b'"%d":1,' % number for number in range(90_000)) + b'"last":1,"last":1}'


@pytest.mark.parametrize(
    ("data", "phrase"),
    [
        (b"", "is no JSON"),
        (TWICE, "names 'last' twice"),
        (b'{"a": [' + b"[]," * 600_000 + b"1]}", "holds more than 100,000 values"),
        (b'{"a": [' + b"[[[[[]]]]]" * 60_000, "holds more than 100,000 values"),
        (b"[1]", "is not a JSON object"),
        (b'{"a": 1, "a": 2}', "names 'a' twice"),
        (b'{"a": {"b": 1, "b": 1}}', "names 'b' twice"),
        (b'{"a": NaN}', "holds NaN"),
        (b'{"a": -Infinity}', "holds -Infinity"),
        (b'{"a": 1e999}', "holds 1e999"),
        (b'{"a": ' + b"9" * 10_000 + b"}", "is no JSON"),
        (nested(JSON_DEPTH + 1), "is nested more than 32 deep"),
        (nested(100_000), "is nested more than 32 deep"),
        (b'{"a": 1}x', "is no JSON"),
        (b'{"\\ud800": 1}', "half a surrogate"),
        (b'{"a": "\xe9"}', "is no UTF-8 text (byte 7)"),
        (b"version https://git-lfs.github.com/spec/v1\n", "is no JSON"),
    ],
)
def test_bad_json_is_refused_within_a_second(tmp_path, data, phrase):
    path = tmp_path / "a.json"
    path.write_bytes(data)
    began = time.monotonic()
    with pytest.raises(UnusableFile, match=phrase.replace("(", r"\(").replace(")", r"\)")):
        read_strict_json(path)
    assert time.monotonic() - began < 1


def test_good_json_is_read(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('{"a": [1, 2.5, null, true, "\u2028\U0001f600"]}', "utf-8")
    assert read_strict_json(path) == {"a": [1, 2.5, None, True, "\u2028\U0001f600"]}
    assert strict_json(nested(JSON_DEPTH - 1))


def make_pipe(path):
    os.mkfifo(path)


def make_link(path):
    target = path.with_name("elsewhere")
    target.write_text("{}")
    path.symlink_to(target)


def make_folder(path):
    path.mkdir()


def make_large(path):
    path.write_bytes(b" " * 101)


@pytest.mark.parametrize(
    ("make", "phrase"),
    [
        (make_pipe, "is a named pipe, not a regular file"),
        (make_link, "is a symbolic link, not a regular file"),
        (make_folder, "is a folder, not a regular file"),
        (make_large, "has 101 bytes, and at most 100 are read"),
    ],
)
def test_only_a_regular_file_within_the_limit_is_read(tmp_path, make, phrase):
    path = tmp_path / "a.json"
    make(path)
    with pytest.raises(UnusableFile, match=phrase):
        read_strict_json(path, 100)
    with pytest.raises(UnusableFile, match=phrase):
        copy_regular(path, tmp_path / "copy", 100)
    assert not (tmp_path / "copy").exists()


def test_a_missing_file_is_missing(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_strict_json(tmp_path / "a.json")
