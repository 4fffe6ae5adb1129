"""The log of a run: no line that says nothing, and a user's error in one sentence."""

import inspect
import logging
import traceback
import warnings

import pytest
from flwr.clientapp.client_app import ClientAppException
from flwr.server.superlink.fleet.vce.backend import raybackend
from flwr.simulation import app as simulation
from flwr.simulation.ray_transport import ray_actor
from flwr.supercore.exit import exit as flower_exit
from flwr.superlink.runtime import run_serverapp

from flowertune.base.errors import UserError
from flowertune.deploy.flower_log import (
    EXIT_CODE,
    IN_A_CLIENT,
    RAISED,
    SAYS_NOTHING,
    FlowerFilter,
    _without,
)


@pytest.fixture
def log(caplog, request):
    """A logger with the filter, and what it lets through."""
    logger = logging.getLogger(f"flwr.{request.node.name}")
    logger.setLevel(logging.INFO)
    logger.addFilter(FlowerFilter())
    return logger, lambda: [(r.levelname, r.getMessage(), r.exc_info) for r in caplog.records]


def test_every_line_is_one_that_the_installed_flower_logs():
    """A release that words them otherwise is seen here first."""
    text = inspect.getsource(simulation) + inspect.getsource(ray_actor)
    joined = text.replace('"\n            "', "")  # a line in two parts
    for line in SAYS_NOTHING - {""}:
        assert f'"{line}"'.replace("\t", "\\t") in joined, line
    assert f'"{IN_A_CLIENT}"' in inspect.getsource(raybackend)
    for module in (simulation, run_serverapp):
        assert f'log(ERROR, "{RAISED}", exc_entity, exc_info=ex)' in inspect.getsource(module)
    assert f'exit_message = f"{EXIT_CODE}' in inspect.getsource(flower_exit)


def test_only_what_says_nothing_is_left_out(log):
    logger, shown = log
    logger.warning("Since flwr 1.32, default simulated SuperNodes changed from 10 to 2.")
    logger.info("Federation `%s` (%s simulated SuperNodes)", "@none/default", 50)
    logger.warning("Manually terminating %s", "ClientAppActor")
    logger.info("")
    logger.info("Exit Code: 5 is what a program said")
    assert [text for _, text, _ in shown()] == [
        "Federation `@none/default` (50 simulated SuperNodes)",
        "Exit Code: 5 is what a program said",
    ]


def test_a_users_error_is_its_sentence_once(log):
    logger, shown = log
    error = UserError("model.quantization is 3 (100 %); use 4.")
    logger.error(RAISED, "Simulation", exc_info=error)
    logger.error("Exit Code: 700\n\nAn unhandled exception occurred when running the simulation.")
    logger.error(str(error))  # the run's own last line
    assert shown() == [("ERROR", str(error), None)]


def test_any_other_error_keeps_its_traceback(log):
    logger, shown = log
    error = ZeroDivisionError("division by zero")
    logger.error(RAISED, "ServerApp", exc_info=error)
    logger.error("Exit Code: 200\n\nAn unhandled exception occurred in the ServerApp.")
    (first, second) = shown()
    assert first[2] is not None and first[2][1] is error
    assert second[1].startswith("Exit Code: 200")


@pytest.mark.parametrize(
    ("error", "shown_lines"),
    [
        ("flowertune.base.errors.UserError: too few rows; add some.", 0),
        ("flowertune.base.errors.SettingsError: seed is -1.", 0),
        ("torch.OutOfMemoryError: CUDA out of memory", 3),
    ],
)
def test_a_users_error_in_a_client_is_left_to_the_run_which_names_it_once(error, shown_lines, log):
    """As flwr's vce_api.worker and raybackend.process_message log it."""
    logger, shown = log
    try:
        raise ClientAppException(f"ray::ClientAppActor.run()\n{error}\n")
    except ClientAppException as raised:
        logger.error(IN_A_CLIENT, "RayBackend")
        logger.error(raised)
        logger.error(traceback.format_exc())
    assert len(shown()) == shown_lines
    logger.error("the first two clients failed alike: too few rows; add some.")
    assert len(shown()) == shown_lines + 1


def test_warnings_of_ray_and_torch_about_themselves_are_left_out():
    said = []
    show = _without(lambda message, *where: said.append(str(message)))
    show(FutureWarning("Tip: In future versions of Ray, Ray will no longer override accelerator x"),
         FutureWarning, "worker.py", 1)  # fmt: skip
    show(FutureWarning("Tip: mind the gap"), FutureWarning, "worker.py", 1)
    assert said == ["Tip: mind the gap"]


def test_the_tip_is_the_one_that_the_installed_ray_gives():
    from ray._private import worker

    from flowertune.deploy.flower_log import WARNINGS

    text = inspect.getsource(worker).replace('"\n            "', "")
    assert WARNINGS[0] in text
    assert warnings.showwarning.__module__ != "flowertune.deploy.flower_log"
