"""What the commands of submissions have in common: exit statuses, slips, and files in the way."""

import json
from pathlib import Path

import pytest

from flowertune.rules.values import shown
from submissions import tiers
from submissions.board import cli as board
from submissions.findings import Report
from submissions.replay import cli as replay
from submissions.verify import cli as verify
from tests.submissions.bundles import bundle, scored, submitted
from tests.submissions.on_record import on_record

COMMANDS = {
    "verify": (verify.main, ()),
    "replay": (replay.main, ("--list",)),
    "leaderboard": (board.main, ("-o", "site")),
}


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("none.zip", "There is no bundle none.zip: give zips, or their unpacked folders."),
        ("bundles/*.zip", "There is no bundle bundles/*.zip: the pattern matches no file."),
        ("bundles", "A folder that holds bundles is none itself: give bundles/*.zip."),
    ],
)
def test_a_slip_in_a_path_is_a_wrong_command_line(
    command: str, path: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if path == "bundles":
        Path(path).mkdir()
        Path(path, "one.zip").write_bytes(b"")
    main, words = COMMANDS[command]
    assert main([path, *words]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1
    assert f"error: {says}" in err
    assert not Path("site").exists()


def test_a_board_without_bundles_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert board.main(["-o", "site"]) == 2
    assert "--empty" in capsys.readouterr().err
    assert not Path("site").exists()
    assert board.main(["-o", "site", "--empty"]) == 0
    assert "No submission was VALID yet" in Path("site/index.html").read_text("utf-8")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["a.zip"], ["name one with -o"]),
        (["-o", "s", "--empty", "--owner", "x"], ["--owner is for benchmark datasets"]),
        (["-o", "s", "--empty", "--challenge", "code"], ["--challenge is for a competition"]),
        (
            ["--codabench", "c.zip", "--challenge", "x", "--rules", "y", "--start", "z"],
            ["--challenge is 'x'", "--rules is 'y'", "--start is 'z'", "needs --image"],
        ),
        (["--eval-yaml", "d"], ["--eval-yaml needs --owner"]),
    ],
)
def test_all_that_is_wrong_with_the_options_of_a_board_is_told_at_once(
    words: list[str], says: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    Path("a.zip").write_bytes(b"")
    assert board.main(words) == 2
    said = capsys.readouterr().err
    assert all(text in said for text in says)
    assert [path.name for path in Path().iterdir()] == ["a.zip"]


@pytest.mark.parametrize(
    ("words", "file"),
    [
        (["--codabench", "c.zip", "--challenge", "finance", "--image", "i"], "c.zip"),
        (["--eval-yaml", "d", "--owner", "me"], "d/flowertune-finance/eval.yaml"),
    ],
)
def test_what_is_there_is_replaced_only_with_force(
    words: list[str], file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path(file).parent.mkdir(parents=True, exist_ok=True)
    Path(file).write_text("mine")
    assert board.main(words) == 2
    assert f"{file} is there already" in capsys.readouterr().err
    assert Path(file).read_text() == "mine"
    assert board.main([*words, "--force"]) == 0
    assert "Next:" in capsys.readouterr().out
    assert Path(file).read_bytes() != b"mine"


def test_a_replay_does_not_begin_where_its_report_would_replace_one(
    capsys: pytest.CaptureFixture[str],
) -> None:
    Path("report.json").write_text("mine")
    assert replay.main([str(bundle()), "--report", "report.json"]) == 2
    assert "report.json is there already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--report", "r.json", "--key", "none"], "There is no key none"),
        (["--report", "none/r.json"], "there is no such folder to write it to"),
    ],
)
def test_a_report_that_cannot_be_made_is_told_before_hours_of_training(
    words: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert replay.main([str(bundle()), *words]) == 2
    assert says in capsys.readouterr().err


def test_a_draw_of_nothing_says_what_it_cannot_see(capsys: pytest.CaptureFixture[str]) -> None:
    assert replay.main([str(bundle()), "--draw", "0", "--list"]) == 0
    assert "none is drawn, so false ones there are not seen" in capsys.readouterr().out


def test_a_report_on_no_bundle_of_the_board_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    report = Report("other.zip", "ab" * 32, [], tiers.REPLAYED, {}).body()
    Path("report.json").write_text(json.dumps(report))
    with on_record():
        assert board.main([str(bundle()), "-o", "site", "--reports", "report.json"]) == 0
    said = capsys.readouterr().out
    assert "1 report on none of these bundles" in said and "abababababababab" in said
    assert "1 submission ranked (1 consistent), 0 not" in said


def test_an_adapter_that_is_kept_elsewhere_is_compared_too() -> None:
    link = "https://example.org/w.safetensors"
    linked = submitted(scored(), Path("linked.zip"), team="Another team", link=link)
    with on_record():
        first, second = verify.verify_all([bundle(), linked])
    assert {"same-adapter"} == {f.check for f in second.findings if f.level == "warning"}
    assert "'linked.zip'" in first.text()


def test_a_replay_names_the_runs_own_folder(capsys: pytest.CaptureFixture[str]) -> None:
    assert replay.main([str(bundle()), "--list"]) == 0
    said = capsys.readouterr().out
    assert "python -m evaluation.submit results/4711 --states 1,2,3 -o states.zip" in said
    assert "a run of 3 rounds has no more to draw" in said


def test_the_board_prints_what_a_person_should_look_at(
    capsys: pytest.CaptureFixture[str],
) -> None:
    twin = submitted(scored(), Path("twin.zip"), team="Another team")
    with on_record():
        assert board.main([str(bundle()), str(twin), "-o", "site"]) == 0
    said = capsys.readouterr().out
    assert "look at twin.zip: The adapter is, byte for byte, that of" in said
    assert "'Team Östlund'" in said
    assert "challenges.hub serve --site site" in said


def test_a_site_with_something_of_ones_own_in_it_is_not_replaced(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert board.main(["-o", "site", "--empty"]) == 0
    Path("site/CNAME").write_text("example.org")
    assert board.main(["-o", "site", "--empty"]) == 2
    assert "(CNAME)" in capsys.readouterr().err
    assert Path("site/CNAME").read_text() == "example.org"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("Team Östlund", "'Team Östlund'"),
        ("東京 Ελ", "'東京 Ελ'"),
        ("a\x1b[31m", r"'a\x1b[31m'"),
        ("\u202eabc", r"'\u202eabc'"),
        ("a\u2066b\u200b", r"'a\u2066b\u200b'"),
        ("\ud800", r"'\ud800'"),
    ],
)
def test_letters_are_shown_and_what_moves_a_line_is_written_out(value: str, text: str) -> None:
    assert shown(value) == text
