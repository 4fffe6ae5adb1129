"""The command `flowertune`: what it lists, its exit statuses and sentences, how fast it starts."""

import io
import re
import shlex
import subprocess
import sys
from importlib.metadata import version

import click
import pytest
import typer

from flowertune.base.errors import UserError
from flowertune.cli.execute import alone, execute
from flowertune.cli.main import NAME, commands, main
from tests.apps import rendered

COMMANDS = (
    "new", "connect", "settings", "methods", "plan", "inspect", "compare", "runs", "watch",
    "report", "profile", "chat", "federation", "aggregate",
)  # fmt: skip
EXAMPLE = re.compile(rf"^ +((?:{NAME}|flwr) .*?)(?: {{2,}}.*)?$", re.MULTILINE)
# Modules that take a while, and that no help needs.
SLOW = (
    "torch", "transformers", "datasets", "peft", "flwr", "ray", "numpy", "matplotlib", "jinja2",
    "psutil", "cryptography", "tomlkit", "huggingface_hub",
)  # fmt: skip


def group() -> click.Group:
    made = typer.main.get_command(commands())
    assert isinstance(made, click.Group)
    return made


def said(capsys, *words: str) -> str:
    assert main(words) == 0
    return capsys.readouterr().out


def test_the_help_lists_every_command_with_what_it_does(capsys):
    text = said(capsys, "--help")
    listed = re.findall(r"^  ([a-z]+)  +([A-Z].*\.)$", text, re.MULTILINE)
    assert tuple(name for name, _ in listed) == COMMANDS == tuple(group().commands)
    assert main([]) == 2 and "Commands:" in capsys.readouterr().err


def test_the_version_is_that_of_the_installed_library(capsys):
    assert said(capsys, "--version") == f"{NAME} {version(NAME)}\n"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_a_help_with_examples_that_it_takes(name, capsys):
    text = said(capsys, name, "--help")
    assert "\\[" not in text and "examples:" in text
    for option in re.findall(r"^  (--[a-z-]+)", text, re.MULTILINE):
        assert option in {o for p in group().commands[name].params for o in p.opts} | {"--help"}
    examples = [words for words in EXAMPLE.findall(text) if words.split()[1] == name]
    assert examples
    for example in examples:
        arguments = shlex.split(example.partition(" | ")[0])[2:]
        with group().make_context(NAME, [], resilient_parsing=True) as above:
            # parses; nothing runs
            group().commands[name].make_context(name, arguments, parent=above)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("nothing",), "No such command 'nothing'"),
        (("plan", "--tokens", "x"), "'x' is not a valid integer"),
        (("plan", "--runconfig", "x"), "--run-config"),
        (("inspect", "--rows", "2", "--row", "1"), "--rows and --row cannot be used together"),
        (("connect", "--dry-run", "--stop"), "--dry-run and --stop cannot be used together"),
        (("profile",), "Missing argument 'RUN_ID'"),
        (("profile", "12x"), "'12x' is neither a run's id"),
        (("chat", "--template", "x"), "'x' is not one of"),
        (("aggregate", "--app", "APP", "--modes", "x"), "'x' is not layerwise or all_at_once"),
        (("aggregate", "--app", "APP", "--clients", "0"), "'0' is not a whole number"),
        (("federation", "--port", "x"), "'x' is not a valid integer"),
    ],
)
def test_a_wrong_command_line_is_status_2_and_said(words, sentence, capsys):
    app = str(rendered("finance"))
    assert main([app if word == "APP" else word for word in words]) == 2
    out, err = capsys.readouterr()
    assert sentence in err and out == ""


def test_what_a_wrong_command_may_mean_is_said_once(capsys):
    assert main(["conect"]) == 2
    err = capsys.readouterr().err
    assert err.count("Did you mean") == 1 == err.count("'connect'")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("connect",), "is not the folder of a FlowerTune app"),
        (("plan",), "has no pyproject.toml; run this in the app's folder or name it with --app"),
        (("plan", "--app", "APP", "--tokens", "0"), "--tokens is 0; give a whole number"),
        (("plan", "--app", "APP", "--run-config", "seeds=1"), "'seeds' (did you mean 'seed'?)"),
        (("inspect",), "has no pyproject.toml"),
        (("methods", "fedfoo"), "'fedfoo' is no method of the library; it has fedavg, "),
        (("inspect", "--app", "APP", "--partition", "50"), "use a number from 0 to 49"),
        (("inspect", "--app", "APP", "--plot", "a.bmp"), "ends in .png, .svg, .pdf"),
        (("runs",), "has no pyproject.toml"),
        (("watch",), "has no pyproject.toml"),
        (("watch", "--interval", "0"), "--interval is 0.0; give seconds above 0"),
        (("watch", "."), "holds no run.json"),
        (("report", "."), "holds no run.json"),
        (("report", "77", "--app", "APP"), "There is no run '77' in"),
        (("profile", "."), "has left no profile; set profile.enabled"),
        (("chat",), "--peft-path results/<run id>/peft_<round>"),
        (("chat", "--question", " "), "--question is empty"),
        (("chat", "--temperature", "nan"), "--temperature is nan; give a number of at least 0"),
        (("federation", "--nodes", "0"), "--nodes is 0; give a whole number of at least 1"),
        (("aggregate",), "run this in a rendered app's folder"),
        (("aggregate", "--app", "APP", "--clients", ","), "name nothing to run"),
        (("settings", "lorra"), "No setting has 'lorra' in its name"),
    ],
)
def test_an_error_is_status_1_and_one_sentence(words, sentence, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FLWR_HOME", str(tmp_path / "home"))
    app = str(rendered("finance"))
    assert main([app if word == "APP" else word for word in words]) == 1
    out, err = capsys.readouterr()
    assert err.startswith("error: ") and err.count("\n") == 1 and sentence in err
    assert out == ""


def raising(error: BaseException) -> typer.Typer:
    def command() -> None:
        raise error

    return alone("x", command)


@pytest.mark.parametrize(
    ("error", "status", "sentence"),
    [
        (UserError("no such thing."), 1, "error: no such thing.\n"),
        (click.ClickException("no."), 1, "error: no.\n"),
        (PermissionError(13, "Permission denied", "/a/b"), 1, "error: /a/b: Permission denied\n"),
        (KeyboardInterrupt(), 130, ""),
        (BrokenPipeError(32, "Broken pipe"), 1, ""),
        (typer.Exit(3), 3, ""),
    ],
)
def test_an_error_has_one_status_and_one_sentence_wherever_it_comes_from(
    error, status, sentence, capsys
):
    try:
        found = execute(raising(error), [], "x")
    except SystemExit as ended:  # typer's own way with a broken pipe
        found = ended.code
    assert found == status
    assert capsys.readouterr().err == sentence


@pytest.mark.parametrize("error", [ZeroDivisionError(), OSError("without a file")])
def test_a_fault_of_the_program_is_not_hidden(error):
    with pytest.raises(type(error)):
        execute(raising(error), [], "x")


def test_a_reader_that_has_left_is_not_told_of(monkeypatch, capsys):
    class Closed(io.StringIO):
        def flush(self) -> None:
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stdout", Closed())
    assert execute(alone("x", lambda: print("more")), [], "x") == 1
    assert sys.stdout is None
    assert capsys.readouterr().err == ""


def test_what_a_command_returns_is_its_status():
    assert execute(alone("x", lambda: 5), [], "x") == 5
    assert execute(alone("x", lambda: None), [], "x") == 0


def test_the_help_needs_nothing_that_is_slow_to_import():
    code = (
        "import sys; from flowertune.cli.main import main; status = main(['plan', '--help']); "
        f"print([name for name in {SLOW} if name in sys.modules], status)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[] 0"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_can_complete(shell, capsys, monkeypatch):
    monkeypatch.setenv("_FLOWERTUNE_COMPLETE", f"source_{shell}")
    with pytest.raises(SystemExit) as ended:
        main([])
    assert ended.value.code in (0, None)
    assert f"_FLOWERTUNE_COMPLETE=complete_{shell}" in capsys.readouterr().out


def test_commands_and_options_are_completed(capsys, monkeypatch):
    monkeypatch.setenv("_FLOWERTUNE_COMPLETE", "complete_bash")
    for typed, word, completed in (
        ("flowertune re", 1, "report"),
        ("flowertune plan --pr", 2, "--probe"),
    ):
        monkeypatch.setenv("COMP_WORDS", typed)
        monkeypatch.setenv("COMP_CWORD", str(word))
        with pytest.raises(SystemExit):
            main([])
        assert capsys.readouterr().out.split() == [completed]
