"""The forms of two hosts: a Codabench competition, and benchmark datasets of Hugging Face's hub."""

import io
import json
import shlex
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import html5lib
import pytest
import yaml
from huggingface_hub import DatasetCard
from PIL import Image

import challenges
from flowertune.base.errors import UserError
from submissions import layout
from submissions.board import scoring
from submissions.board.cli import main
from submissions.board.codabench import competition, write_competition
from submissions.board.eval_yaml import scored, write_datasets
from submissions.formats import benchmarks
from tests.submissions.bundles import unpacked
from tests.submissions.on_record import on_record

IMAGE = "example/flowertune:1.0.0"


@pytest.fixture(scope="module", autouse=True)
def _published() -> Iterator[None]:
    with on_record():
        yield


@pytest.fixture
def app(tmp_path: Path) -> Path:
    """A folder laid out as /app in Codabench's container, when a bundle was uploaded."""
    write_competition(tmp_path / "competition.zip", "finance", "50-supernodes", IMAGE)
    folder = tmp_path / "app"
    with zipfile.ZipFile(tmp_path / "competition.zip") as archive:
        for name in archive.namelist():
            place, _, rest = name.partition("/")
            target = {"scoring_program": "program", "reference_data": "input/ref"}.get(place)
            if target and rest:
                (folder / target).mkdir(parents=True, exist_ok=True)
                (folder / target / rest).write_bytes(archive.read(name))
    unpacked(folder / "input/res")
    (folder / "output").mkdir()
    return folder


def run(app: Path) -> int:
    """Run the scoring program's command as the container does, with /app in another place."""
    command = yaml.safe_load((app / "program/metadata.yaml").read_text())["command"]
    python, option, module, *folders = shlex.split(command)
    assert (python, option, module) == ("python3", "-m", scoring.__name__)
    return scoring.main([folder.replace("/app", str(app), 1) for folder in folders])


def test_the_scoring_program_scores_a_bundle(app: Path) -> None:
    assert run(app) == 0
    scores = json.loads((app / "output/scores.json").read_text())
    claimed = json.loads((app / "input/res" / layout.SUBMISSION).read_text())
    assert scores["average"] == float(claimed["average"])
    assert {name: scores[name] for name in ("fpb", "fiqa", "tfns")} == {
        name: float(score) for name, score in claimed["scores"].items()
    }
    body = yaml.safe_load(competition("finance", "50-supernodes", IMAGE)["competition.yaml"])
    columns = {column["key"] for column in body["leaderboards"][0]["columns"]}
    assert scores.keys() == columns


def test_the_scoring_program_gives_an_invalid_bundle_no_scores(
    app: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = app / "input/res" / layout.SCORES
    file.write_text(file.read_text().replace('"16.67"', '"96.67"'))
    assert run(app) == 1
    assert not (app / "output/scores.json").exists()
    assert "INVALID" in capsys.readouterr().out
    page = (app / "output/detailed_results.html").read_bytes()
    html5lib.HTMLParser(strict=True).parse(page)
    assert b"INVALID" in page


def test_a_bundle_of_another_competition_is_invalid(
    app: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = app / "input/ref/reference.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "rules-version": "2.0.0"}))
    assert run(app) == 1
    assert "this competition is for 2.0.0" in capsys.readouterr().out


def test_an_upload_that_is_no_bundle_ends_in_sentences(
    app: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in (app / "input/res").iterdir():
        path.rename(app / path.name)
    (app / "input/res/metadata").write_text("command: rm -rf /")
    assert run(app) == 1
    assert "submission.json" in capsys.readouterr().out


def test_the_command_is_a_program_of_its_own(app: Path) -> None:
    import subprocess

    done = subprocess.run(
        [sys.executable, "-m", scoring.__name__, "only-one"],
        cwd=app, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (2, "error: give the folders of input and output\n")


def test_a_competition_has_all_that_codabench_asks_for() -> None:
    files = competition("medical", "flower.ai", IMAGE, "2026-12-01")
    body = yaml.safe_load(files["competition.yaml"])
    assert (body["version"], body["docker_image"]) == (2, IMAGE)
    named = [body["image"], body["terms"], *(page["file"] for page in body["pages"])]
    assert set(named) <= files.keys()
    (phase,), (task,), (board,) = body["phases"], body["tasks"], body["leaderboards"]
    assert phase["tasks"] == [task["index"]] and phase["accepts_only_result_submissions"]
    assert phase["start"] == "2026-12-01 00:00:00"
    for folder in (task["scoring_program"], task["reference_data"]):
        assert [name for name in files if name.startswith(f"{folder}/")]
    assert [column["index"] for column in board["columns"]] == list(range(len(board["columns"])))
    assert len({column["key"] for column in board["columns"]}) == len(board["columns"])
    assert Image.open(io.BytesIO(files["logo.png"])).size == (300, 300)
    assert json.loads(files["reference_data/reference.json"])["rules"] == "flower.ai"
    for name in ("overview.md", "evaluation.md", "terms.md"):
        assert "{{" not in files[name].decode() and len(files[name]) > 200
    assert files == competition("medical", "flower.ai", IMAGE, "2026-12-01")


@pytest.mark.parametrize(
    "challenge, rules, start",
    [("law", "50-supernodes", None), ("finance", "none", None), ("finance", "flower.ai", "today"),
     ("flowertune-llm", "50-supernodes", None)],
)  # fmt: skip
def test_a_competition_of_nothing_is_refused(challenge: str, rules: str, start: str | None) -> None:
    with pytest.raises(UserError, match=r"\.$"):
        competition(challenge, rules, IMAGE, start)


def test_the_command_asks_for_what_a_competition_needs(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["--codabench", str(tmp_path / "c.zip")]) == 2
    said = capsys.readouterr().err
    assert "--challenge" in said and "--image" in said


def test_every_scored_challenge_has_a_benchmark_dataset(tmp_path: Path) -> None:
    files = write_datasets(tmp_path, "lab")
    assert len(files) == len(scored()) == 4
    for name, file in zip(scored(), files, strict=True):
        body = yaml.safe_load(file.read_text("utf-8"))
        facts = challenges.load(name)["evaluation"]["sets"]
        assert body.keys() == {"name", "description", "evaluation_framework", "tasks"}
        assert [task["id"] for task in body["tasks"]] == [*(s["set"] for s in facts), "average"]
        assert all((task["config"], task["split"]) == ("default", "test") for task in body["tasks"])
        card = DatasetCard.load(file.with_name("README.md"))
        assert f"lab/flowertune-{name}" in card.text
        (data,) = card.data.to_dict()["configs"][0]["data_files"]
        rows = [json.loads(line) for line in (file.parent / data["path"]).read_text().splitlines()]
        assert [row["set"] for row in rows] == [one["set"] for one in facts]


def test_results_of_a_bundle_name_tasks_that_the_dataset_has(tmp_path: Path) -> None:
    folder = unpacked(tmp_path / "bundle")
    (results,) = (folder / layout.HUB_RESULTS).iterdir()
    entries = yaml.safe_load(results.read_text("utf-8"))
    write_datasets(tmp_path / "datasets", benchmarks.OWNER)
    for one in entries:
        name = one["dataset"]["id"].rpartition("/")[2]
        body = yaml.safe_load((tmp_path / "datasets" / name / "eval.yaml").read_text("utf-8"))
        assert one["dataset"]["task_id"] in {task["id"] for task in body["tasks"]}
