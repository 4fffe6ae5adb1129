"""The forms of other tools: each is read by that tool's own classes, or held to its own schema."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path

import jsonschema
import pytest
import yaml
from huggingface_hub import ModelCard, ModelCardData
from huggingface_hub._eval_results import parse_eval_result_entries

from challenges import record
from evaluation import sets
from submissions import layout
from submissions.bundle import make, sources
from submissions.bundle.contents import Extras
from submissions.bundle.statement import Said
from submissions.formats import benchmarks, croissant, every_eval_ever, provenance
from tests.submissions.bundles import CONTACT, TEAM, bundle, scored, unpacked
from tests.submissions.on_record import on_record

SCHEMAS = Path(__file__).parent / "every_eval_ever"
HOSTILE = "<script>alert(1)</script> | {{ 7 * 7 }} [x](javascript:y) `a` *b*"


@cache
def found():
    """What the bundle is made of."""
    with on_record():
        return sources.read(scored().run, scored().scores)


@cache
def made(team=TEAM, method=None, hub_id=None):
    """The files of a bundle, and its statement."""
    with on_record():
        one = make.assemble(found(), Said(team=team, contact=CONTACT), Extras(method, hub_id))
    files = {k: v if isinstance(v, bytes) else v.read_bytes() for k, v in one.files.items()}
    return files, one.statement


def data_of(card: ModelCard) -> ModelCardData:
    """The metadata of a card; the library's own hint is that of any card."""
    assert isinstance(card.data, ModelCardData)
    return card.data


def record_of(files):
    """The Every Eval Ever record and its lines."""
    names = sorted(name for name in files if name.startswith(f"{layout.EVERY_EVAL_EVER}/"))
    (body,) = (json.loads(files[name]) for name in names if name.endswith(".json"))
    (lines,) = (files[name].splitlines() for name in names if name.endswith(".jsonl"))
    return names, body, [json.loads(line) for line in lines]


def test_the_hub_reads_the_card():
    files, body = made()
    card = ModelCard(files[layout.CARD].decode())
    scores = {one.dataset_name: one.metric_value for one in data_of(card).eval_results or []}
    results = json.loads(files[layout.SCORES])["sets"]
    titles = {name: entry["title"] for name, entry in results.items()}
    assert scores == {titles[name]: float(score) for name, score in body["scores"].items()}
    hubs = {item.name: item.hub.path for item in sets.of_challenge("finance").sets}
    assert {one.dataset_type for one in data_of(card).eval_results or []} == set(hubs.values())
    assert data_of(card).library_name == "peft"
    assert "## Method" in card.text
    assert "To be filled in" in card.text
    assert body["average"] in card.text


def test_the_card_names_base_model_and_data_of_the_hub():
    manifest = {
        **found().manifest,
        "base-model": {"name": "acme/model", "revision": "main"},
        "static": {**found().manifest["static"], "dataset.name": "acme/rows"},
    }
    from submissions.formats.card import card

    with on_record():
        text = card(replace(found(), manifest=manifest), made()[1])
    data = data_of(ModelCard(text.decode()))
    assert (data.base_model, data.datasets) == ("acme/model", ["acme/rows"])


def test_a_method_stands_in_the_card():
    files, _ = made(method="We average in another way.\n\n- {{ 7 * 7 }}")
    text = ModelCard(files[layout.CARD].decode()).text
    assert "We average in another way.\n\n- {{ 7 * 7 }}" in text
    assert "To be filled in" not in text


def test_a_hostile_team_is_text_in_every_form():
    files, _ = made(team=HOSTILE[:100])
    card = ModelCard(files[layout.CARD].decode())
    assert [one.metric_value for one in data_of(card).eval_results or []]
    for wrong in ("<script>", "49", "[x](", "\n| {{"):
        assert wrong not in card.text
    yaml.safe_load(files[f"{layout.HUB_RESULTS}/flowertune-finance.yaml"])
    names, body, _ = record_of(files)
    assert body["source_metadata"]["source_organization_name"] == HOSTILE[:100]
    assert all("script-alert-1-script" in name for name in names)


def test_the_hub_reads_its_results():
    files, body = made()
    text = files[f"{layout.HUB_RESULTS}/flowertune-finance.yaml"].decode()
    entries = parse_eval_result_entries(yaml.safe_load(text))
    assert {one.dataset_id for one in entries} == {benchmarks.dataset("finance")}
    values = {one.task_id: one.value for one in entries}
    assert values.pop("average") == float(body["average"])
    assert values == {name: float(score) for name, score in body["scores"].items()}
    assert all(one.verify_token is None and one.date == body["created"] for one in entries)
    assert all("50-supernodes 1.0.0" in (one.notes or "") for one in entries)


def schema(name):
    return json.loads((SCHEMAS / f"{name}.schema.json").read_text("utf-8"))


def test_every_eval_ever_holds_to_its_schema():
    files, body = made()
    names, one, lines = record_of(files)
    jsonschema.Draft7Validator.check_schema(schema("eval"))
    jsonschema.validate(one, schema("eval"), jsonschema.Draft7Validator)
    reader = jsonschema.Draft7Validator(schema("instance_level_eval"))
    assert [error.message for line in lines for error in reader.iter_errors(line)] == []
    assert one["schema_version"] == schema("eval")["version"] == every_eval_ever.SCHEMA
    given = [x["score_details"]["score"] for x in one["evaluation_results"]]
    assert given == [float(score) for score in body["scores"].values()]
    details = one["detailed_evaluation_results"]
    assert f"{layout.EVERY_EVAL_EVER}/{details['file_path']}" == names[1]
    assert details["total_rows"] == len(lines) == 18
    ids = {x["evaluation_result_id"] for x in one["evaluation_results"]}
    assert {line["evaluation_result_id"] for line in lines} == ids
    for name, score in zip(body["scores"], given, strict=True):
        own = [x for x in lines if x["evaluation_name"].endswith(f"_{name}")]
        mean = 100 * sum(x["evaluation"]["score"] for x in own) / len(own)
        assert score == pytest.approx(mean, abs=0.005)


def test_the_schema_sees_what_is_wrong():
    _, one, lines = record_of(made()[0])
    checks = jsonschema.Draft7Validator(schema("eval"))
    for wrong in (
        {**one, "more": 1},
        {**one, "evaluation_results": [{}]},
        {**one, "detailed_evaluation_results": {"format": "jsonl", "file_path": "x"}},
    ):
        assert not checks.is_valid(wrong)
    assert not jsonschema.Draft7Validator(schema("instance_level_eval")).is_valid(
        {**lines[0], "output": None}
    )


def test_the_record_has_the_adapters_name_on_the_hub():
    names, one, lines = record_of(made(hub_id="acme/adapter")[0])
    assert one["model_info"]["id"] == "acme/adapter"
    assert {line["model_id"] for line in lines} == {"acme/adapter"}
    assert all("/data/flowertune-finance/acme/adapter/" in name for name in names)


def test_the_provenance_is_a_statement_about_the_bundles_files():
    files, _ = made()
    body = json.loads(files[layout.PROVENANCE])
    assert body["_type"] == "https://in-toto.io/Statement/v1"
    assert body["predicateType"] == "https://slsa.dev/provenance/v1"
    sums = dict(x.split("  ")[::-1] for x in files[layout.SUMS].decode().splitlines())
    run = body["predicate"]["runDetails"]
    named = {x["name"]: x["digest"]["sha256"] for x in (*body["subject"], *run["byproducts"])}
    assert named == {name: sums[name] for name in named}
    assert {layout.WEIGHTS, layout.MANIFEST, layout.SCORES, layout.CHAIN} <= named.keys()
    build = body["predicate"]["buildDefinition"]
    assert build["externalParameters"]["settings"] == found().manifest["settings"]
    dependencies = {x["name"]: x for x in build["resolvedDependencies"]}
    assert dependencies["app"]["digest"]["sha256"] == found().manifest["app"]["sha256"]
    assert dependencies["torch"]["uri"].startswith("pkg:pypi/torch@")
    assert run["metadata"]["startedOn"].endswith("Z")
    assert ":" in build["buildType"]


def test_a_pinned_model_of_the_hub_is_a_commit():
    commit = "0123456789abcdef0123456789abcdef01234567"
    manifest = {
        **found().manifest, "base-model": {"name": "acme/model", "revision": commit},
    }  # fmt: skip
    model, data, *_ = provenance.dependencies(manifest)
    assert model == {
        "name": "base-model",
        "uri": f"https://huggingface.co/acme/model@{commit}",
        "digest": {"gitCommit": commit},
    }
    assert "uri" not in data
    assert data["annotations"]["partitions"] == manifest["rows"]


def croissant_of(pinned=None):
    manifest = {
        **found().manifest,
        "static": {**found().manifest["static"], "dataset.name": "acme/rows"},
    }
    of = {"finance": {"training": {"files": pinned or {}}}}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(record, "pinned", lambda rules, version: of)
        return json.loads(croissant.croissant(replace(found(), manifest=manifest)))


def ids(value):
    """Every @id that is defined, and every one that is referred to."""
    if isinstance(value, dict):
        if "@id" in value:
            yield ("defined" if "@type" in value else "named"), value["@id"]
        for key, inner in value.items():
            if key != "@context":
                yield from ids(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from ids(inner)


def test_croissant_describes_the_rows_and_who_held_them():
    body = croissant_of()
    assert body["conformsTo"] == "http://mlcommons.org/croissant/1.1"
    of_rows, of_partitions = body["recordSet"]
    assert [field["name"] for field in of_rows["field"]] == ["instruction", "input", "output"]
    data = {row["partitions/partition"]: row["partitions/sha256"] for row in of_partitions["data"]}
    assert data == {int(n): x["sha256"] for n, x in found().manifest["rows"].items()}
    everything = list(ids(body))
    defined = [name for kind, name in everything if kind == "defined"]
    assert len(defined) == len(set(defined))
    assert {name for kind, name in everything if kind == "named"} <= set(defined)
    local = json.loads(made()[0][layout.CROISSANT])
    assert "distribution" not in local
    assert [one["name"] for one in local["recordSet"]] == ["partitions"]


def test_croissant_has_the_hashes_that_the_rules_pin():
    pinned = {
        "data/train.jsonl": {"bytes": 3, "sha256": "ab" * 32},
        ".gitattributes": {"bytes": 1, "git-sha1": "cd" * 20},
    }
    body = croissant_of(pinned)
    hashes = {one["@id"]: one.get("sha256") for one in body["distribution"]}
    assert hashes["data/train.jsonl"] == "ab" * 32
    assert ".gitattributes" not in hashes
    (files,) = (one for one in body["distribution"] if one["@type"] == "cr:FileSet")
    assert files["includes"] == "**/*.jsonl"


def environment(folder: Path, python: str, *packages: str) -> Path:
    """Make an environment of its own with these packages; returns its Python."""
    subprocess.run([python, "-m", "venv", folder], check=True)
    own = folder / "bin" / "python"
    command = [own, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"{' '.join(packages)} cannot be installed here: {done.stderr[-200:]}")
    return own


def newer_python() -> str:
    """A Python of at least 3.12, which the validator of Every Eval Ever needs."""
    there = [sys.executable, *(shutil.which(f"python3.{n}") or "" for n in (12, 13, 14))]
    if (pyenv := shutil.which("pyenv")) is not None:
        done = subprocess.run([pyenv, "root"], capture_output=True, text=True, check=False)
        versions = Path(done.stdout.strip() or "none") / "versions"
        there += sorted(str(path) for path in versions.glob("3.1[2-9]*/bin/python"))
    ask = "import sys; sys.exit(sys.version_info < (3, 12))"
    for python in filter(None, there):
        if subprocess.run([python, "-c", ask], capture_output=True, check=False).returncode == 0:
            return python
    pytest.skip("there is no Python of 3.12 or later")


@pytest.mark.full
def test_its_own_validator_takes_the_record_of_every_eval_ever(tmp_path):
    own = environment(tmp_path / "own", newer_python(), "every-eval-ever==0.3.0")
    folder = unpacked(tmp_path / "bundle") / layout.EVERY_EVAL_EVER
    paths = sorted(path.relative_to(folder) for path in folder.rglob("*.json*"))
    command = [own, "-m", "every_eval_ever", "validate", *paths]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed" in done.stdout


@pytest.mark.full
def test_its_own_validator_takes_the_croissant_of_a_set(tmp_path):
    own = environment(tmp_path / "own", sys.executable, "mlcroissant==1.1.1")
    bodies = {
        "local": json.loads(made()[0][layout.CROISSANT]),
        "hub": croissant_of(),
        "pinned": croissant_of({"data/a.parquet": {"bytes": 1, "sha256": "ab" * 32}}),
    }
    for name, body in bodies.items():
        file = tmp_path / f"{name}.json"
        file.write_text(json.dumps(body))
        command = [own.with_name("mlcroissant"), "validate", "--jsonld", file]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.full
def test_the_libraries_of_in_toto_take_the_provenance(tmp_path):
    own = environment(tmp_path / "own", sys.executable, "in-toto-attestation==0.9.3")
    folder = unpacked(tmp_path / "bundle", bundle())
    code = """\
import json, sys
from google.protobuf import json_format
from in_toto_attestation.predicates.provenance.v1 import provenance_pb2
from in_toto_attestation.v1 import statement_pb2
from in_toto_attestation.v1.statement import Statement
body = json.load(open(sys.argv[1]))
Statement.copy_from_pb(json_format.ParseDict(body, statement_pb2.Statement())).validate()
json_format.ParseDict(body["predicate"], provenance_pb2.Provenance())
"""
    command = [own, "-c", code, folder / layout.PROVENANCE]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
