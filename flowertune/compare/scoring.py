"""Scores of many checkpoints: the scorer's own command, with one load of each base model."""

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from flowertune.base.errors import UserError
from flowertune.base.files import read_json
from flowertune.base.hashing import json_sha256
from flowertune.base.text import one_line
from flowertune.compare.spec import SAMPLE
from flowertune.config.paths import is_path, local_path
from flowertune.report.scores import RESULTS
from flowertune.rules.checkpoint import checkpoint_digest, scores_folder

_PAUSE = 2.0  # seconds between two looks at what is scored


def scorer_of(challenge: str) -> str | None:
    """Return the module that scores a challenge; None where it has none, or is not installed."""
    module = f"evaluation.{challenge.replace('-', '_')}"
    try:
        return module if find_spec(module) and find_spec("lm_eval") else None
    except ImportError:
        return None


@dataclass(frozen=True)
class Scorer:
    """Scores what runs of the same base model left.

    Parameters
    ----------
    app : Path
        The app's folder.
    settings : Mapping[str, Any]
        Those of the runs.
    module : str
        What scores the challenge.
    data : str
        ``SAMPLE`` or ``FULL``: the rows.
    options : str
        More options for the scorer.
    out : Path
        The comparison's folder.
    threads : int
        Threads of the scorer's process.
    """

    app: Path
    settings: Mapping[str, Any]
    module: str
    data: str
    options: str
    out: Path
    threads: int = 1

    @property
    def words(self) -> list[str]:
        """The options of the scorer."""
        data = ["--sample"] if self.data == SAMPLE else []
        bits = ["--quantization", str(self.settings["model.quantization"])]
        return ["--unofficial", *data, *bits, *shlex.split(self.options)]

    @property
    def folder(self) -> Path:
        """Where it is run: scores of other options are others."""
        return self.out / "scores" / json_sha256(self.words)[:10]

    def file(self, checkpoint: Path | None) -> Path:
        """Return where the result of a checkpoint is, or that of the base model."""
        if checkpoint is None:
            return self.folder / f"base-{json_sha256([self._model()])[:10]}" / RESULTS
        name = f"{self.settings['static.challenge']!s}-official"
        return self.folder / scores_folder(checkpoint_digest(checkpoint)) / name / RESULTS

    def score(
        self, checkpoints: Sequence[Path], say: Callable[[str], None], with_base: bool = True
    ) -> None:
        """Score checkpoints, and the base model; those that have a score are left out.

        Raises
        ------
        UserError
            If the scorer fails; says where its log is.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        if with_base and not self.file(None).is_file():
            self._run([self.module, "--model", self._model(), "--output",
                       str(self.file(None).parent.absolute()), *self.words])  # fmt: skip
        left = [path for path in checkpoints if not self.file(path).is_file()]
        if left:
            paths = [str(path.absolute()) for path in left]
            self._run(["evaluation.all", *paths, *self.words], left, say)

    def result(self, checkpoint: Path | None) -> dict[str, Any]:
        """Return a score: percent, rows, and the 95 % interval over rows; empty where it is none.

        The score is the mean over the challenge's sets.
        """
        body = read_json(self.file(checkpoint)) or {}
        name = "checkpoint" if checkpoint else "model"
        try:
            sets, average = body["sets"], body["average"]["scores"][name]
            low, high = average["interval-95"]
            return {
                "score": float(average["score"]),
                "score-rows": sum(entry["rows"] for entry in sets.values()),
                "score-interval": [float(low), float(high)],
                "score-sets": {
                    one["title"]: float(one["scores"][name]["score"]) for one in sets.values()
                },
            }
        except (KeyError, TypeError, ValueError):
            return {}

    def _model(self) -> str:
        name = str(self.settings["model.name"])
        return str(local_path(name, self.app)) if is_path(name) else name

    def _run(
        self,
        words: Sequence[str],
        waited_for: Sequence[Path] = (),
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        log = self.out / "scores.log"
        command = [sys.executable, "-m", *words]
        env = {**os.environ, "OMP_NUM_THREADS": str(self.threads)}
        with log.open("a") as file:
            # A module of the folder that it is run in would come before the scorer's own.
            process = subprocess.Popen(
                command, cwd=self.folder, stdout=file, stderr=subprocess.STDOUT, env=env
            )
            try:
                seen = 0
                while process.poll() is None:
                    time.sleep(_PAUSE if waited_for else 0.1)
                    done = sum(self.file(path).is_file() for path in waited_for)
                    if done > seen:
                        say(f"scored {done} of {len(waited_for)}")
                    seen = done
            except BaseException:
                process.terminate()
                process.wait()
                raise
        if process.returncode:
            lines = [
                line for line in log.read_text("utf-8", "replace").splitlines() if line.strip()
            ]
            reason = one_line(lines[-1], 300) if lines else "it said nothing"
            raise UserError(
                f"the scorer failed ({reason}); its log is {log}; type the same command again to "
                "go on, or leave scores out with --score none."
            )
