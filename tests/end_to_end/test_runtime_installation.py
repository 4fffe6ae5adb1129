"""Flower's own installation of an app's dependencies: the app alone brings the library it pins."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from flowertune.deploy import superlink
from flowertune.rules.provenance import PACKAGES, digest_of
from tests.flower import ROOT, Shell, make_shell
from tests.templates import clone, commit, git
from tests.tiny import save_tiny_llama

pytestmark = [pytest.mark.full, pytest.mark.slow]
SMALL = (
    "model.quantization=0 model.dtype='float32' static.dataset.name='./samples/finance.jsonl' "
    "num-server-rounds=1 train.training-arguments.max-steps=1 strategy.fraction-train=1.0 "
    "train.training-arguments.per-device-train-batch-size=2"
)


def wheels() -> list[str]:
    """The folders that pip on this machine takes wheels from."""
    command = [sys.executable, "-m", "pip", "config", "list"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = [name for line in re.findall(r"find-links='(.*)'", said) for name in line.split()]
    return [name for name in dict.fromkeys(found) if Path(name).is_dir()]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """This checkout as a git repository with the release 1.0.0."""
    return clone(tmp_path_factory.mktemp("template") / "flowertune", "v1.0.0")


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """An environment with flwr and without the library; uv takes torch from where pip does."""
    folder = tmp_path_factory.mktemp("user")
    shell = make_shell(folder)
    # The SuperLink, and with it uv, keeps the environment of the first `flwr run`.
    indexes = [f'[[index]]\nurl = "{place}"\nformat = "flat"\n' for place in wheels()]
    (folder / "uv.toml").write_text("\n".join(indexes))
    shell.env["UV_CONFIG_FILE"] = str(folder / "uv.toml")
    shell.env["UV_CACHE_DIR"] = str(folder / "uv-cache")
    (folder / "flwr-home").mkdir()
    (folder / "flwr-home/config.toml").write_text(
        '[superlink]\ndefault = "local"\n\n[superlink.local]\noptions.num-supernodes = 2\n'
        "options.backend.client-resources.num-cpus = 1\n"
    )
    shell.type("python -m pip install -q --no-deps --force-reinstall uv", folder)
    yield shell
    running = superlink.find_superlink(int(shell.env["FLWR_LOCAL_SUPERLINK_HTTP_API_PORT"]))
    if running is not None:
        superlink.stop_superlink(running)
    shutil.rmtree(folder / "uv-cache", ignore_errors=True)  # gigabytes


@pytest.fixture(scope="module")
def app(shell: Shell, template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An app rendered from the repository's address."""
    work = tmp_path_factory.mktemp("work")
    address = f"git+{template.as_uri()}"
    shell.type(f"copier copy --quiet --defaults --data challenge=finance {address} mine", work)
    app = work / "mine"
    git(app, "init", "--quiet")
    commit(app)
    trial = shutil.copytree(app, work / "trial")
    shell.type("python -m uv lock --quiet", trial)
    if any("nvidia" in line for line in (trial / "uv.lock").read_text("utf-8").splitlines()):
        pytest.skip("no folder of pip's find-links has a torch for CPUs; uv would fetch CUDA's")
    return app


def run(shell: Shell, app: Path, model: Path, results: Path) -> dict:
    """Run the app; returns what its run.json says."""
    config = f"{SMALL} model.name='{model}' results-dir='{results}'"
    log = shell.type(f'flwr run . --stream --run-config "{config}"', app)
    assert "App dependencies installed successfully via uv sync" in log, log
    assert "round 1/1 | 2 clients" in log, log
    (folder,) = results.iterdir()
    assert (folder / "peft_1/adapter_model.safetensors").is_file()
    return json.loads((folder / "run.json").read_text())


def digest(template: Path) -> str:
    """The digest of the library's files as they are in a repository."""
    files = [path for name in PACKAGES for path in (template / name).rglob("*") if path.is_file()]
    named = {path.relative_to(template).as_posix(): path for path in files}
    return digest_of({n: p for n, p in named.items() if not n.startswith("challenges/published/")})


def test_a_run_brings_the_library_that_its_app_pins_and_an_update_the_next(
    shell: Shell, template: Path, app: Path, tmp_path: Path
) -> None:
    shell.type("python -c 'import flowertune'", tmp_path, fails=True)
    model = save_tiny_llama(tmp_path / "model")
    library = run(shell, app, model, tmp_path / "first")["library"]
    assert library == {
        "version": "1.0.0", "sha256": digest(template), "editable": False, "edited": []
    }  # fmt: skip

    for name in ("pyproject.toml", "copier.yml"):
        text = (template / name).read_text("utf-8")
        assert text.count('"1.0.0"') == 1
        (template / name).write_text(text.replace('"1.0.0"', '"1.1.0"'))
    (template / "flowertune/new_in_1_1_0.py").write_text('"""New."""\n')
    commit(template, "v1.1.0")
    shell.type("copier update --quiet --defaults", app)
    assert f"git+file://localhost{template}@v1.1.0" in (app / "pyproject.toml").read_text("utf-8")

    library = run(shell, app, model, tmp_path / "second")["library"]
    assert (library["version"], library["sha256"]) == ("1.1.0", digest(template))


def mark(app: Path, number: int) -> None:
    """Give an app a mark of its own in what its server does, and in what its clients do."""
    (package,) = app.glob("flowertune_*")
    with (package / "models.py").open("a") as file:
        file.write(f"\n\ndef learning_rate(cfg, server_round):\n    return {number}e-3\n")
    text = (package / "client_app.py").read_text("utf-8")
    reply = r"return task\.reply\(model, loss=.*\)"
    text, count = re.subn(reply, f"return task.reply(model, loss={number}.5)", text)
    assert count == 1
    (package / "client_app.py").write_text(text)


def test_apps_share_an_environment_and_each_runs_its_own_code(tmp_path: Path) -> None:
    shell = make_shell(tmp_path)
    model = save_tiny_llama(tmp_path / "model")
    shell.type(f"pip install --quiet --no-deps '{ROOT}'", tmp_path)
    apps = {"first": "finance", "second": "finance", "third": "medical"}
    for number, (name, challenge) in enumerate(apps.items(), start=1):
        data = f"--quiet --defaults --vcs-ref HEAD --data challenge={challenge}"
        shell.type(f"copier copy {data} {ROOT} {name}", tmp_path)
        mark(tmp_path / name, number)

    def marks(name: str) -> tuple[float, float]:
        app, before = tmp_path / name, set((tmp_path / name).glob("results/*"))
        shell.type("flowertune connect --num-supernodes 2 --num-cpus 1", app)
        config = f"{SMALL} model.name='{model}'".replace("/finance.", f"/{apps[name]}.")
        log = shell.type(f'flwr run . --stream --run-config "{config}"', app)
        made = set(app.glob("results/*")) - before
        assert len(made) == 1, log
        (line,) = (made.pop() / "rounds.jsonl").read_text().splitlines()
        return json.loads(line)["learning-rate"], json.loads(line)["train-loss"]

    try:
        assert marks("first") == pytest.approx((1e-3, 1.5))
        assert marks("second") == pytest.approx((2e-3, 2.5))
        assert marks("third") == pytest.approx((3e-3, 3.5))
        # Another app's package is installed under the same name: the app's folder comes first.
        shell.type("pip install --quiet --no-deps -e .", tmp_path / "second")
        assert marks("first") == pytest.approx((1e-3, 1.5))
    finally:
        shell.type("flowertune connect --stop", tmp_path)
