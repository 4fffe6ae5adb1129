"""Numbers for TensorBoard and Weights & Biases; neither may stop a run."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from tensorboardX.proto.event_pb2 import Event  # type: ignore

from flowertune.base.errors import UserError
from flowertune.loggers import loggers
from flowertune.loggers.loggers import Loggers, run_loggers
from flowertune.loggers.plot import plot_run
from flowertune.loggers.scalars import round_scalars
from flowertune.loggers.tensorboard import TensorBoard, write_events
from flowertune.loggers.wandb import WeightsAndBiases
from tests.apps import settings
from tests.runs import round_line, write_run


def events(path: Path) -> list:
    """Read an event file back with tensorboardX's own message types."""
    content, read = path.read_bytes(), []
    while content:
        size = int.from_bytes(content[:8], "little")
        read.append(Event.FromString(content[12 : 12 + size]))
        content = content[16 + size :]
    return read


def scalars(path: Path) -> dict[str, list[tuple[int, float]]]:
    by_tag: dict[str, list[tuple[int, float]]] = {}
    for event in events(path):
        for value in event.summary.value:
            by_tag.setdefault(value.tag, []).append((event.step, value.simple_value))
    return by_tag


def purged(path: Path) -> list[int]:
    """The steps from which on TensorBoard takes back what it has seen."""
    return [event.step for event in events(path) if event.HasField("session_log")]


def test_round_scalars_a_round():
    numbers = round_scalars(round_line(2))
    assert numbers["train/loss"] == 1.0 and numbers["communication/mib"] == 1040.0
    assert numbers["round/tokens-per-second"] == 200.0
    assert round_scalars({"round": 1, "train-loss": None}) == {}


def test_rounds_become_events(tmp_path):
    write_events(tmp_path / "events", [round_line(n) for n in (1, 2)])
    (file,) = (tmp_path / "events").glob("events.*")
    found = scalars(file)
    assert found["train/loss"] == [(1, 2.0), (2, 1.0)]
    assert [step for step, _ in found["communication/mib"]] == [1, 2]
    with pytest.raises(UserError, match=r"already holds event files.*give an empty folder"):
        write_events(tmp_path / "events", [])


def test_a_round_is_in_the_file_at_once(tmp_path):
    logger = TensorBoard(tmp_path)
    logger.log_round(round_line(1))
    (file,) = tmp_path.glob("events.*")
    assert scalars(file)["train/loss"] == [(1, 2.0)]
    logger.close()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_costs_the_logger_and_not_the_run(tmp_path, monkeypatch):
    logger = TensorBoard(tmp_path)
    with open("/dev/full", "wb", buffering=0) as full:
        monkeypatch.setattr(logger._file._py_recordio_writer, "_writer", full)
        together = Loggers([logger])
        # more rounds than a queue would hold
        for number in range(1, 31):
            together.log_round(round_line(number))
        assert together._loggers == []


def test_a_folder_that_cannot_be_made_costs_the_logger_and_not_the_run(tmp_path):
    (tmp_path / "tensorboard").write_text("a file")
    with run_loggers(settings({}), tmp_path, {}) as together:
        together.log_round(round_line(1))
        assert together._loggers == []


def test_a_run_that_goes_on_tells_its_rounds_anew(tmp_path):
    for number, done in enumerate(([], [round_line(1), round_line(2)])):
        logger = TensorBoard(tmp_path, done)
        logger.log_round(round_line(3))
        logger.close()
        # an event file's own name holds the second, which may be the same for both
        (path,) = tmp_path.glob("events.out.*")
        path.rename(tmp_path / f"events.{number}")
    first, second = tmp_path / "events.0", tmp_path / "events.1"
    assert purged(first) == []
    found = scalars(second)
    assert found["train/loss"] == [(1, 2.0), (2, 1.0), (3, pytest.approx(2 / 3))]
    assert purged(second) == [1]


class Quiet:
    """A logger that shows nothing."""

    def log_round(self, line):
        pass

    def close(self):
        pass


def fake_wandb(monkeypatch, init) -> None:
    module = ModuleType("wandb")
    module.__spec__ = SimpleNamespace(name="wandb")  # type: ignore[assignment]
    module.init = init  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "wandb", module)


def test_weights_and_biases_gets_settings_and_rounds(tmp_path, monkeypatch):
    seen: dict = {"rounds": []}
    run = SimpleNamespace(
        log=lambda numbers, step: seen["rounds"].append((step, numbers["train/loss"])),
        finish=lambda: seen.update(finished=True),
    )
    fake_wandb(monkeypatch, lambda **arguments: seen.update(arguments) or run)
    monkeypatch.setattr(loggers, "TensorBoard", lambda *_: Quiet())
    about = json.loads((write_run(tmp_path / "7", done=0) / "run.json").read_text())
    about["settings"] = {"seed": 1}
    with run_loggers(settings({"log.wandb": True}), tmp_path, about) as together:
        together.log_round(round_line(1))
        together.log_round(round_line(2))
    assert seen["id"] == "7" and seen["config"] == {"seed": 1} and seen["resume"] == "allow"
    assert seen["rounds"] == [(1, 2.0), (2, 1.0)] and seen["finished"]


def test_weights_and_biases_that_is_not_there_is_one_sentence(tmp_path, monkeypatch):
    about = {"run-id": 7, "name": "x", "settings": {}}
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"log\.wandb is true, but wandb is not installed"):
        WeightsAndBiases(tmp_path, about)


def test_weights_and_biases_that_does_not_start_is_one_sentence(tmp_path, monkeypatch):
    def init(**arguments):
        raise RuntimeError("api_key not configured\n(no-tty)")

    fake_wandb(monkeypatch, init)
    with pytest.raises(UserError, match=r"does not start \(api_key not configured \(no-tty\)\)"):
        WeightsAndBiases(tmp_path, {"run-id": 7, "name": "x", "settings": {}})


def test_a_logger_that_fails_does_not_stop_the_run():
    class Broken:
        rounds = 0

        def log_round(self, line):
            self.rounds += 1
            raise OSError("no space left")

        def close(self):
            raise OSError("no space left")

    class Good(Quiet):
        def log_round(self, line):
            kept.append(line["round"])

    broken, kept = Broken(), []
    together = Loggers([broken, Good()])
    together.log_round(round_line(1))
    together.log_round(round_line(2))
    together.close()
    assert broken.rounds == 1 and kept == [1, 2]
    Loggers([Broken()]).close()


def test_a_finished_run_has_a_picture(tmp_path):
    plot_run(tmp_path / "loss.png", [2.0, 1.0], [1.0, 2.0], "what costs $5 and $_x$: 2 rounds")
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in tmp_path.iterdir()] == ["loss.png"]


def test_what_is_measured_of_a_method_is_shown():
    measures = {"residual": 0.1, "drift": 0.9, "bytes-down": 10, "bytes-up": 5, "residuals": {}}
    shown = round_scalars(round_line(1, **measures))
    assert shown["method/residual"] == 0.1 and shown["method/drift"] == 0.9
    assert shown["communication/bytes-down"] == 10 and shown["communication/bytes-up"] == 5
