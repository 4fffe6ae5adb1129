"""Tampered bundles, each of another kind, with the check that has to name it.

A change begins with the files of a valid bundle. Unless a kind is about sums and seals themselves,
those are made to fit again afterwards, so that a check has to find the lie and not the broken seal.
"""

import hashlib
import io
import json
import struct
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load, save

from flowertune.base.hashing import json_sha256
from flowertune.rules.checkpoint import digest_of_parts
from flowertune.rules.manifest import SEAL, seal
from submissions import layout
from submissions.bundle.difference import difference
from submissions.bundle.packing import sums
from submissions.formats.benchmarks import OWNER
from submissions.verify import rebuilt
from submissions.verify.rebuilt import Origin
from submissions.verify.weights import read_weights, state_sha256

Files = dict[str, bytes]
ROWS = f"{layout.ROWS}/fpb.jsonl"


class Edit:
    """The files of a bundle, to be changed."""

    def __init__(self, files: Mapping[str, bytes], folder: Path) -> None:
        self.files: Files = dict(files)
        self.folder = folder

    def json(self, name: str) -> Any:
        """Return the JSON in a file."""
        return json.loads(self.files[name])

    def write(self, name: str, body: Any) -> None:
        """Replace a file by JSON."""
        self.files[name] = f"{json.dumps(body, indent=2)}\n".encode()

    def put(self, name: str, path: str, value: Any) -> None:
        """Set a value in a JSON file; ``path`` has a slash between keys."""
        body = self.json(name)
        *above, last = path.split("/")
        place = body
        for key in above:
            place = place[int(key) if isinstance(place, list) else key]
        place[last] = value(place.get(last)) if callable(value) else value
        self.write(name, body)

    def lines(self, name: str) -> list[dict[str, Any]]:
        """Return the objects of a JSONL file."""
        return [json.loads(line) for line in self.files[name].splitlines()]

    def write_lines(self, name: str, lines: list[dict[str, Any]]) -> None:
        """Replace a JSONL file, as a run writes one."""
        text = "".join(json.dumps(line, sort_keys=True) + "\n" for line in lines)
        self.files[name] = text.encode()

    def line(self, name: str, number: int, **values: Any) -> None:
        """Set values in one line of a JSONL file."""
        lines = self.lines(name)
        lines[number] |= values
        self.write_lines(name, lines)

    def both(self, path: str, value: Any) -> None:
        """Set a value in the manifest and in run.json alike."""
        self.put(layout.MANIFEST, path, value)
        self.put(layout.RUN_INFO, path, value)

    def forge(self) -> None:
        """Make everything fit that a forger can make fit without knowing better."""
        self._chain()
        manifest = self.json(layout.MANIFEST)
        manifest["adapter-sha256"] = _sha256(self.files[layout.WEIGHTS])
        manifest["adapter-config-sha256"] = _sha256(self.files[layout.ADAPTER_CONFIG])
        manifest["static-sha256"] = json_sha256(manifest["static"])
        self.write(layout.MANIFEST, seal(manifest))
        self.rescore()
        self.derive()
        self.sum()

    def derive(self) -> None:
        """Make every file again that follows from others, as what makes bundles would."""
        names = {
            one: [name for name in self.files if name.startswith(f"{one}/")]
            for one in (layout.HUB_RESULTS, layout.EVERY_EVAL_EVER, layout.APP_FILES, layout.ROWS)
        }
        for name in names[layout.ROWS]:
            path = self.folder / "forged" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(self.files[name])
        manifest, run, results = map(self.json, (layout.MANIFEST, layout.RUN_INFO, layout.SCORES))
        submission = self.json(layout.SUBMISSION)
        app = {
            n.removeprefix(f"{layout.APP_FILES}/"): self.files[n] for n in names[layout.APP_FILES]
        }
        origin = Origin(
            self.folder / "forged", manifest, run, self.lines(layout.ROUNDS), results, submission,
            app,
        )  # fmt: skip
        for path, value in rebuilt.stated(origin).items():
            self.put(layout.SUBMISSION, path.replace(".", "/"), value)
        origin = replace(origin, submission=self.json(layout.SUBMISSION))
        self.write(layout.ENVIRONMENT, rebuilt.environment(origin))
        self.write(layout.FINGERPRINTS, rebuilt.fingerprints(origin))
        self.files[layout.CROISSANT] = rebuilt.croissant(origin)
        self.files[layout.CARD] = rebuilt.card(origin, "A method of its own.")
        named = {one["name"]: _sha256(self.files[one["name"]]) for one in self._named()}
        self.files[layout.PROVENANCE] = rebuilt.provenance(origin, named)
        for name in names[layout.HUB_RESULTS] + names[layout.EVERY_EVAL_EVER]:
            del self.files[name]
        self.files |= rebuilt.hub_results(origin, OWNER)
        self.files |= rebuilt.every_eval_ever(origin, "forger/model")

    def _named(self) -> list[dict[str, Any]]:
        about = self.json(layout.PROVENANCE)
        return [*about["subject"], *about["predicate"]["runDetails"]["byproducts"]]

    def rescore(self) -> None:
        """Let the score's provenance and submission.json name the checkpoint as it is now."""
        manifest = self.json(layout.MANIFEST)
        config, weights = manifest["adapter-config-sha256"], manifest["adapter-sha256"]
        digest = digest_of_parts(config, weights)
        own = {"digest": digest, "sha256": weights, "manifest-sha256": manifest[SEAL]}
        self.put(layout.SCORES, "provenance/adapter", lambda known: {**known, **own})
        self.put(layout.SUBMISSION, "checkpoint/digest", digest)
        self.put(layout.SUBMISSION, "weights/sha256", weights)
        self.put(layout.SUBMISSION, "weights/bytes", len(self.files[layout.WEIGHTS]))
        self._provenance(manifest)

    def _provenance(self, manifest: dict[str, Any]) -> None:
        body = self.json(layout.PROVENANCE)
        about = body["predicate"]
        for one in [*body["subject"], *about["runDetails"]["byproducts"]]:
            if one["name"] in self.files:
                one["digest"]["sha256"] = _sha256(self.files[one["name"]])
        about["buildDefinition"]["externalParameters"]["settings"] = manifest["settings"]
        self.write(layout.PROVENANCE, body)

    def _chain(self) -> None:
        """Write the chain anew over what the files say now."""
        lines, records = self.lines(layout.ROUNDS), self.lines(layout.CHAIN)
        raw = self.files[layout.ROUNDS].splitlines()
        of_round = {line["round"]: _sha256(text) for line, text in zip(lines, raw, strict=True)}
        ledger = self.files[layout.LEDGER].splitlines(keepends=True)
        before = "0" * 64
        for record in records:
            number = record["round"]
            until = [x for x in ledger if json.loads(x)["round"] <= number]
            record["ledger-sha256"] = _sha256(b"".join(until))
            record["line-sha256"] = of_round.get(number)
            record["previous"] = before
            before = _sha256(json.dumps(record, sort_keys=True).encode())
        self.write_lines(layout.CHAIN, records)
        head = {"round": records[-1]["round"], "sha256": before}
        self.both("chain", head)

    def sum(self) -> None:
        """Write SHA256SUMS anew."""
        self.files.pop(layout.SUMS, None)
        self.files[layout.SUMS] = sums(self.files)

    def weights(self, change: Callable[[dict[str, np.ndarray]], Any]) -> None:
        """Change the tensors of the adapter."""
        tensors = {name: array.copy() for name, array in load(self.files[layout.WEIGHTS]).items()}
        change(tensors)
        self.files[layout.WEIGHTS] = save(tensors, metadata={"format": "pt"})

    def own_state(self) -> None:
        """Let the chain's last record hold the adapter as it is now."""
        path = self.folder / "weights.safetensors"
        path.write_bytes(self.files[layout.WEIGHTS])
        records = self.lines(layout.CHAIN)
        records[-1]["adapter-sha256"] = state_sha256(read_weights(path))
        self.write_lines(layout.CHAIN, records)

    def app(self, name: str, content: bytes | None, fits: bool = True) -> None:
        """Change a file of the app, and with ``fits`` everything that is said of it."""
        place = f"{layout.APP_FILES}/{name}"
        if content is None:
            del self.files[place]
        else:
            self.files[place] = content
        if not fits:
            return
        begin = f"{layout.APP_FILES}/"
        app = {n.removeprefix(begin): b for n, b in self.files.items() if n.startswith(begin)}
        digests = {n: _sha256(app[n]) for n in sorted(app)}
        self.both("app", {"files": digests, "sha256": json_sha256(digests)})
        self.files[layout.APP_DIFFERENCE] = difference(app).encode()

    def zip(self) -> bytes:
        """Return the files as a zip."""
        target = io.BytesIO()
        with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
            for name in sorted(self.files):
                archive.writestr(zipfile.ZipInfo(name), self.files[name], zipfile.ZIP_DEFLATED)
        return target.getvalue()


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@dataclass(frozen=True)
class Tampered:
    """One kind of tampering: its name, the check that names it, and how it is done."""

    name: str
    check: str  # class/check
    change: Callable[[Edit], bytes | None]  # returns a zip where it makes one itself


KINDS: list[Tampered] = []


def _kind(check: str, fit: str = "forge") -> Callable[..., Any]:
    """Register a change; ``fit`` says how much is made to fit afterwards: forge, sum or nothing."""

    def register(change: Callable[[Edit], Any]) -> Callable[[Edit], Any]:
        def whole(edit: Edit) -> bytes | None:
            made = change(edit)
            if fit != "nothing" and made is None:
                getattr(edit, fit)()
            return made

        KINDS.append(Tampered(change.__name__, check, whole))
        return change

    return register


# --- the archive --------------------------------------------------------------------------------


def _zip(**members: bytes) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return target.getvalue()


def _archive(name: str, made: Callable[[Edit], bytes]) -> None:
    KINDS.append(Tampered(name, "structure/archive", made))


def _with(name: str, content: bytes = b"x") -> Callable[[Edit], bytes]:
    def made(edit: Edit) -> bytes:
        edit.files[name] = content
        return edit.zip()

    return made


def _mode(mode: int) -> Callable[[Edit], bytes]:
    def made(edit: Edit) -> bytes:
        target = io.BytesIO(edit.zip())
        with zipfile.ZipFile(target, "a") as archive:
            info = zipfile.ZipInfo("results/more")
            info.create_system, info.external_attr = 3, mode << 16
            archive.writestr(info, "/etc/passwd")
        return target.getvalue()

    return made


def _twice(edit: Edit) -> bytes:
    target = io.BytesIO(edit.zip())
    with zipfile.ZipFile(target, "a") as archive:
        archive.writestr(layout.SCORES, b"{}")
    return target.getvalue()


def _names(*names: str) -> Callable[[Edit], bytes]:
    def made(edit: Edit) -> bytes:
        edit.files |= {f"{layout.APP_FILES}/{name}": b"" for name in names}
        return edit.zip()

    return made


def _beside(begin: Mapping[str, bytes] | None = None, **facts: bytes) -> Callable[[Edit], bytes]:
    """Members with something beside their content that zip programs do not show."""

    def made(edit: Edit) -> bytes:
        target = io.BytesIO()
        with zipfile.ZipFile(target, "w") as archive:
            for name, content in {**(begin or {}), **edit.files}.items():
                info = zipfile.ZipInfo(name)
                for key, value in facts.items():
                    setattr(info, key, value)
                archive.writestr(info, content)
        return target.getvalue()

    return made


def _patched(offset: Callable[[bytes], int], value: bytes) -> Callable[[Edit], bytes]:
    def made(edit: Edit) -> bytes:
        data = bytearray(edit.zip())
        place = offset(bytes(data))
        data[place : place + len(value)] = value
        return bytes(data)

    return made


def _directory(data: bytes) -> int:
    return struct.unpack("<L", data[-6:-2])[0]


def _overlap(edit: Edit) -> bytes:
    """Two entries of the directory share one member's data, as a bomb of overlaps does."""
    data = _zip(a=b"1" * 1000, b=b"2" * 1000)
    begin = _directory(data)
    second = data.index(b"PK\x01\x02", begin + 1)
    return data[: second + 42] + struct.pack("<L", 0) + data[second + 46 :]


def _extra_name(edit: Edit) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        info = zipfile.ZipInfo("results/results.json")
        name = b"results/other.json"
        body = struct.pack("<BL", 1, 0) + name
        info.extra = struct.pack("<HH", 0x7075, len(body)) + body
        archive.writestr(info, b"{}")
    return target.getvalue()


def _false_64(edit: Edit) -> bytes:
    """A zip64 record whose directory is another one than the end's."""
    data = edit.zip()
    end, body = data[-22:], data[:-22]
    count = struct.unpack("<H", end[10:12])[0]
    record = struct.pack("<4sQHHLLQQQQ", b"PK\x06\x06", 44, 45, 45, 0, 0, count, count, 10, 0)
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, len(body), 1)
    return body + record + locator + end


def _more_than_said(edit: Edit) -> bytes:
    """A member that unpacks to more than its size, and its checksum is that of the beginning."""
    data = bytearray(_zip(a=b"1" * 2000))
    import zlib

    crc = struct.pack("<L", zlib.crc32(b"1" * 1000))
    place = _directory(bytes(data))
    for at_crc, at_size in ((14, 22), (place + 16, place + 24)):
        data[at_crc : at_crc + 4] = crc
        data[at_size : at_size + 4] = struct.pack("<L", 1000)
    return bytes(data)


_archive("absolute path", _with("/tmp/evil"))
_archive("path out of the folder", _with("results/../../evil"))
_archive("path with backslashes", _with("results\\..\\evil"))
_archive("name with a control character", _with("results/\x1b[2J"))
_archive("name of a device", _with("results/NUL.txt"))
_archive("name that ends with a dot", _with("results/results.json."))
_archive("name that is read backwards", _with("app/files/\u202egnp.py"))
_archive("name twice but for the form of a letter", _names("stra\u00dfe.py", "STRASSE.py"))
_archive("name twice but for composed accents", _names("\u00e9.py", "e\u0301.py"))
_archive("text hidden beside a member", _beside(comment=b"hidden"))
_archive("data hidden in an extra field", _beside(extra=struct.pack("<HH", 0x9999, 4) + b"more"))
_archive("link hidden in an extra field", _beside(extra=struct.pack("<HH4s", 0x756E, 4, b"/etc")))
_archive("folder in place of a file", _beside(begin={f"{layout.SUBMISSION}/": b""}))
_archive("sizes that are said to follow the data", _patched(lambda data: 6, b"\x08\x00"))
_archive("folder outside", _beside(begin={"../evil/": b""}))
_archive("symbolic link", _mode(0o120777))
_archive("device", _mode(0o020666))
_archive("named pipe", _mode(0o010666))
_archive("name twice", _twice)
_archive("name twice but for case", _with("results/Results.JSON"))
_archive("name twice but for Unicode", _with("results/results\uff0ejson"))
_archive("file in place of a folder", _with("results"))
_archive("bomb", _with("results/rows/more.jsonl", b"0" * 50_000_000))
_archive("archive in the archive", _with("results/rows/more.jsonl", _zip(a=b"1")))
_archive("pickle by its name", _with("adapter/adapter_model.bin"))
_archive("pickle by its content", _with("results/rows/more.jsonl", b"\x80\x04\x95 pickle"))
_archive("array that may hold a pickle", _with("app/files/table.npy", b"\x93NUMPY"))
_archive("program", _with("app/files/tool", b"\x7fELF" + bytes(60)))
_archive("encrypted member", _patched(lambda data: _directory(data) + 8, b"\x01\x00"))
_archive("unknown packing", _patched(lambda data: _directory(data) + 10, b"\x0c\x00"))
_archive("wrong checksum", _patched(lambda data: 14, b"\x00\x00\x00\x00"))
_archive("other name before the data", _patched(lambda data: 30, b"X"))
_archive("overlapping members", _overlap)
_archive("second name", _extra_name)
_archive("false zip64 record", _false_64)
_archive("more data than said", _more_than_said)
_archive("data behind the end", lambda edit: edit.zip() + b"more")
_archive("data before the beginning", lambda edit: b"#!/bin/sh\n" + edit.zip())
_archive("cut off", lambda edit: edit.zip()[:-30])
_archive("no zip", lambda edit: b"hello")
_archive("too many files", lambda edit: _zip(**{f"results/rows/{n}": b"" for n in range(4001)}))


# --- structure ----------------------------------------------------------------------------------


@_kind("structure/missing", "sum")
def a_file_is_missing(edit: Edit) -> None:
    del edit.files[layout.ENVIRONMENT]


@_kind("structure/missing", "sum")
def weights_missing_without_a_link(edit: Edit) -> None:
    del edit.files[layout.WEIGHTS]


@_kind("structure/unknown-file", "sum")
def a_file_that_belongs_to_no_bundle(edit: Edit) -> None:
    edit.files["notes.html"] = b"<script>alert(1)</script>"


@_kind("structure/sums", "nothing")
def a_file_changed_after_summing(edit: Edit) -> None:
    edit.files[layout.CARD] += b"\nmore\n"


@_kind("structure/sums", "nothing")
def a_file_that_is_not_listed(edit: Edit) -> None:
    edit.files[f"{layout.APP_FILES}/more.py"] = b"pass\n"


@_kind("structure/sums", "nothing")
def a_listed_file_that_is_not_there(edit: Edit) -> None:
    edit.files[layout.SUMS] += b"0" * 64 + b"  results/more.json\n"


@_kind("structure/unreadable", "sum")
def json_nested_too_deep(edit: Edit) -> None:
    edit.files[layout.ENVIRONMENT] = b"[" * 100_000 + b"]" * 100_000


@_kind("structure/unreadable", "sum")
def json_that_holds_nan(edit: Edit) -> None:
    edit.files[layout.SUBMISSION] = edit.files[layout.SUBMISSION].replace(
        b'"hours": ', b'"hours": NaN,"x": '
    )


@_kind("structure/unreadable", "sum")
def json_too_large(edit: Edit) -> None:
    noise = np.random.default_rng(0).bytes(5_000_000).hex().encode()
    edit.files[layout.ENVIRONMENT] = b'{"a": "' + noise + b'"}'


@_kind("structure/unreadable", "sum")
def json_that_names_a_key_twice(edit: Edit) -> None:
    text = edit.files[layout.RUN_INFO].decode()
    edit.files[layout.RUN_INFO] = text.replace("{", '{"official": false, ', 1).encode()


@_kind("structure/unreadable", "sum")
def a_ledger_with_nan(edit: Edit) -> None:
    edit.files[layout.LEDGER] = edit.files[layout.LEDGER].replace(
        b'"bytes": 178', b'"bytes": NaN', 1
    )


@_kind("structure/fields")
def a_negative_message(edit: Edit) -> None:
    edit.line(layout.LEDGER, -1, bytes=-100_000)


@_kind("structure/fields", "sum")
def a_field_that_nothing_reads(edit: Edit) -> None:
    edit.put(layout.SUBMISSION, "rank", 1)


@_kind("structure/fields", "sum")
def a_score_that_is_a_number(edit: Edit) -> None:
    edit.put(layout.SUBMISSION, "average", 99.99)


@_kind("structure/manifest", "nothing")
def a_manifest_that_contradicts_itself(edit: Edit) -> None:
    manifest = edit.json(layout.MANIFEST)
    manifest["seed"] += 1
    edit.write(layout.MANIFEST, seal(manifest))
    edit.sum()


@_kind("structure/manifest", "nothing")
def a_contradictory_total(edit: Edit) -> None:
    manifest = edit.json(layout.MANIFEST)
    manifest["communication"]["total-mib"] = 0.1
    edit.write(layout.MANIFEST, seal(manifest))
    edit.sum()


@_kind("structure/adapter-config", "sum")
def a_regular_expression_without_end(edit: Edit) -> None:
    edit.put(layout.ADAPTER_CONFIG, "target_modules", "(a+)+$")


@_kind("structure/adapter-config", "sum")
def code_named_by_the_adapter(edit: Edit) -> None:
    edit.put(layout.ADAPTER_CONFIG, "peft_type", "../evil")


@_kind("structure/weights", "sum")
def a_pointer_in_place_of_weights(edit: Edit) -> None:
    edit.files[layout.WEIGHTS] = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"


@_kind("structure/weights", "sum")
def weights_of_a_huge_shape(edit: Edit) -> None:
    header = b'{"a":{"dtype":"F32","shape":[1099511627776],"data_offsets":[0,4]}}'
    edit.files[layout.WEIGHTS] = struct.pack("<Q", len(header)) + header + bytes(4)


@_kind("structure/provenance", "nothing")
def provenance_of_other_weights(edit: Edit) -> None:
    body = edit.json(layout.PROVENANCE)
    body["subject"][0]["digest"]["sha256"] = "0" * 64
    edit.write(layout.PROVENANCE, body)
    edit.sum()


@_kind("structure/croissant", "sum")
def a_description_of_other_rows(edit: Edit) -> None:
    text = edit.files[layout.CROISSANT].decode()
    digest = edit.json(layout.MANIFEST)["rows"]["1"]["sha256"]
    edit.files[layout.CROISSANT] = text.replace(digest, "0" * 64).encode()


# --- rules --------------------------------------------------------------------------------------


def _static(edit: Edit, key: str, value: Any) -> None:
    for path in (f"static/{key}", f"settings/static.{key}"):
        edit.put(layout.MANIFEST, path, value)
    edit.put(layout.RUN_INFO, f"settings/static.{key}", value)


@_kind("rules/seal", "sum")
def a_manifest_edited_after_the_run(edit: Edit) -> None:
    edit.put(layout.MANIFEST, "hardware/cores", 1000)


@_kind("rules/locked-value")
def a_larger_budget(edit: Edit) -> None:
    _static(edit, "budget-mib", 400_000)
    edit.put(layout.MANIFEST, "communication/budget-mib", 400_000)
    edit.put(layout.RUN_INFO, "budget-mib", 400_000)


@_kind("rules/locked-value")
def another_training_set(edit: Edit) -> None:
    _static(edit, "dataset.name", "somebody/finance-test-answers")
    rows = edit.json(layout.MANIFEST)["rows"]
    for of in rows.values():
        of["dataset"] = "somebody/finance-test-answers"
    edit.put(layout.MANIFEST, "rows", rows)


@_kind("rules/rules-version")
def rules_that_nobody_published(edit: Edit) -> None:
    _static(edit, "rules-version", "9.9.9")
    edit.put(layout.MANIFEST, "rules-version", "9.9.9")
    edit.put(layout.SUBMISSION, "rules-version", "9.9.9")
    edit.put(layout.SCORES, "rules/version", "9.9.9")


@_kind("rules/supernodes")
def fewer_supernodes(edit: Edit) -> None:
    edit.both("supernodes", 2)


@_kind("rules/partitions")
def more_partitions(edit: Edit) -> None:
    edit.put(layout.MANIFEST, "partitions", 5)


@_kind("rules/official")
def a_difference_that_the_run_saw(edit: Edit) -> None:
    found = [{"key": "the rows that clients trained on", "given": "own", "locked": "library"}]
    edit.both("differences", found)
    edit.both("official", False)


@_kind("rules/official")
def run_json_says_unofficial(edit: Edit) -> None:
    edit.put(layout.RUN_INFO, "official", False)


@_kind("rules/budget")
def a_passed_budget(edit: Edit) -> None:
    lines = edit.lines(layout.LEDGER)
    lines[-1]["bytes"] += 300_000 * 2**20
    edit.write_lines(layout.LEDGER, lines)


@_kind("rules/one-run")
def run_json_of_another_run(edit: Edit) -> None:
    edit.put(layout.RUN_INFO, "run-id", "another")


@_kind("rules/one-run")
def settings_of_another_run(edit: Edit) -> None:
    edit.put(layout.RUN_INFO, "settings/train.learning-rate-max", 0.5)


@_kind("rules/partition-sizes")
def rows_put_together_in_one_partition(edit: Edit) -> None:
    edit.put(layout.MANIFEST, "rows/1/rows", 4000)
    edit.put(layout.FINGERPRINTS, "partitions/1/rows", 4000)
    edit.put(layout.FINGERPRINTS, "all/rows", lambda known: known + 3990)


@_kind("rules/partition-rows")
def the_same_rows_for_two_clients(edit: Edit) -> None:
    digest = edit.json(layout.MANIFEST)["rows"]["3"]["sha256"]
    edit.put(layout.MANIFEST, "rows/1/sha256", digest)
    edit.put(layout.FINGERPRINTS, "partitions/1/sha256", digest)


@_kind("rules/adapter", "nothing")
def weights_swapped(edit: Edit) -> None:
    edit.weights(lambda tensors: [np.multiply(t, 2, out=t) for t in tensors.values()])
    edit.sum()


@_kind("rules/adapter-config", "nothing")
def alpha_a_hundred_times_larger(edit: Edit) -> None:
    edit.put(layout.ADAPTER_CONFIG, "lora_alpha", lambda known: 100 * known)
    manifest = edit.json(layout.MANIFEST)
    manifest["adapter-config-sha256"] = _sha256(edit.files[layout.ADAPTER_CONFIG])
    edit.write(layout.MANIFEST, seal(manifest))
    edit.rescore()
    edit.sum()


@_kind("rules/adapter-config")
def another_base_model_in_the_adapter(edit: Edit) -> None:
    edit.put(layout.ADAPTER_CONFIG, "base_model_name_or_path", "somebody/larger-model")


@_kind("rules/submission", "sum")
def submitted_for_another_challenge(edit: Edit) -> None:
    edit.put(layout.SUBMISSION, "challenge", "medical")


@_kind("rules/submission", "sum")
def another_library_claimed(edit: Edit) -> None:
    edit.put(layout.SUBMISSION, "library/version", "2.0.0")


@_kind("rules/division")
def another_base_model_in_the_closed_division(edit: Edit) -> None:
    edit.put(layout.MANIFEST, "base-model/name", "somebody/larger-model")
    edit.both("settings/model.name", "somebody/larger-model")
    edit.put(layout.SCORES, "provenance/base-model/name", "somebody/larger-model")


# --- system -------------------------------------------------------------------------------------


@_kind("system/library-of-run")
def a_library_that_was_never_released(edit: Edit) -> None:
    edit.both("library/sha256", "0" * 64)
    edit.put(layout.SUBMISSION, "library/sha256", "0" * 64)


@_kind("system/library-of-run")
def an_edited_library(edit: Edit) -> None:
    edit.both("library/edited", ["flowertune/rules/lock.py"])


@_kind("system/library-of-score")
def a_scorer_that_was_edited(edit: Edit) -> None:
    edit.put(layout.SCORES, "provenance/library/edited", ["evaluation/score.py"])


@_kind("system/environment", "sum")
def another_environment(edit: Edit) -> None:
    edit.put(layout.ENVIRONMENT, "packages/torch", "1.0")


@_kind("system/versions")
def versions_that_contradict_the_packages(edit: Edit) -> None:
    edit.put(layout.MANIFEST, "versions/torch", "1.0")


# --- run ----------------------------------------------------------------------------------------


@_kind("run/ledger-sum")
def messages_that_do_not_add_up(edit: Edit) -> None:
    lines = edit.lines(layout.LEDGER)
    del lines[-1]
    edit.write_lines(layout.LEDGER, lines)


@_kind("run/ledger-sum")
def smaller_sums_in_the_rounds(edit: Edit) -> None:
    edit.line(layout.ROUNDS, 0, **{"sent-bytes": 10})


@_kind("run/ledger-order")
def messages_in_another_order(edit: Edit) -> None:
    edit.write_lines(layout.LEDGER, edit.lines(layout.LEDGER)[::-1])


@_kind("run/ledger-rounds")
def messages_of_a_round_that_never_was(edit: Edit) -> None:
    more = {"round": 9, "partition": 1, "direction": "sent", "bytes": 0}
    edit.write_lines(layout.LEDGER, [*edit.lines(layout.LEDGER), more])


def relabel(edit: Edit, change: Callable[[dict[str, Any]], int]) -> None:
    """Change the bytes of messages, and every sum with them."""
    entries, lines = edit.lines(layout.LEDGER), edit.lines(layout.ROUNDS)
    for entry in entries:
        entry["bytes"] = change(entry)
    edit.write_lines(layout.LEDGER, entries)
    totals = {"sent": 0, "received": 0}
    for line in lines:
        for way in totals:
            totals[way] = sum(
                e["bytes"] for e in entries if e["direction"] == way and e["round"] <= line["round"]
            )
            line[f"{way}-bytes"] = totals[way]
            line[{"sent": "bytes-down", "received": "bytes-up"}[way]] = sum(
                e["bytes"] for e in entries if e["direction"] == way and e["round"] == line["round"]
            )
        line["total-mib"] = round(sum(totals.values()) / 2**20, 3)
    edit.write_lines(layout.ROUNDS, lines)
    own = {f"{way}-bytes": n for way, n in totals.items()}
    mib = round(sum(totals.values()) / 2**20, 3)
    edit.put(layout.MANIFEST, "communication", lambda known: {**known, **own, "total-mib": mib})
    came = {
        (e["round"], str(e["partition"])): e["bytes"]
        for e in entries
        if e["direction"] == "received"
    }
    records = edit.lines(layout.CHAIN)
    for record in records:
        for name, reply in record["replies"].items():
            reply["bytes"] = came[record["round"], name]
    edit.write_lines(layout.CHAIN, records)


@_kind("run/message-bytes")
def messages_smaller_than_the_adapter(edit: Edit) -> None:
    relabel(edit, lambda entry: entry["bytes"] // 10 if entry["round"] else entry["bytes"])


@_kind("run/message-bytes")
def replies_that_brought_nothing(edit: Edit) -> None:
    relabel(
        edit,
        lambda e: 10 if e["round"] and e["direction"] == "received" else e["bytes"],
    )  # fmt: skip


@_kind("run/messages")
def a_message_that_the_ledger_has_not(edit: Edit) -> None:
    lines = edit.lines(layout.LEDGER)
    place = next(n for n, e in enumerate(lines) if e["round"] == 1 and e["direction"] == "sent")
    del lines[place]
    edit.write_lines(layout.LEDGER, lines)


@_kind("run/rounds")
def a_round_left_out(edit: Edit) -> None:
    lines = edit.lines(layout.ROUNDS)
    del lines[1]
    edit.write_lines(layout.ROUNDS, lines)


@_kind("run/chain-order")
def a_record_left_out(edit: Edit) -> None:
    lines = edit.lines(layout.CHAIN)
    del lines[1]
    edit.write_lines(layout.CHAIN, lines)


@_kind("run/chain", "sum")
def a_record_changed(edit: Edit) -> None:
    edit.line(layout.CHAIN, 1, **{"state-sha256": "0" * 64})


@_kind("run/chain-head", "sum")
def the_last_record_changed(edit: Edit) -> None:
    edit.line(layout.CHAIN, -1, **{"state-sha256": "0" * 64})


@_kind("run/chain-line", "sum")
def a_line_of_a_round_changed(edit: Edit) -> None:
    edit.line(layout.ROUNDS, 0, seconds=0.001)


@_kind("run/chain-ledger", "sum")
def a_message_changed(edit: Edit) -> None:
    edit.line(layout.LEDGER, 0, bytes=1)


@_kind("run/chain-rounds")
def a_round_put_in(edit: Edit) -> None:
    lines = edit.lines(layout.CHAIN)
    edit.write_lines(layout.CHAIN, [*lines, {**lines[-1], "round": lines[-1]["round"] + 1}])


@_kind("run/chain-adapter")
def other_weights_with_fitting_hashes(edit: Edit) -> None:
    edit.weights(lambda tensors: [np.multiply(t, 1.5, out=t) for t in tensors.values()])


@_kind("run/clients")
def a_client_that_the_seed_did_not_choose(edit: Edit) -> None:
    line = edit.lines(layout.ROUNDS)[0]
    (other, *_) = sorted({*range(4)} - {*line["partitions"]})
    kept = sorted([other, line["partitions"][1]])
    edit.line(layout.ROUNDS, 0, partitions=kept)
    records = edit.lines(layout.CHAIN)
    replies = list(records[1]["replies"].values())
    records[1]["replies"] = dict(zip(map(str, kept), replies, strict=True))
    edit.write_lines(layout.CHAIN, records)


@_kind("run/clients")
def a_client_left_out_without_a_word(edit: Edit) -> None:
    line = edit.lines(layout.ROUNDS)[0]
    edit.line(layout.ROUNDS, 0, partitions=line["partitions"][:1], clients=1, failed=1)


@_kind("run/learning-rate")
def another_learning_rate(edit: Edit) -> None:
    edit.line(layout.ROUNDS, 1, **{"learning-rate": 0.1})


@_kind("run/train-loss")
def a_loss_that_no_client_had(edit: Edit) -> None:
    edit.line(layout.ROUNDS, 2, **{"train-loss": 0.1})


@_kind("run/tokens")
def tokens_that_nobody_trained_on(edit: Edit) -> None:
    edit.line(layout.ROUNDS, 2, tokens=10**6)


@_kind("run/examples")
def one_client_that_is_the_mean(edit: Edit) -> None:
    records = edit.lines(layout.CHAIN)
    next(iter(records[1]["replies"].values()))["examples"] = 2**52
    edit.write_lines(layout.CHAIN, records)


@_kind("run/reply-bytes")
def a_reply_larger_than_what_came(edit: Edit) -> None:
    records = edit.lines(layout.CHAIN)
    next(iter(records[1]["replies"].values()))["bytes"] = 10**9
    edit.write_lines(layout.CHAIN, records)


@_kind("run/replies")
def lost_replies_kept_quiet(edit: Edit) -> None:
    edit.both("replies/lost", 3)


@_kind("run/finished")
def a_run_that_failed(edit: Edit) -> None:
    edit.put(layout.RUN_INFO, "status", "failed")


@_kind("run/finished")
def a_run_that_did_not_end(edit: Edit) -> None:
    edit.both("rounds", 200)
    edit.both("settings/num-server-rounds", 200)


@_kind("run/checkpoint")
def a_checkpoint_in_between(edit: Edit) -> None:
    edit.put(layout.MANIFEST, "round", 2)
    edit.put(layout.SUBMISSION, "checkpoint/round", 2)


@_kind("run/checkpoint", "sum")
def a_choice_that_the_run_did_not_make(edit: Edit) -> None:
    edit.put(layout.SUBMISSION, "checkpoint/chosen", "best")


@_kind("run/states", "sum")
def states_of_fewer_rounds(edit: Edit) -> None:
    edit.put(layout.SUBMISSION, "states/rounds", 1)


@_kind("run/times")
def rounds_before_the_start(edit: Edit) -> None:
    edit.line(layout.ROUNDS, 0, time="2020-01-01T00:00:00+00:00")


@_kind("run/rows")
def a_client_without_a_fingerprint(edit: Edit) -> None:
    edit.put(layout.MANIFEST, "rows", lambda rows: {k: v for k, v in rows.items() if k != "3"})


@_kind("run/fingerprints", "sum")
def fingerprints_of_other_rows(edit: Edit) -> None:
    edit.put(layout.FINGERPRINTS, "partitions/1/sha256", "0" * 64)


@_kind("run/app", "sum")
def a_file_of_the_app_exchanged(edit: Edit) -> None:
    edit.app("flowertune_finance/models.py", b"# nothing to see here\n", fits=False)


@_kind("run/app-difference", "sum")
def a_difference_left_out(edit: Edit) -> None:
    edit.app("flowertune_finance/dataset.py", b"# own rows\n")
    edit.files[layout.APP_DIFFERENCE] = b""
    edit.forge()


@_kind("run/not-finite")
def weights_with_nan(edit: Edit) -> None:
    def change(tensors: dict[str, np.ndarray]) -> None:
        next(iter(tensors.values())).flat[0] = float("nan")

    edit.weights(change)
    edit.own_state()


@_kind("run/adapter-shapes")
def weights_with_a_missing_factor(edit: Edit) -> None:
    edit.weights(lambda tensors: tensors.pop(next(n for n in tensors if "lora_B" in n)))
    edit.own_state()


# --- score --------------------------------------------------------------------------------------


def _answer(edit: Edit, **values: Any) -> None:
    lines = edit.lines(ROWS)
    lines[0]["checkpoint"] |= values
    edit.files[ROWS] = "".join(json.dumps(x, ensure_ascii=False) + "\n" for x in lines).encode()


@_kind("score/scores")
def a_score_typed_by_hand(edit: Edit) -> None:
    edit.put(layout.SCORES, "sets/fpb/scores/checkpoint/score", "99.99")


@_kind("score/interval")
def a_narrower_interval(edit: Edit) -> None:
    edit.put(layout.SCORES, "sets/fpb/scores/checkpoint/interval-95", ["16.60", "16.70"])


@_kind("score/average")
def an_average_rounded_up(edit: Edit) -> None:
    edit.put(layout.SCORES, "average/scores/checkpoint/score", "33.34")


@_kind("score/table", "sum")
def a_table_typed_by_hand(edit: Edit) -> None:
    edit.files[layout.TABLE] = edit.files[layout.TABLE].replace(b"16.67", b"96.67")


@_kind("score/claimed", "sum")
def a_better_score_claimed(edit: Edit) -> None:
    edit.put(layout.SUBMISSION, "average", "93.33")


@_kind("score/formats", "sum")
def a_better_score_on_the_card(edit: Edit) -> None:
    edit.files[layout.CARD] = edit.files[layout.CARD].replace(b"value: 16.67", b"value: 96.67")


@_kind("score/formats", "sum")
def a_better_score_for_the_hub(edit: Edit) -> None:
    (name,) = (n for n in edit.files if n.startswith(layout.HUB_RESULTS))
    edit.files[name] = edit.files[name].replace(b"16.67", b"96.67")


@_kind("score/formats", "sum")
def other_samples_of_lm_eval(edit: Edit) -> None:
    (name,) = (n for n in edit.files if n.startswith(f"{layout.LM_EVAL}/samples_") and "fpb" in n)
    lines = edit.lines(name)
    lines[0]["resps"] = [["Answer: negative"]]
    edit.write_lines(name, lines)


@_kind("score/points")
def points_for_a_wrong_answer(edit: Edit) -> None:
    lines = edit.lines(ROWS)
    wrong = next(n for n, line in enumerate(lines) if not line["checkpoint"]["points"])
    lines[wrong]["checkpoint"]["points"] = 1.0
    edit.files[ROWS] = "".join(json.dumps(x, ensure_ascii=False) + "\n" for x in lines).encode()


@_kind("score/answer")
def an_answer_that_the_text_does_not_give(edit: Edit) -> None:
    target = edit.lines(ROWS)[0]["target"]
    _answer(edit, answer=target, points=1.0)


@_kind("score/questions")
def easier_questions(edit: Edit) -> None:
    lines = edit.lines(ROWS)
    lines[0]["context"] = lines[0]["context"].replace("Input:", "Input (it is negative):")
    edit.files[ROWS] = "".join(json.dumps(x, ensure_ascii=False) + "\n" for x in lines).encode()


@_kind("score/questions")
def targets_that_fit_the_answers(edit: Edit) -> None:
    lines = edit.lines(ROWS)
    for line in lines:
        line["target"] = line["checkpoint"]["answer"]
    edit.files[ROWS] = "".join(json.dumps(x, ensure_ascii=False) + "\n" for x in lines).encode()


@_kind("score/questions")
def rows_that_are_not_on_record(edit: Edit) -> None:
    edit.put(layout.SCORES, "sets/fpb/data/rows-sha256", "0" * 64)


@_kind("score/rows")
def hard_rows_left_out(edit: Edit) -> None:
    lines = edit.lines(ROWS)[:-1]
    edit.files[ROWS] = "".join(json.dumps(x, ensure_ascii=False) + "\n" for x in lines).encode()


@_kind("score/rows")
def a_row_twice(edit: Edit) -> None:
    lines = edit.lines(ROWS)
    lines[1] = lines[0]
    edit.files[ROWS] = "".join(json.dumps(x, ensure_ascii=False) + "\n" for x in lines).encode()


@_kind("score/rows")
def a_part_of_the_set(edit: Edit) -> None:
    edit.put(layout.SCORES, "sets/fpb/full", False)
    edit.put(layout.SCORES, "sets/fpb/data/status", "partial")


@_kind("score/impossible")
def an_answer_longer_than_its_limit(edit: Edit) -> None:
    context = edit.lines(ROWS)[0]["context"]
    _answer(edit, responses=[context + "negative, because " + "the news is bad and " * 400])


@_kind("score/impossible")
def an_answer_to_another_question(edit: Edit) -> None:
    _answer(edit, responses=["Answer: negative"])


@_kind("score/suite")
def another_suite(edit: Edit) -> None:
    edit.put(layout.SCORES, "suite", "standard")


@_kind("score/official")
def a_deviation_of_the_scorer(edit: Edit) -> None:
    edit.put(layout.SCORES, "deviations", ["computed in bfloat16 (official: float32)"])


@_kind("score/official")
def scored_from_another_hub(edit: Edit) -> None:
    edit.put(layout.SCORES, "provenance/hub", "https://hub.example.org")


@_kind("score/official")
def scored_row_by_row(edit: Edit) -> None:
    edit.put(layout.SCORES, "provenance/official-batching", False)
    edit.put(layout.SCORES, "decoding/batching", "rows")


@_kind("score/adapter", "nothing")
def the_score_of_another_adapter(edit: Edit) -> None:
    edit.put(layout.SCORES, "provenance/adapter/sha256", "0" * 64)
    edit.sum()


@_kind("score/models")
def the_base_model_in_place_of_the_adapter(edit: Edit) -> None:
    edit.put(layout.SCORES, "models", ["model"])


@_kind("score/base-model")
def scored_on_another_base_model(edit: Edit) -> None:
    edit.put(layout.SCORES, "provenance/base-model/name", "somebody/larger-model")


@_kind("score/tasks")
def another_prompt_or_limit(edit: Edit) -> None:
    edit.put(layout.SCORES, "provenance/tasks/fpb/generation_kwargs/max_length", 4096)


@_kind("score/sets")
def a_hard_set_left_out(edit: Edit) -> None:
    edit.put(layout.SCORES, "sets", lambda sets: {n: s for n, s in sets.items() if n != "fpb"})


# --- contamination ------------------------------------------------------------------------------


@_kind("contamination/record", "sum")
def another_record_of_the_overlap(edit: Edit) -> None:
    edit.put(layout.CONTAMINATION, "n-gram", 50)


@_kind("structure/missing", "sum")
def no_record_of_the_overlap(edit: Edit) -> None:
    del edit.files[layout.CONTAMINATION]


@_kind("contamination/overlap")
def an_overlap_that_does_not_add_up(edit: Edit) -> None:
    edit.put(layout.SCORES, "contamination/sets/fpb/clean", 1)
    edit.write(layout.CONTAMINATION, edit.json(layout.SCORES)["contamination"])


@_kind("contamination/clean-scores")
def a_better_clean_score(edit: Edit) -> None:
    edit.put(layout.SCORES, "contamination/sets/fpb/scores/checkpoint/score", "99.99")
    edit.write(layout.CONTAMINATION, edit.json(layout.SCORES)["contamination"])
