"""``flowertune new``: an app out of the template, by Copier, with one sentence for an error."""

import json
import re
import shlex
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import unquote, urlsplit

import typer

from flowertune.base.errors import UserError

NAME = "flowertune"
EXAMPLES = """\b
examples:
  flowertune new finance my-finance
  flowertune new code apps/my-code --rules flower.ai
  flowertune new medical my-medical --template https://example.org/template.git --ref v1.0.0
"""


def new(
    challenge: Annotated[
        str, typer.Argument(metavar="CHALLENGE", help="Such as finance.", show_default=False)
    ],
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="Where the app goes.", show_default=False)
    ],
    template: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="The template's git repository: a folder or an address. By default the one that "
            "flowertune was installed from.",
        ),
    ] = None,
    ref: Annotated[
        str | None,
        typer.Option(metavar="REF", help="Tag, branch or commit. By default the latest release."),
    ] = None,
    rules: Annotated[
        str | None, typer.Option(metavar="RULES", help="50-supernodes (default) or flower.ai.")
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The app's name; by default the folder's."),
    ] = None,
    publisher: Annotated[
        str | None,
        typer.Option(metavar="ACCOUNT", help="Your account on Flower Hub, if you have one."),
    ] = None,
) -> None:
    """Make an app for a challenge: `copier copy` without questions.

    Needs Copier, which the extra `template` brings. For the questions, use `copier copy` itself;
    for the template's later fixes, `copier update` in the app.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(
            f"{folder} is there already; name a folder that does not exist yet or is empty, or run "
            "`copier update` in an app to bring it up to date."
        )
    address, installed_ref = (template, None) if template else _installed_from()
    local = Path(address).expanduser()
    if local.is_dir() and not (local / "copier.yml").is_file():
        raise UserError(f"{address} is no template: it holds no copier.yml (--template).")
    answers = {
        "challenge": challenge, "rules": rules, "project_name": name, "publisher": publisher,
    }  # fmt: skip
    given = {key: value for key, value in answers.items() if value is not None}
    _render(_for_copier(address), folder, given, ref or installed_ref)
    print(f"The app is in {folder}. Next:")
    print(f"  cd {shlex.quote(str(folder))}")
    print('  git init && git add -A && git commit -m "Start"    # for `copier update`')
    print("  pip install -e .")
    print("  flowertune connect")
    print("  flwr run . --stream --run-config quickstart.toml   # needs neither a GPU nor the hub")


def _render(address: str, folder: Path, answers: dict[str, Any], ref: str | None) -> None:
    try:
        import copier  # late: it comes with an extra
    except ImportError as error:
        raise UserError(
            "`flowertune new` needs Copier, which is not installed: pip install 'copier>=9.15,<10'"
        ) from error
    try:
        copier.run_copy(address, folder, data=answers, vcs_ref=ref, defaults=True, quiet=True)
    except Exception as error:  # Copier's are of many kinds, and its command shows tracebacks
        raise UserError(_sentence(error)) from error


def _sentence(error: Exception) -> str:
    """What Copier says of an error, in one line; of git's errors, git's own words."""
    said = getattr(error, "stderr", None) or str(error)
    said = re.sub(r"(://)[^/@\s]*@", r"\1", said)  # git repeats credentials of an address
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    fatal = [line for line in lines if line.startswith("fatal:")]
    text = (fatal or [" ".join(lines)])[0]
    if fatal or "must be a directory" in text or "Unknown revision" in text:
        text += " (--template, --ref)"
    return f"no app was made: {text}"


def _for_copier(address: str) -> str:
    """The address as Copier takes it, which knows some for a repository's by their form."""
    known = "://" not in address or address.startswith("git+") or address.endswith(".git")
    return address if known else f"git+{address}"


def _installed_from() -> tuple[str, str | None]:
    """The template's address and the revision that this library was installed from.

    Raises
    ------
    UserError
        If it was installed from neither a checkout nor a git address.
    """
    checkout = Path(__file__).resolve().parents[2]
    if (checkout / "copier.yml").is_file():
        return str(checkout), None
    try:
        origin = json.loads(distribution(NAME).read_text("direct_url.json") or "{}")
    except (PackageNotFoundError, ValueError):
        origin = {}
    url, git = origin.get("url", ""), origin.get("vcs_info") or {}
    if git.get("vcs") == "git":
        return url, git.get("requested_revision") or git.get("commit_id")
    local = Path(unquote(urlsplit(url).path))
    if url.startswith("file:") and (local / "copier.yml").is_file():
        return str(local), None
    raise UserError(
        "flowertune was not installed from the template's repository, so name it: a folder or a "
        "git address (--template)."
    )
