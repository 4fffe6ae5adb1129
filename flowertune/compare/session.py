"""A comparison from its grid to its table; one that was stopped goes on where it was."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from flowertune.base.errors import UserError
from flowertune.base.files import read_json, write_atomically, write_json
from flowertune.base.hashing import json_sha256
from flowertune.base.text import counted, duration
from flowertune.compare.engine import is_finished, run_of
from flowertune.compare.grid import BASE, BYTES, METHOD, Cell, Grid
from flowertune.compare.plan import (
    Kind,
    counted_bytes,
    kind_of,
    planned_cells,
    short_cells,
)
from flowertune.compare.results import Line, base_row, lines_of, row_of
from flowertune.compare.scoring import Scorer, scorer_of
from flowertune.compare.spec import DEFAULTS, NO_SCORE, Asked, grid_of
from flowertune.compare.work import Task, Workers, about_of, base_loss, do_task
from flowertune.config.app import read_app
from flowertune.rules.provenance import code_digest

DATASET, REVISION = "static.dataset.name", "static.dataset.revision"
RUNS, SHORT_RUNS, ROWS, BASES = "runs", "counted", "rows", "base.json"
Say = Callable[[str], None]


@dataclass
class Session:
    """One comparison in one folder.

    Parameters
    ----------
    app : Path
        The app's folder.
    asked : Asked
        What is compared.
    out : Path
        Where everything goes: runs, scores, rows, tables.
    parallel, threads : int
        Processes, and threads of each.
    say : Callable[[str], None]
        Gets lines of progress.
    workers : Callable
        Makes what does the runs.
    """

    app: Path
    asked: Asked
    out: Path
    parallel: int
    threads: int
    say: Say
    workers: Callable[..., Any] = Workers
    cells: list[Cell] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)  # what failed and did not end it

    def __post_init__(self) -> None:
        """Check everything that can be checked before a model is loaded."""
        self.app, self.out = self.app.resolve(), self.out.absolute()
        self.asked = self.asked.over(DEFAULTS)
        self.grid: Grid = grid_of(self.app, self.asked)
        challenge = str(self.grid.settings["static.challenge"])
        self.module = None if self.asked.score == NO_SCORE else scorer_of(challenge)
        if self.asked.score != NO_SCORE and self.module is None:
            self.say(f"no scores: the challenge {challenge} has no scorer that is installed here")
        self.code = code_digest(self.app / read_app(self.app).package)
        self.held_out: Path | None = None

    def go(self) -> list[Line]:
        """Do what is left of the comparison; returns the lines of its table.

        Raises
        ------
        UserError
            If another command works in the folder, rows cannot be had, or a worker died.
        """
        with self._alone():
            self._split()
            workers = self.workers(
                self.parallel, self.threads, self.out / "home", self.out / "log.txt"
            )
            with workers.running():
                self.cells = planned_cells(self.grid, self._counted(workers))
                try:
                    self._run(workers)
                    self._base_losses(workers)
                except BaseException:
                    self.write()
                    raise
            self._score()
            return self.write()

    def write(self) -> list[Line]:
        """Write the table, the runs and the plot of what there is; returns the table's lines."""
        # Late: matplotlib takes a second, and what is wrong is said before.
        from flowertune.compare.plot import as_bytes, frontier_figure
        from flowertune.compare.table import NOTES, as_csv, as_json, markdown

        rows = self._rows()
        lines = lines_of(rows)
        text = f"{markdown(lines, {})}\n{self._about(rows)}\n{NOTES}"
        write_atomically(self.out / "compare.md", text)
        write_atomically(self.out / "compare.csv", as_csv(rows))
        write_json(self.out / "compare.json", as_json(lines, rows))
        if figure := frontier_figure(lines):
            for kind in ("svg", "png"):
                write_atomically(self.out / f"compare.{kind}", as_bytes(figure, kind))
        return lines

    @contextmanager
    def _alone(self) -> Iterator[None]:
        self.out.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.out / ".lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise UserError(
                f"another comparison works in {self.out}; wait for it, or name another folder with "
                "--out."
            ) from None
        try:
            yield
        finally:
            lock.release()

    def _split(self) -> None:
        share = self.asked.hold_out or 0
        if not share:
            return
        # Late: datasets takes a second.
        from flowertune.base.progress_bars import disable_progress_bars
        from flowertune.compare.held_out import split_rows

        disable_progress_bars()
        settings = self.grid.settings
        split = split_rows(settings[DATASET], settings[REVISION], self.app, share, self.out / ROWS)
        self.say(
            f"{split.rows:,} rows to train on; the loss is measured on {split.rows_held_out:,} "
            "others"
        )
        self.grid = replace(self.grid, settings={**settings, DATASET: str(split.train)})
        self.held_out = split.held_out

    def _counted(self, workers: Workers) -> dict[Kind, list[int]]:
        """Return the bytes of each method's messages, counted in a short run of it."""
        if self.grid.equal != BYTES:
            return {}
        cells = short_cells(self.grid)
        folders = [self.out / SHORT_RUNS / cell.folder(self.code) for cell in cells]
        tasks = [Task(cell, folder, None) for cell, folder in zip(cells, folders, strict=True)]
        self.say(f"counting the bytes of {counted(len(cells), 'method')} in short runs")
        found = {}
        for number, about in workers.each(do_task, [(self.app, task) for task in tasks]):
            cell = cells[number]
            if about["error"]:
                raise UserError(f"{cell.name} cannot be run: {about['error']}")
            found[kind_of(cell)] = counted_bytes(folders[number] / about["run"])
        return found

    def _task(self, cell: Cell) -> Task:
        return Task(cell, self.out / RUNS / cell.folder(self.code), self.held_out)

    def _run(self, workers: Workers) -> None:
        tasks = [self._task(cell) for cell in self.cells]
        left = [task for task in tasks if about_of(task.folder).get("error", ...) is not None]
        begun = sum(run_of(task.folder) is not None and not is_finished(task.folder)
                    for task in left)  # fmt: skip
        self.say(
            f"{counted(len(tasks), 'run')}: {len(tasks) - len(left)} done"
            + (f", {begun} to go on with" if begun else "")
            + f"; {self.parallel} at a time"
        )
        self._say_rounds()
        began, work, done = time.monotonic(), sum(t.cell.rounds for t in left), 0
        for count, (number, about) in enumerate(
            workers.each(do_task, [(self.app, task) for task in left]), start=1
        ):
            task = left[number]
            done += task.cell.rounds
            pace = (time.monotonic() - began) / done
            more = f"; about {duration(pace * (work - done))} left" if done < work else ""
            said = self._said(task, about)
            self.say(f"{len(tasks) - len(left) + count} of {len(tasks)}: {said}{more}")

    def _say_rounds(self) -> None:
        rounds = dict.fromkeys((cell.name, cell.rounds) for cell in self.cells)
        self.say("rounds: " + ", ".join(f"{name} {number}" for name, number in rounds))

    def _said(self, task: Task, about: dict[str, Any]) -> str:
        if about["error"]:
            self.problems.append(f"{task.cell.label}: {about['error']}")
            return f"{task.cell.label} FAILED: {about['error']}"
        run = run_of(task.folder)
        assert run is not None
        parts = [task.cell.label]
        if (loss := run.last.get("train-loss")) is not None:
            parts.append(f"loss {loss:.3f}")
        if about["held-out-loss"] is not None:
            parts.append(f"held-out {about['held-out-loss']:.3f}")
        if task.cell.kind == METHOD:
            parts.append(f"{run.last.get('total-mib', 0):,.1f} MiB")
        return ", ".join([*parts, duration(sum(line.get("seconds", 0) for line in run.rounds))])

    def _variants(self) -> dict[tuple[tuple[str, Any], ...], Cell]:
        """Return a run of each choice of varied settings."""
        return {cell.varied: cell for cell in reversed(self.cells) if cell.kind == METHOD}

    def _base_key(self, cell: Cell) -> str:
        shapes = {k: v for k, v in cell.settings.items() if k.startswith(("model.", "prompt."))}
        return json_sha256({"settings": shapes, "code": self.code, "rows": str(self.held_out)})

    def _base_losses(self, workers: Workers) -> None:
        if BASE not in self.grid.arms or self.held_out is None:
            return
        known = read_json(self.out / BASES) or {}
        for cell in self._variants().values():
            if (key := self._base_key(cell)) not in known:
                known[key] = workers.one(base_loss, self.app, cell.settings, self.held_out)
                write_json(self.out / BASES, known)

    def _scorer(self, cell: Cell) -> Scorer | None:
        if self.module is None:
            return None
        data, options = str(self.asked.score), str(self.asked.score_options)
        return Scorer(self.app, cell.settings, self.module, data, options, self.out, self.threads)

    def _score(self) -> None:
        groups: dict[tuple[Any, ...], list[Cell]] = {}
        for cell in self.cells:
            settings = cell.settings
            key = settings["model.name"], settings["model.quantization"]
            groups.setdefault(key, []).append(cell)
        for cells in groups.values():
            scorer = self._scorer(cells[0])
            checkpoints = [path for cell in cells if (path := self._checkpoint(cell))]
            if scorer is None or not checkpoints:
                continue
            self.say(f"scoring {counted(len(checkpoints), 'checkpoint')} and the base model")
            try:
                scorer.score(checkpoints, self.say, with_base=BASE in self.grid.arms)
            except UserError as error:
                self.problems.append(str(error))
                self.say(f"FAILED: {error}")

    def _checkpoint(self, cell: Cell) -> Path | None:
        folder = self._task(cell).folder
        about = about_of(folder)
        return folder / about["run"] / about["checkpoint"] if "checkpoint" in about else None

    def _rows(self) -> list[dict[str, Any]]:
        rows = []
        for cell in self.cells:
            folder, scorer, checkpoint = (
                self._task(cell).folder, self._scorer(cell), self._checkpoint(cell),
            )  # fmt: skip
            score = scorer.result(checkpoint) if scorer and checkpoint else {}
            rows.append(row_of(cell, run_of(folder), about_of(folder), score))
        if BASE in self.grid.arms:
            losses = read_json(self.out / BASES) or {}
            for varied, cell in self._variants().items():
                scorer = self._scorer(cell)
                score = scorer.result(None) if scorer else {}
                rows.append(base_row(dict(varied), losses.get(self._base_key(cell)), score))
        return rows

    def _about(self, rows: Sequence[dict[str, Any]]) -> str:
        """Return what the table's numbers are of: what is equal, how many rows, what is missing."""
        grid = self.grid
        equal = "bytes: the most rounds within the budget" if grid.equal == BYTES else "tokens"
        text = [f"Equal {equal}. {counted(grid.nodes, 'SuperNode')}."]
        if self.held_out is not None:
            held = len(self.held_out.read_text("utf-8").splitlines())
            text.append(f"Held-out loss on {counted(held, 'row')}.")
        if counts := {row["score-rows"] for row in rows if "score-rows" in row}:
            text.append(f"Score on {' or '.join(map(str, sorted(counts)))} rows.")
        if missing := sum(not row["done"] for row in rows):
            text.append(f"{counted(missing, 'run')} not done.")
        if len(libraries := {row["library"] for row in rows if row.get("library")}) > 1:
            text.append(f"The runs were made with {len(libraries)} versions of the library.")
        return " ".join(text) + "\n"
