"""What an app's own pyproject.toml says about it."""

import tomllib
from dataclasses import dataclass
from pathlib import Path

from flowertune.base.errors import UserError

# Settings of a run that needs neither a GPU nor the hub; beside pyproject.toml.
QUICKSTART = "quickstart.toml"


@dataclass(frozen=True)
class App:
    """The app's name, its Python package, and the lines of ``[tool.flowertune]``."""

    name: str
    publisher: str
    version: str
    template_version: str
    supernodes: int
    package: str


def read_app(app_dir: Path) -> App:
    """Read the app's identity from ``app_dir/pyproject.toml``.

    Raises
    ------
    UserError
        If the file or one of its tables is missing.
    """
    path = app_dir / "pyproject.toml"
    try:
        toml = tomllib.loads(path.read_text("utf-8"))
        ours = toml["tool"]["flowertune"]
        return App(
            toml["project"]["name"],
            toml["tool"]["flwr"]["app"]["publisher"],
            toml["project"]["version"],
            ours["template-version"],
            ours["supernodes"],
            toml["tool"]["flwr"]["app"]["components"]["clientapp"].partition(".")[0],
        )
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; run this in a rendered app's folder.") from None
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{path} is not valid TOML: {error}.") from None
    except KeyError as error:
        raise UserError(f"{path} has no {error}; render the app again or restore it.") from None
