"""The page about a run: everything is told, nothing is loaded, nothing in the data is HTML."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from peft import LoraConfig

from flowertune.base.hashing import file_sha256
from flowertune.base.versions import package_versions
from flowertune.cli.main import main
from flowertune.data.lengths import Lengths
from flowertune.data.report import report_of
from flowertune.report.facts import collect
from flowertune.report.page import page
from flowertune.run.checkpoint import save_checkpoint
from flowertune.run.files import read_run
from tests.apps import default_settings, rendered
from tests.runs import checkpoint, result, round_line, write_run
from tests.templates import copy_of

UNOFFICIAL = {
    "official": False,
    "differences": [
        {"key": "static.dataset.name", "given": "./mine.jsonl", "locked": "acme/data"},
        {"key": "SuperNodes", "given": 20, "locked": 50},
    ],
}


class Tags(HTMLParser):
    """Collects tags, checks that they nest, and keeps every attribute that could load something.

    A fragment (``#id``) is of the page itself and loads nothing.
    """

    VOID = ("meta",)

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.loads: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.seen.append(tag)
        self.loads += [
            f"{tag} {name}"
            for name, value in attrs
            if name.rpartition(":")[2] in ("src", "href", "onload")
            and not (value or "").startswith("#")
        ]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def parsed(html: str) -> Tags:
    tags = Tags()
    tags.feed(html)
    assert tags.open == [] and tags.loads == [] and "script" not in tags.seen
    assert "//" not in html and "url(" not in html.replace("url(#", "")
    return tags


@pytest.fixture
def run_folder(tmp_path) -> Path:
    settings = {**default_settings("finance"), "train.seq-length": 64}
    folder = write_run(
        tmp_path / "7", done=10, status="finished", ended="2026-01-02T04:04:05+00:00",
        settings=settings, data=report_of({0: [Lengths(5, 9)] * 30, 1: [Lengths(70, 80)]}, 64),
        rules="50-supernodes", **UNOFFICIAL,
    )  # fmt: skip
    for number in (5, 10):
        manifest = {
            "round": number,
            "official": False,
            "versions": package_versions(),
            "rows-visited": number / 100,
        }
        tensors = {"base.lora_A.weight": torch.full((2, 3), float(number))}
        save_checkpoint(folder / f"peft_{number}", tensors, LoraConfig(r=2).to_dict(), manifest)
    return folder


def test_the_page_tells_everything(run_folder, capsys):
    assert main(["report", str(run_folder), "--app", str(rendered("finance"))]) == 0
    file = run_folder / "report.html"
    assert capsys.readouterr().out == f"{file}\n"
    html = file.read_text("utf-8")
    tags = parsed(html)
    assert tags.seen.count("svg") == 3
    for part in (
        ">unofficial</span>",
        "static.dataset.name",
        "&#34;./mine.jsonl&#34;",
        "duration 1 h 00 min",
        "10 of 10",
        "train.seq-length",
        "1 row (3.23%) cut before the answer",
        "partition 1 row 0 (80 tokens)",
        "10.0% of the rows trained on",
        "round 10: 0.2000",
        package_versions()["flwr"],
        *(file_sha256(run_folder / f"peft_{n}" / "adapter_model.safetensors") for n in (5, 10)),
    ):
        assert part in html, part
    changed = html.split("<summary>All settings")[0].split("Settings that differ")[1]
    assert changed.count("<tr>") == 2 and ">512<" in changed and ">64<" in changed


@pytest.mark.parametrize(("locked", "said"), [(50, ""), (0, " (any number of SuperNodes)")])
def test_rules_that_leave_the_number_of_supernodes_open_are_named_so(locked, said, tmp_path):
    settings = {"static.num-supernodes": locked}
    folder = write_run(tmp_path / "7", done=1, rules="50-supernodes", settings=settings)
    assert f"rules 50-supernodes{said} ·" in page(collect(read_run(folder), None))


def test_a_checkpoint_that_was_changed_is_said(run_folder):
    weights = run_folder / "peft_5" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\1")
    first, second = collect(read_run(run_folder), None).checkpoints
    assert not first.as_saved and second.as_saved
    assert "NOT as saved" in page(collect(read_run(run_folder), None))


def test_scores_are_found_where_the_scorer_ran(tmp_path, monkeypatch, capsys):
    app = copy_of(rendered("finance"), tmp_path / "app")
    folder = write_run(app / "results" / "7", done=3, settings={"seed": 1})
    result(tmp_path / "scores" / checkpoint(folder / "peft_2")[:12], base="27.78", tuned="61.11")
    result(app / "scores" / checkpoint(folder / "peft_3")[:12], tuned="77.78<b>")
    (tmp_path / "scores" / ("0" * 12)).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert main(["report", str(folder), "--output", "page.html"]) == 0
    html = Path("page.html").read_text("utf-8")
    parsed(html)
    table = html.split("<h2>Scores</h2>")[1].split("</table>")[0]
    cells = re.findall(r"<td[^>]*>([^<]*)</td>", table)
    assert cells == [
        "peft_2", "official", "FPB", "18, partial", "27.78", "61.11", "70.00 to 90.00", "-",
        "unofficial; 8 bits",
        "peft_3", "official", "FPB", "18, partial", "-", "77.78&lt;b&gt;", "70.00 to 90.00", "-",
        "unofficial; 8 bits",
    ]  # fmt: skip
    assert "own settings are not known" not in html


@pytest.mark.parametrize(
    "text", ["", "[]", '{"sets": 1, "average": 2}', '{"sets": {"a": 1, "b": {"scores": []}}}']
)
def test_a_result_that_makes_no_sense_is_no_reason_for_no_page(tmp_path, text):
    folder = write_run(tmp_path / "7", done=1)
    place = tmp_path / "scores" / checkpoint(folder / "peft_1")[:12] / "any"
    place.mkdir(parents=True)
    (place / "results.json").write_text(text)
    parsed(page(collect(read_run(folder), None, [tmp_path])))


def test_lost_replies_are_told(tmp_path):
    folder = write_run(tmp_path / "7", done=0)
    line = round_line(1, asked=5, failed=1, lost={"3": "its worker <died>"})
    (folder / "rounds.jsonl").write_text(json.dumps(line) + "\n")
    html = page(collect(read_run(folder), None))
    parsed(html)
    assert "<b>1</b><span>rejected replies, of 5</span>" in html
    assert "its worker &lt;died&gt;" in html.split("<h2>Lost replies</h2>")[1]
    assert "communicated (MiB)" in html and ">duration<" in html and ">rejected replies<" in html


def test_an_official_run_says_so(tmp_path):
    html = page(collect(read_run(write_run(tmp_path / "7", done=3)), {}))
    parsed(html)
    assert "<h2>Official</h2>" in html and "Why it is unofficial" not in html


@pytest.mark.parametrize("done", [0, 1])
def test_a_run_that_has_hardly_begun_has_a_page(tmp_path, done: int):
    folder = write_run(tmp_path / "7", done, status="failed", reason="no client answered")
    html = page(collect(read_run(folder), None))
    parsed(html)
    assert "no client answered" in html and "none saved yet" in html
    assert ("none finished yet" in html) == (done == 0)


def test_what_a_run_holds_is_text_and_not_html(tmp_path):
    bad = "<script>alert(1)</script>\"'&"
    folder = write_run(
        tmp_path / "7", done=2, name=bad, model=bad, reason=bad, settings={bad: bad},
        official=False, differences=[{"key": bad, "given": bad, "locked": [bad]}],
    )  # fmt: skip
    (folder / "rounds.jsonl").write_text(
        json.dumps(round_line(1, partitions=[bad], lost={bad: bad}, time=bad)) + "\n"
    )
    manifest = {"round": bad, "versions": {bad: bad}, "rows-visited": bad}
    (folder / "peft_1").mkdir()
    (folder / "peft_1" / "manifest.json").write_text(json.dumps(manifest))
    html = page(collect(read_run(folder), {}))
    parsed(html)
    assert html.count("&lt;script&gt;") >= 11


def test_a_folder_that_cannot_be_written_is_one_sentence(run_folder, capsys):
    blocked = run_folder / "peft_5" / "manifest.json" / "report.html"
    assert main(["report", str(run_folder), "--output", str(blocked)]) == 1
    assert "choose another place with --output" in capsys.readouterr().err
    assert main(["report", str(run_folder.parent)]) == 1
    assert "holds no run.json" in capsys.readouterr().err


def test_the_page_needs_no_app(run_folder, tmp_path, capsys):
    page_file = tmp_path / "elsewhere.html"
    empty = tmp_path / "empty"
    empty.mkdir()
    arguments = ["report", str(run_folder), "--output", str(page_file), "--app", str(empty)]
    assert main(arguments) == 0
    assert "own settings are not known here" in page_file.read_text("utf-8")
    assert json.loads((run_folder / "run.json").read_text())["status"] == "finished"


def test_what_is_measured_of_a_method_is_told(tmp_path):
    folder = write_run(tmp_path / "7", done=2)
    measures = {
        "bytes-down": 3 * 2**20, "bytes-up": 2**20, "residual": 0.1234, "drift": 0.875,
        "residuals": {"layers.0.<b>q": 0.0625, "layers.0.v": 0.25},
    }  # fmt: skip
    lines = [round_line(1, **measures), round_line(2, **measures)]
    (folder / "rounds.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    html = page(collect(read_run(folder), {}))
    parsed(html)
    for told in ("Aggregation residual", "Drift of clients", ">0.123<", ">0.875<", ">3.00<"):
        assert told in html, told
    assert html.index("layers.0.v") < html.index("layers.0.&lt;b&gt;q")  # the largest first
    assert "held" not in html.partition("</style>")[2]
    assert "Drift" not in page(collect(read_run(write_run(tmp_path / "8", done=2)), {}))


def test_losses_on_held_out_rows_are_told(run_folder):
    best = {"round": 1, "rows": 12, "loss": 0.75}
    told = {"held-out-rows": 12, "chosen": best}
    lines = [round_line(5, **told, **{"held-out-loss": 0.75}), round_line(6),
             round_line(10, **told, **{"held-out-loss": 0.875})]  # fmt: skip
    (run_folder / "rounds.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines))
    about = json.loads((run_folder / "run.json").read_text())
    (run_folder / "run.json").write_text(json.dumps({**about, "chosen": {**best, "round": 5}}))
    html = page(collect(read_run(run_folder), None))
    parsed(html)
    assert "12 rows each time, on which no client trains; lowest: 0.7500, round 5" in html
    assert ">0.8750<" in html and html.count("the lowest loss on held-out rows") == 1
