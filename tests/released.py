"""A release of the library under rules for tests, installed as an organizer's is, and its app.

The rules lock what runs without a hub and a GPU: the quickstart's model and its sample rows, few
SuperNodes, a few rows of each evaluation set. They are published as CONTRIBUTING.md says: record of
the rules, record of the evaluation rows, record of the release; so runs, scores and bundles are
official by the same checks as under any other rules, and nothing is patched.
"""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import challenges
from evaluation import data, finance
from evaluation.columns import core
from flowertune.base.hashing import json_sha256
from tests.flower import Shell, make_shell
from tests.templates import clone, commit, run_in

RULES = "50-supernodes"
ROWS = 8  # scored, of each set
WHOLE = {"fpb": 4 * ROWS, "fiqa": 4 * ROWS, "tfns": ROWS}  # of which a quarter is scored, or all
MODEL, DATASET = "smollm2-135m-instruct", "./samples/finance.jsonl"


@dataclass(frozen=True)
class Release:
    """A release and a place to use it.

    Attributes:
        shell: types commands with the installed release.
        repository: the template, tagged.
        evaluation: the evaluation sets, to be given with --data-dir.
        work: a folder for apps.
    """

    shell: Shell
    repository: Path
    evaluation: Path
    work: Path

    def app(self, name: str = "my-finance") -> Path:
        """Render the finance app."""
        self.shell.type(
            f"copier copy --quiet --defaults --vcs-ref v1.0.0 --data challenge=finance "
            f"{self.repository} {name}",
            self.work,
        )
        return self.work / name


def release(folder: Path, supernodes: int) -> Release:
    """Publish test rules and a release in a clone of this checkout, and install it."""
    repository = clone(folder / "repository", "v0.9.0")
    _lock(repository, supernodes)
    evaluation = _evaluation_rows(folder / "evaluation")
    _done(run_in(repository, sys.executable, "-m", "challenges.digests", "--write"))
    file = repository / "challenges" / "published" / f"{RULES}-1.0.0.json"
    tables = json.loads(file.read_text("utf-8"))
    tables["evaluation-data"] = {"finance": _hashes(evaluation)}
    file.write_text(json.dumps(tables, indent=1, sort_keys=True) + "\n", "utf-8")
    commit(repository)
    _done(run_in(repository, sys.executable, "-m", "challenges.release", "--write"))
    commit(repository, "v1.0.0")
    shell = make_shell(folder)
    shell.type(
        f"pip wheel --quiet --no-deps --no-build-isolation --wheel-dir {folder} {repository}",
        folder,
    )
    (wheel,) = folder.glob("flowertune-*.whl")
    shell.type(f"pip install --quiet --no-deps {wheel}", folder)
    (folder / "work").mkdir()
    return Release(shell, repository, evaluation, folder / "work")


def _lock(repository: Path, supernodes: int) -> None:
    facts = challenges.load("finance")
    rows = {entry["set"]: entry["rows"] for entry in facts["evaluation"]["sets"]}
    _replace(
        repository / "challenges" / "finance.yml",
        (f"name: {facts['dataset']['name']}", f"name: {DATASET}"),
        (f"supernodes: {{{RULES}: 50,", f"supernodes: {{{RULES}: {supernodes},"),
        (f"model: {facts['model']}", f"model: {MODEL}"),
        ("gated: true", "gated: false"),
        *((f"rows: {count},", f"rows: {ROWS},") for count in rows.values()),
    )
    sets = {item.name: item for item in finance.CHALLENGE.sets}
    _replace(
        repository / "evaluation" / "finance.py",
        *((f"whole={sets[name].whole},", f"whole={whole},") for name, whole in WHOLE.items()),
    )
    for record in (repository / "challenges" / "published").glob("*.json"):
        record.unlink()


def _evaluation_rows(folder: Path) -> Path:
    folder.mkdir()
    for item in finance.CHALLENGE.sets:
        lines = (data.SAMPLES / "finance" / item.file).read_text("utf-8").splitlines()
        text = "\n".join(lines[: WHOLE[item.name]]) + "\n"
        (folder / item.file).write_text(text, "utf-8")
    return folder


def _hashes(folder: Path) -> dict[str, str]:
    found = {}
    for item in finance.CHALLENGE.sets:
        rows = [json.loads(line) for line in (folder / item.file).read_text("utf-8").splitlines()]
        picked = item.pick(rows)
        assert len(picked) == ROWS
        found[item.name] = json_sha256([core(item.columns, row) for row in picked])
    return found


def _replace(file: Path, *pairs: tuple[str, str]) -> None:
    text = file.read_text("utf-8")
    for old, new in pairs:
        assert text.count(old) == 1, f"{file} has {text.count(old)} times {old!r}"
        text = text.replace(old, new)
    file.write_text(text, "utf-8")


def _done(done: subprocess.CompletedProcess[str]) -> None:
    assert done.returncode == 0, done.stdout + done.stderr
