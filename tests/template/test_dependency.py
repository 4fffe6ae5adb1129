"""How an app asks for the library: by the address and the release that it was rendered from."""

import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pytest
import yaml
from flwr.cli.build import build_fab_from_disk
from packaging.requirements import Requirement
from plumbum import local

from challenges.hub.address import Address
from tests.templates import GIT_ENVIRONMENT, ROOT, clone, commit, contents, git, render

# Addresses that git takes for those of a repository on this machine: nothing is fetched from afar.
ELSEWHERE = (
    "https://github.com/acme/t.git",
    "https://user:s3cret@github.com/acme/t.git",
    "https://gitlab.com/acme/t.git",
    "https://h.example/t.git",
    "https://user:s3cret@h.example/t.git",
    "https://s3cret@h.example/t.git",
    "https://h.example/t",
    "https://user:s3cret@h.example/t",
    "git@h.example:acme/t.git",
    "git@h.example:/srv/t.git",
    "ssh://git@h.example/t.git",
    "ssh://git:s3cret@h.example:22/t.git",
    "git://h.example/t.git",
)
PLAIN = "cannot fetch it, so it must be installed"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with the repositories that are rendered: those parts of this one that decide."""
    home = tmp_path_factory.mktemp("home")
    repository = home / "t"
    for name in ("copier.yml", "challenges"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy2
        repository.mkdir(exist_ok=True)
        copy(ROOT / name, repository / name)
    (repository / "template").mkdir()
    for path in (ROOT / "template").glob("*.jinja"):
        if path.name.startswith(("pyproject", "{{ _copier")):
            shutil.copy2(path, repository / "template")
    shutil.copytree(repository, home / "plain")
    shutil.copytree(repository, home / "within/t")
    git(home / "within", "init", "--quiet")
    git(repository, "init", "--quiet")
    commit(repository, "v1.0.0")
    git(home, "clone", "--quiet", "--bare", "t", "bare.git")
    git(home, "clone", "--quiet", "t", "odd @ näme#1")
    git(home, "clone", "--quiet", "t", "untagged")
    git(home / "untagged", "tag", "--delete", "v1.0.0")
    git(home, "clone", "--quiet", "t", "ahead")
    (home / "ahead/new").write_text("new")
    commit(home / "ahead")
    git(home, "clone", "--quiet", "ahead", "dirty")
    (home / "dirty/copier.yml").write_text((home / "dirty/copier.yml").read_text() + "# mine\n")
    git(home, "clone", "--quiet", "t", "annotated")
    git(home / "annotated", "tag", "--delete", "v1.0.0")
    git(home / "annotated", "tag", "--annotate", "release/1.1.0", "--message", "x")
    lines = [f'[url "{home}/bare.git"]', *(f"insteadOf = {address}" for address in ELSEWHERE)]
    (home / "gitconfig").write_text("\n".join(lines))
    return home


@pytest.fixture
def ask(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[str, dict[str, str], str]]:
    """Render from an address; returns the requirement, the answers, and the pyproject.toml."""
    monkeypatch.setenv("HOME", str(place))
    monkeypatch.chdir(place)

    def rendered_from(source: str, ref: str | None = None, **data: str):
        # Copier runs git in plumbum's environment, a copy made when plumbum was imported.
        with local.env(**GIT_ENVIRONMENT | {"GIT_CONFIG_GLOBAL": str(place / "gitconfig")}):
            app = render(tmp_path / "app", source, ref, **data)
        text = (app / "pyproject.toml").read_text("utf-8")
        (requirement,) = tomllib.loads(text)["project"]["dependencies"]
        assert Requirement(requirement).name == "flowertune"
        answers = yaml.safe_load((app / ".copier-answers.yml").read_text("utf-8"))
        return requirement, answers, text

    return rendered_from


def head(folder: Path) -> str:
    return git(folder, "rev-parse", "HEAD").strip()


@pytest.mark.parametrize(
    ("source", "address", "recorded"),
    [
        ("gh:acme/t", "git+https://github.com/acme/t.git", "gh:acme/t"),
        ("gh:acme/t.git", "git+https://github.com/acme/t.git", "gh:acme/t.git"),
        ("gl:acme/t", "git+https://gitlab.com/acme/t.git", "gl:acme/t"),
        ("https://github.com/acme/t", "git+https://github.com/acme/t.git", ...),
        ("https://github.com/acme/t.git", "git+https://github.com/acme/t.git", ...),
        ("https://h.example/t.git", "git+https://h.example/t.git", ...),
        ("git+https://h.example/t", "git+https://h.example/t", ...),
        ("git+https://h.example/t.git", "git+https://h.example/t.git", ...),
        ("git@h.example:acme/t.git", "git+ssh://git@h.example/acme/t.git", ...),
        ("git@h.example:/srv/t.git", "git+ssh://git@h.example/srv/t.git", ...),
        ("ssh://git@h.example/t.git", "git+ssh://git@h.example/t.git", ...),
        ("git+ssh://git@h.example/t.git", "git+ssh://git@h.example/t.git", ...),
        ("git://h.example/t.git", "git+git://h.example/t.git", ...),
        ("file://{home}/bare.git", "git+file://localhost{home}/bare.git", ...),
        ("file://localhost{home}/bare.git", "git+file://localhost{home}/bare.git", ...),
        ("git+file://{home}/t", "git+file://localhost{home}/t", ...),
        ("{home}/bare.git", "git+file://localhost{home}/bare.git", ...),
        ("./bare.git", "git+file://localhost{home}/bare.git", "{home}/bare.git"),
        ("{home}/t", "git+file://localhost{home}/t", ...),
        ("t", "git+file://localhost{home}/t", "{home}/t"),
        ("./t", "git+file://localhost{home}/t", "{home}/t"),
        ("t/../t", "git+file://localhost{home}/t", "{home}/t"),
        ("~/t", "git+file://localhost{home}/t", "{home}/t"),
        (
            "./odd @ näme#1",
            "git+file://localhost{home}/odd%20%40%20n%C3%A4me%231",
            "{home}/odd @ näme#1",
        ),
    ],
)
def test_a_git_address_becomes_a_direct_reference(source, address, recorded, ask, place) -> None:
    source, address = source.format(home=place), address.format(home=place)
    requirement, answers, text = ask(source)
    assert requirement == f"flowertune @ {address}@v1.0.0"
    assert answers["_src_path"] == (source if recorded is ... else recorded.format(home=place))
    assert answers["_commit"] == "v1.0.0"
    assert PLAIN not in text


@pytest.mark.parametrize(
    ("source", "address"),
    [
        ("https://user:s3cret@github.com/acme/t.git", "https://github.com/acme/t.git"),
        ("https://user:s3cret@h.example/t.git", "https://h.example/t.git"),
        ("https://s3cret@h.example/t.git", "https://h.example/t.git"),
        ("git+https://user:s3cret@h.example/t", "git+https://h.example/t"),
        ("ssh://git:s3cret@h.example:22/t.git", "ssh://git@h.example:22/t.git"),
    ],
)
def test_credentials_stay_where_they_were_typed(source, address, ask) -> None:
    requirement, answers, _ = ask(source)
    assert requirement == f"flowertune @ git+{address.removeprefix('git+')}@v1.0.0"
    assert answers["_src_path"] == address


@pytest.mark.parametrize(
    ("source", "ref", "pinned"),
    [
        ("ahead", None, "v1.0.0"),
        ("ahead", "HEAD", "ahead"),
        ("untagged", None, "untagged"),
        ("annotated", None, "release/1.1.0"),
        # Of uncommitted changes Copier makes a commit that only it has.
        ("dirty", "HEAD", "ahead"),
        ("dirty", None, "v1.0.0"),
    ],
)
def test_the_tag_is_pinned_or_else_the_commit(source, ref, pinned, ask, place) -> None:
    requirement, answers, _ = ask(source, ref)
    commit = head(place / pinned) if (place / pinned).is_dir() else pinned
    assert requirement == f"flowertune @ git+file://localhost{place}/{source}@{commit}"
    assert answers["_commit"] == commit


@pytest.mark.parametrize("source", ["plain", "within/t"])
def test_a_plain_folder_names_its_version_and_says_what_cannot_fetch_it(
    source, ask, place, capfd
) -> None:
    requirement, answers, text = ask(source)
    assert requirement == "flowertune==1.0.0"
    assert answers["_src_path"] == str(place / source) and "_commit" not in answers
    assert PLAIN in text
    # Copier says it, too, once it is done.
    command = [sys.executable, "-m", "copier", "copy", "--defaults", source, "other"]
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, check=True)
    shutil.rmtree(place / "other")
    said = " ".join(done.stderr.split())
    assert f"asks for flowertune==1.0.0, the version in {place / source}" in said
    assert "not a git repository" in said and "runtime installation cannot fetch" in said


@pytest.mark.parametrize("source", ["t", "plain"])
def test_an_organizer_may_say_that_an_index_has_the_library(source, ask) -> None:
    requirement, answers, text = ask(source, library_index="true")
    assert requirement == "flowertune~=1.0"
    assert "library_index" not in answers and PLAIN not in text


def test_a_hub_gives_the_address_for_participants(ask) -> None:
    requirement, answers, _ = ask("t", template_address="https://hub.example/t.git")
    assert requirement == "flowertune @ git+https://hub.example/t.git@v1.0.0"
    assert answers["_src_path"] == "https://hub.example/t.git"
    assert "template_address" not in answers


@pytest.mark.parametrize(
    ("address", "given"),
    [
        ("https://user:s3cret@h.example/t", "git+https://h.example/t"),
        ("https://s3cret@github.com/a/t", "https://github.com/a/t"),
        ("git+https://user:s3cret@h.example/t.git", "git+https://h.example/t.git"),
        ("ssh://git:s3cret@h.example/t.git", "ssh://git@h.example/t.git"),
        ("git@h.example:a/t.git", "git@h.example:a/t.git"),
    ],
)
def test_a_hub_gives_no_credentials(address: str, given: str) -> None:
    assert Address.parse(address).for_copier == given


def test_no_file_of_an_app_nor_its_bundle_holds_credentials(tmp_path: Path) -> None:
    repository = clone(tmp_path / "repository")
    address = "https://user:s3cret@h.example/t.git"
    config = tmp_path / "gitconfig"
    config.write_text(f'[url "{repository}"]\ninsteadOf = {address}\n')
    with local.env(GIT_CONFIG_GLOBAL=str(config)):
        app = render(tmp_path / "my-app", address, None)
    files = dict(contents(app))
    with zipfile.ZipFile(BytesIO(build_fab_from_disk(app))) as bundle:
        files |= {f"bundle/{name}": bundle.read(name) for name in bundle.namelist()}
    assert {"pyproject.toml", "bundle/pyproject.toml"} <= set(files)
    for name, data in files.items():
        assert b"s3cret" not in data and b"user:" not in data, name
    assert b"https://h.example/t.git" in files["README.md"]
