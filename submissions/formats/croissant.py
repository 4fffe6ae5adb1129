"""The training set in Croissant 1.1: where it is, what a row has, and who held which rows."""

import json
from collections.abc import Mapping
from typing import Any

import challenges
from flowertune.base.hub import is_hub_id
from submissions.bundle.sources import Sources

CONFORMS_TO = "http://mlcommons.org/croissant/1.1"
_HUB = "https://huggingface.co/datasets"
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
        "version": revision,
        "recordSet": [_partitions(rows)],
    }
    if is_hub_id(name):
        body["url"] = f"{_HUB}/{name}"
        body["distribution"] = _distribution(name, revision)
        body["recordSet"].insert(0, _rows(sources.challenge))
    return f"{json.dumps(body, indent=2, sort_keys=True, ensure_ascii=False)}\n".encode()


def _distribution(name: str, revision: str) -> list[dict[str, Any]]:
    return [
        {
            "@type": "cr:FileObject",
            "@id": "repository",
            "name": "repository",
            "description": "The data set's git repository on the Hugging Face hub",
            "contentUrl": f"{_HUB}/{name}/tree/{revision}",
            "encodingFormat": "git+https",
        },
        {
            "@type": "cr:FileSet",
            "@id": "files",
            "name": "files",
            "description": "Its files of rows",
            "containedIn": {"@id": "repository"},
            "encodingFormat": "application/x-parquet",
            "includes": "**/*.parquet",
        },
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
