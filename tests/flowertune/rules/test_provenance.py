"""Which library runs: its digest, how it was installed, and whether a release is on record."""

import base64
import hashlib
import json
import shutil
from collections.abc import Iterator
from importlib.metadata import Distribution, distributions
from pathlib import Path

import pytest

from challenges import record
from flowertune.rules import lock, provenance
from flowertune.rules.provenance import Library, digest_of, installed_library, library_files

VERSION = "1.0.0"


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of a small library, installed as pip installs a wheel."""
    site = tmp_path / "site-packages"
    for package in provenance.PACKAGES:
        write(site, f"{package}/__init__.py", f'"""{package}"""')
    write(site, "flowertune/data/rows.py", "ROWS = 1\n")
    write(site, "challenges/published/library.json", "{}")
    write(site, "challenges/samples/finance.jsonl", "{}\n")
    install(site)

    def place(package: str):
        class Spec:
            submodule_search_locations = (str(site / package),)

        return Spec

    monkeypatch.setattr(provenance, "find_spec", place)
    monkeypatch.setattr(provenance, "distribution", lambda name: installed_in(site, name))
    installed_library.cache_clear()
    yield site
    installed_library.cache_clear()


def write(site: Path, name: str, text: str) -> None:
    path = site / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def install(site: Path, direct_url: dict | None = None) -> None:
    """Write the record that an installer leaves, as the wheel format has it."""
    info = f"flowertune-{VERSION}.dist-info"
    shutil.rmtree(site / info, ignore_errors=True)
    lines = []
    for path in sorted(p for p in site.rglob("*") if p.is_file()):
        digest = hashlib.sha256(path.read_bytes()).digest()
        text = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        lines.append(f"{path.relative_to(site).as_posix()},sha256={text},{path.stat().st_size}\n")
    write(
        site, f"{info}/METADATA", f"Metadata-Version: 2.4\nName: flowertune\nVersion: {VERSION}\n"
    )
    write(site, f"{info}/RECORD", "".join(lines) + f"{info}/RECORD,,\n")
    if direct_url is not None:
        write(site, f"{info}/direct_url.json", json.dumps(direct_url))


def installed_in(site: Path, name: str) -> Distribution:
    (found,) = distributions(name=name, path=[str(site)])
    return found


def seen() -> Library:
    installed_library.cache_clear()
    return installed_library()


def released(monkeypatch: pytest.MonkeyPatch, sha256: str, version: str = VERSION) -> None:
    monkeypatch.setattr(record, "library_digest", {version: sha256}.get)


def names(differences: list[lock.Difference]) -> str:
    return " ".join(map(str, differences))


def test_the_digest_changes_with_content_and_names(library: Path):
    first = seen()
    assert (first.version, first.editable, first.edited) == (VERSION, False, ())
    write(library, "flowertune/data/rows.py", "ROWS = 2\n")
    second = seen().sha256
    (library / "flowertune/data/rows.py").rename(library / "flowertune/data/lines.py")
    third = seen().sha256
    write(library, "flowertune/extra.txt", "")
    assert len({first.sha256, second, third, seen().sha256}) == 4


def test_bytecode_and_the_record_of_releases_are_left_out(library: Path):
    first = seen()
    write(library, "flowertune/__pycache__/rows.cpython-311.pyc", "x")
    write(library, "evaluation/rows.pyc", "x")
    write(library, "challenges/published/library.json", '{"1.0.0": "x"}')
    assert seen() == first
    write(library, "challenges/samples/finance.jsonl", "{}\n{}\n")
    assert seen() != first


def test_the_digest_has_one_definition():
    files = library_files()
    assert {name.split("/")[0] for name in files} == set(provenance.PACKAGES)
    assert "flowertune/rules/provenance.py" in files
    lines = "".join(
        f"{name}\0{hashlib.sha256(files[name].read_bytes()).hexdigest()}\n"
        for name in sorted(files)
    )
    assert digest_of(files) == hashlib.sha256(lines.encode()).hexdigest()


def test_an_installed_release_is_no_difference(library: Path, monkeypatch: pytest.MonkeyPatch):
    own = seen()
    released(monkeypatch, own.sha256)
    assert lock.check_library(own, [own]) == []


def test_a_version_that_is_not_on_record_is_a_difference(
    library: Path, monkeypatch: pytest.MonkeyPatch
):
    own = seen()
    for version, sha256 in ((VERSION, "0" * 64), ("0.9", own.sha256)):
        released(monkeypatch, sha256, version)
        (difference,) = lock.check_library(own, [own])
        assert difference.key == "the library" and own.sha256[:12] in str(difference)


def test_an_edited_file_is_named(library: Path, monkeypatch: pytest.MonkeyPatch):
    released(monkeypatch, seen().sha256)
    write(library, "flowertune/data/rows.py", "ROWS = 2\n")
    write(library, "flowertune/mine.py", "")
    own = seen()
    assert own.edited == ("flowertune/data/rows.py", "flowertune/mine.py")
    assert "edited in flowertune/data/rows.py, flowertune/mine.py" in names(
        lock.check_library(own, [own])
    )


def test_an_editable_install_is_a_difference_whatever_its_digest(
    library: Path, monkeypatch: pytest.MonkeyPatch
):
    install(library, {"url": "file:///x", "dir_info": {"editable": True}})
    own = seen()
    assert own.editable
    released(monkeypatch, own.sha256)
    assert "an editable install" in names(lock.check_library(own, [own]))


def test_a_checkout_that_comes_first_on_the_path_is_as_an_editable_install(
    library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    checkout = tmp_path / "checkout"
    shutil.copytree(library, checkout)
    monkeypatch.setattr(provenance, "distribution", lambda name: installed_in(checkout, name))
    assert seen().editable


def test_clients_with_another_library_are_a_difference(
    library: Path, monkeypatch: pytest.MonkeyPatch
):
    own = seen()
    released(monkeypatch, own.sha256)
    for other in (
        Library("0.9.0", own.sha256),
        Library(own.version, "1" * 64),
        Library(own.version, own.sha256, editable=True),
        Library(own.version, own.sha256, edited=("flowertune/data/rows.py",)),
    ):
        (difference,) = lock.check_library(own, [own, other])
        assert difference.key == "the library on clients"


def test_a_library_travels_as_json():
    for own in (seen(), Library("1.0", "a" * 64, False, ("flowertune/x.py",))):
        assert Library.of(json.loads(json.dumps(own.record()))) == own
    for body in ({}, {"version": 1, "sha256": "a", "editable": False, "edited": []}, None):
        with pytest.raises((TypeError, KeyError)):
            Library.of(body)
