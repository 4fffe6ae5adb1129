"""Render the template in tests, from this checkout or from a repository made of it."""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import copier

ROOT = Path(__file__).parent.parent

GIT_ENVIRONMENT = {
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_SYSTEM": os.devnull,
    "GIT_AUTHOR_NAME": "Test",
    "GIT_AUTHOR_EMAIL": "test@example.org",
    "GIT_COMMITTER_NAME": "Test",
    "GIT_COMMITTER_EMAIL": "test@example.org",
}


def git(folder: Path, *arguments: str) -> str:
    """Run git in a folder, whatever the user's own git configuration is; returns what it prints."""
    done = subprocess.run(
        ["git", *arguments],
        cwd=folder,
        env=os.environ | GIT_ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def template_only(destination: Path, tag: str = "v1.0.0") -> Path:
    """As ``clone``, of the files that a render is made of."""
    return clone(destination, tag, ("copier.yml", "template/", "challenges/", "LICENSE"))


def render(
    destination: Path, template: Path | str = ROOT, ref: str | None = "HEAD", **answers: str
) -> Path:
    """Render the template as `copier copy --defaults` does; `ref=None` takes the latest tag."""
    copier.run_copy(
        str(template), destination, data=answers, vcs_ref=ref, defaults=True, quiet=True
    )
    return destination


def run_in(repository: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a clone, with this Python as `python` and the clone's own packages."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | GIT_ENVIRONMENT | {"PATH": path, "PYTHONPATH": str(repository)}
    return subprocess.run(
        command, cwd=repository, env=environment, capture_output=True, text=True, check=False
    )


def raise_budget(repository: Path, version: str, text: str) -> None:
    """Publish a new version of the rules 50-supernodes in a clone, as CONTRIBUTING.md says."""
    rules = repository / "challenges/rules.yml"
    head, _, rest = rules.read_text("utf-8").partition("  changes:\n")
    lines = head.splitlines()
    assert lines[-2:] == ["50-supernodes:", '  version: "1.0.0"']
    lines[-1] = f'  version: "{version}"'
    entry = f'  changes:\n    - {{version: "{version}", text: "{text}"}}\n'
    rest = rest.replace("budget-mib: 200000", "budget-mib: 250000", 1)
    rules.write_text("\n".join(lines) + "\n" + entry + rest, "utf-8")
    done = run_in(repository, sys.executable, "-m", "challenges.digests", "--write")
    assert done.returncode == 0, done.stderr


def working_tree() -> list[Path]:
    """Files of this checkout that git tracks or would track, relative to its root."""
    listed = git(ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0")
    return [Path(name) for name in listed if name and (ROOT / name).exists()]


def clone(destination: Path, tag: str = "v1.0.0", parts: tuple[str, ...] = ("",)) -> Path:
    """A repository with this checkout's files, changed ones included, in one tagged commit.

    Only those whose path begins with one of ``parts``: what is small is rendered sooner.
    """
    for path in [path for path in working_tree() if path.as_posix().startswith(parts)]:
        (destination / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / path, destination / path, follow_symlinks=False)
    git(destination, "init", "--quiet")
    commit(destination, tag)
    return destination


def commit(folder: Path, tag: str | None = None) -> None:
    """Commit everything in a repository, and tag the commit if asked to."""
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "test")
    if tag:
        git(folder, "tag", tag)


def contents(folder: Path) -> Mapping[str, bytes]:
    """Relative path -> bytes, of every file below a folder but git's own and bytecode.

    Renders are shared, and a test that imports an app leaves its bytecode beside it.
    """
    own = {".git", "__pycache__"}
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and own.isdisjoint(path.relative_to(folder).parts)
    }


def copy_of(folder: Path, destination: Path) -> Path:
    """Copy a folder without its `.git`; what is built or changed there leaves it as it was."""
    for path, data in contents(folder).items():
        (destination / path).parent.mkdir(parents=True, exist_ok=True)
        (destination / path).write_bytes(data)
    return destination
