"""The training set in Croissant 1.1: where it is, what a row has, and who held which rows."""

import json
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

import challenges
from challenges import record
from flowertune.base.hub import is_hub_id
from submissions.bundle.sources import Sources

CONFORMS_TO = "http://mlcommons.org/croissant/1.1"
_HUB = "https://huggingface.co/datasets"
# A repository has none, and the format asks for one: this is what the hub writes there.
_NO_HASH = "https://github.com/mlcommons/croissant/issues/80"
_KINDS = {
    ".parquet": "application/x-parquet", ".jsonl": "application/jsonlines",
    ".json": "application/json", ".csv": "text/csv",
}  # fmt: skip
# As the specification prints it; every term that is used below is in it.
CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "annotation": "cr:annotation",
    "arrayShape": "cr:arrayShape",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "containedIn": "cr:containedIn",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataBiases": "cr:dataBiases",
    "dataCollection": "cr:dataCollection",
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "excludes": "cr:excludes",
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isArray": "cr:isArray",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "personalSensitiveInformation": "cr:personalSensitiveInformation",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
    "value": "cr:value",
}
# No row of the set itself is in the bundle; this tells anybody's rows from others.
_PARTITION_FIELDS = {
    "partition": ("sc:Integer", "Number of the partition, which one SuperNode holds"),
    "rows": ("sc:Integer", "Rows in it"),
    "unique_rows": ("sc:Integer", "Different rows in it"),
    "sha256": ("sc:Text", "sha256 of its rows, as the client loaded them"),
}


def croissant(sources: Sources) -> bytes:
    """Return croissant.json, JSON-LD of the training set that a run used."""
    static, rows = sources.manifest["static"], sources.manifest["rows"]
    name, revision = static["dataset.name"], static["dataset.revision"]
    body: dict[str, Any] = {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": CONFORMS_TO,
        "name": name.rstrip("/").rpartition("/")[2],
        "description": (
            f"Training set of the FlowerTune challenge {sources.challenge} under the rules "
            f"{static['rules']} {static['rules-version']}, at revision {revision}, split into "
            f"{sources.manifest['partitions']} partitions ({static['partitioner.name']})."
        ),
        # A revision of the hub is no version; the rules fix which rows are meant.
        "version": static["rules-version"],
        "recordSet": [_partitions(rows)],
    }
    if is_hub_id(name):
        body["url"] = f"{_HUB}/{name}"
        body["distribution"] = _distribution(name, revision, _pinned(sources))
        body["recordSet"].insert(0, _rows(sources.challenge))
    return f"{json.dumps(body, indent=2, sort_keys=True, ensure_ascii=False)}\n".encode()


def _pinned(sources: Sources) -> dict[str, str]:
    """Return the sha256 of each file that the rules pin, by its path; empty where they pin none."""
    static = sources.manifest["static"]
    training = record.pinned(static["rules"], static["rules-version"])
    files = training.get(sources.challenge, {}).get("training", {}).get("files", {})
    return {path: about["sha256"] for path, about in files.items() if "sha256" in about}


def _distribution(name: str, revision: str, pinned: Mapping[str, str]) -> list[dict[str, Any]]:
    endings = {PurePosixPath(path).suffix for path in pinned} & _KINDS.keys()
    ending = sorted(endings)[0] if endings else ".parquet"
    files = [
        {
            "@type": "cr:FileObject",
            "@id": path,
            "name": path,
            "containedIn": {"@id": "repository"},
            "contentUrl": path,
            "encodingFormat": _KINDS.get(PurePosixPath(path).suffix, "application/octet-stream"),
            "sha256": digest,
        }
        for path, digest in sorted(pinned.items())
    ]
    return [
        {
            "@type": "cr:FileObject",
            "@id": "repository",
            "name": "repository",
            "description": "The data set's git repository on the Hugging Face hub",
            "contentUrl": f"{_HUB}/{name}/tree/{revision}",
            "encodingFormat": "git+https",
            "sha256": _NO_HASH,
        },
        {
            "@type": "cr:FileSet",
            "@id": "files",
            "name": "files",
            "description": "Its files of rows",
            "containedIn": {"@id": "repository"},
            "encodingFormat": _KINDS[ending],
            "includes": f"**/*{ending}",
        },
        *files,
    ]


def _rows(challenge: str) -> dict[str, Any]:
    columns = challenges.load(challenge)["dataset"].get("columns", [])
    return {
        "@type": "cr:RecordSet",
        "@id": "rows",
        "name": "rows",
        "description": "The rows, of which each partition holds a share",
        "field": [
            {
                "@type": "cr:Field",
                "@id": f"rows/{column}",
                "name": column,
                "description": f"Column {column}",
                "dataType": "sc:Text",
                "source": {"fileSet": {"@id": "files"}, "extract": {"column": column}},
            }
            for column in columns
        ],
    }


def _partitions(rows: Mapping[str, Any]) -> dict[str, Any]:
    ordered = sorted(rows.items(), key=lambda item: int(item[0]))
    return {
        "@type": "cr:RecordSet",
        "@id": "partitions",
        "name": "partitions",
        "description": "What each SuperNode held",
        "key": {"@id": "partitions/partition"},
        "field": [
            {
                "@type": "cr:Field",
                "@id": f"partitions/{name}",
                "name": name,
                "description": what,
                "dataType": kind,
            }
            for name, (kind, what) in _PARTITION_FIELDS.items()
        ],
        "data": [
            {
                "partitions/partition": int(number),
                "partitions/rows": entry["rows"],
                "partitions/unique_rows": entry["unique-rows"],
                "partitions/sha256": entry["sha256"],
            }
            for number, entry in ordered
        ],
    }
