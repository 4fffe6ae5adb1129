"""Render an app and pack it; runs in a worker process, for Copier and flwr block and are slow."""

import io
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

_ZIP_DATE = (2024, 10, 1, 0, 0, 0)  # the date flwr gives to the files of its bundles

Kind = Literal["zip", "fab"]


@dataclass(frozen=True)
class Order:
    """What is to be rendered and packed.

    Attributes
    ----------
    template : str
        The template's checkout.
    commit : str
        What is rendered: a commit does not move.
    tag : str
        What the app says it was made of, for `copier update`; empty: its commit.
    answers : tuple[tuple[str, str], ...]
        Copier's answers, as pairs, so that an order can be a key.
    name : str
        The app's name, and its folder's.
    account : str
        Who a bundle says has published it.
    source : str
        The template's address for participants: where `copier update` looks, and where the app's
        dependency on the library points.
    kind : Kind
        A zip for `flwr new`, or a Flower App Bundle for `flwr run @account/app`.
    """

    template: str
    commit: str
    tag: str
    answers: tuple[tuple[str, str], ...]
    name: str
    account: str
    source: str
    kind: Kind


def pack(order: Order) -> bytes:
    """Render an app and return it as a zip or as a bundle."""
    answers = dict(order.answers)
    if order.kind == "fab":
        # A SuperLink runs a bundle only if it names itself as it was asked for.
        answers |= {"project_name": order.name, "publisher": order.account}
    with tempfile.TemporaryDirectory(prefix="flowertune-hub-") as scratch:
        folder = Path(scratch) / order.name
        answers |= {"template_address": order.source}
        if order.tag:
            answers["template_commit"] = order.tag
        render(order.template, order.commit, answers, folder)
        if order.kind == "fab":
            # Late: the server itself reads this module, and only its workers render.
            from flwr.cli.build import build_fab_from_disk

            return build_fab_from_disk(folder)
        return zip_folder(folder)


def render(template: str, commit: str, answers: Mapping[str, str], folder: Path) -> None:
    """Do what `copier copy --defaults --vcs-ref COMMIT` does."""
    # Late, as above.
    import copier

    copier.run_copy(template, folder, data=dict(answers), vcs_ref=commit, defaults=True, quiet=True)


def zip_folder(folder: Path) -> bytes:
    """A zip with one folder in it; the same files give the same bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                entry = zipfile.ZipInfo(path.relative_to(folder.parent).as_posix(), _ZIP_DATE)
                entry.compress_type = zipfile.ZIP_DEFLATED
                entry.external_attr = (path.stat().st_mode & 0o777) << 16
                archive.writestr(entry, path.read_bytes())
    return buffer.getvalue()


def warm_up() -> None:
    """Import what `pack` needs, so that the first order does not wait for it."""
    import copier  # noqa: F401
    import flwr.cli.build  # noqa: F401
