"""Describe the packed data set `demo` in Croissant, the metadata format of MLCommons for data sets.

Specifications: https://docs.mlcommons.org/croissant/docs/croissant-spec-1.1.html and, for the keys `rai:`,
https://docs.mlcommons.org/croissant/docs/croissant-rai-spec.html
"""

import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from fer_lib.data.packed import INDEX_FILE, META_FILE
from fer_lib.files import write_atomically
from fer_lib.paths import ROOT, get_packed_dir
from fer_lib.provenance import hash_file

CROISSANT_FILE = ROOT / "data" / "demo" / "croissant.json"

SPLIT_URLS = {"train": "cr:TrainingSplit", "val": "cr:ValidationSplit", "test": "cr:TestSplit"}

Json = dict[str, Any]


def write_croissant(packed_dir: Path | None = None, path: Path = CROISSANT_FILE) -> None:
    """Describe the packed faces of `demo` in `path`; the same faces give the same bytes."""
    packed_dir = packed_dir or get_packed_dir("demo")
    text = json.dumps(build_croissant(packed_dir, path.parent), indent=1, ensure_ascii=False)
    write_atomically(path, f"{text}\n".encode())


def build_croissant(packed_dir: Path, folder: Path) -> Json:
    """Return the metadata, as JSON-LD that lies in `folder`, to which the paths of the files are relative."""
    known = yaml.safe_load(Path(__file__).with_name("croissant.yaml").read_text())
    meta = json.loads((packed_dir / META_FILE).read_text())
    distribution = [
        {
            "@type": "cr:FileObject",
            "@id": name,
            "name": name,
            **described,
            "contentUrl": Path(os.path.relpath(packed_dir / name, folder)).as_posix(),
            "contentSize": f"{(packed_dir / name).stat().st_size} B",
            "sha256": hash_file(packed_dir / name),
        }
        for name, described in known["files"].items()
    ]
    emotions = [
        {"emotions/label": label, "emotions/name": name} for label, name in enumerate(meta["emotions"])
    ]
    splits = [{"splits/name": name, "splits/url": url} for name, url in SPLIT_URLS.items()]
    schema = pq.read_schema(packed_dir / INDEX_FILE)
    return {
        **known["metadata"],
        "distribution": distribution,
        "recordSet": [
            _list_inline("splits", "cr:Split", {"name": "sc:Text", "url": "sc:URL"}, splits),
            _list_inline("emotions", "sc:Enumeration", {"label": "sc:Integer", "name": "sc:Text"}, emotions),
            {
                "@type": "cr:RecordSet",
                "@id": "faces",
                "name": "faces",
                "description": f"A record per face, {meta['n_faces']:,} in all.",
                "key": {"@id": "faces/row"},
                "field": [_describe_column(column, known["columns"][column.name]) for column in schema],
            },
        ],
    }


def _list_inline(name: str, kind: str, types: dict[str, str], rows: list[Json]) -> Json:
    """Return a record set whose rows are part of the metadata; the first of its fields is the key."""
    fields = [
        {"@type": "cr:Field", "@id": f"{name}/{field}", "name": field, "dataType": data_type}
        for field, data_type in types.items()
    ]
    key = {"@id": fields[0]["@id"]}
    return {
        "@type": "cr:RecordSet",
        "@id": name,
        "name": name,
        "dataType": kind,
        "key": key,
        "field": fields,
        "data": rows,
    }


def _describe_column(column: pa.Field, description: str) -> Json:
    """Return the field of a column of the index."""
    references = {"split": "splits/name", "label": "emotions/label"}.get(column.name)
    return {
        "@type": "cr:Field",
        "@id": f"faces/{column.name}",
        "name": column.name,
        "description": description,
        "dataType": _name_type(column.type),
        "source": {"fileObject": {"@id": INDEX_FILE}, "extract": {"column": column.name}},
        **({"references": {"field": {"@id": references}}} if references else {}),
    }


def _name_type(data_type: pa.DataType) -> str:
    if pa.types.is_boolean(data_type):
        return "sc:Boolean"
    if pa.types.is_integer(data_type):
        return "sc:Integer"
    return "sc:Float" if pa.types.is_floating(data_type) else "sc:Text"
