"""The metadata of the drawn data set, and its datasheet, against the faces that they describe."""

import json

import mlcroissant
import pandas as pd
import pytest
from conftest import REPO

from demo_faces.factors import EMOTIONS, N_IDENTITIES
from fer_lib.data.croissant import write_croissant
from fer_lib.data.packed import load_packed
from fer_lib.data.prepare import prepare
from fer_lib.params import load_params
from fer_lib.provenance import hash_file


def test_croissant_reads_the_faces_that_were_packed(tiny_project):
    dataset = mlcroissant.Dataset(tiny_project / "data" / "demo" / "croissant.json")
    assert not dataset.metadata.ctx.issues.report()
    data = load_packed("demo", tiny_project / "data" / "packed" / "demo")
    found = pd.DataFrame(list(dataset.records("faces"))).rename(columns=lambda name: name.partition("/")[2])
    found = found.map(lambda value: value.decode() if isinstance(value, bytes) else value)
    pd.testing.assert_frame_equal(found, data.index, check_dtype=False)
    names = {row["emotions/label"]: row["emotions/name"] for row in dataset.records("emotions")}
    assert [names[label] for label in found["label"]] == [*data.index["emotion"]]
    assert {row["splits/name"] for row in dataset.records("splits")} == {*found["split"]}


def test_croissant_has_the_hash_and_size_of_every_file(tiny_project):
    folder = tiny_project / "data" / "demo"
    files = json.loads((folder / "croissant.json").read_text())["distribution"]
    assert {file["name"] for file in files} == {"faces.npy", "index.parquet", "regions.npy"}
    for file in files:
        path = folder / file["contentUrl"]
        assert (file["sha256"], file["contentSize"]) == (hash_file(path), f"{path.stat().st_size} B")


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """Return a folder with the faces of `demo` in `packed/demo/`, all of them."""
    root = tmp_path_factory.mktemp("data")
    prepare("demo", load_params("demo").prepare, out_dir=root / "packed" / "demo", progress=False)
    return root


def test_committed_croissant_describes_the_faces_that_are_drawn_now(drawn):
    write_croissant(drawn / "packed" / "demo", drawn / "demo" / "croissant.json")
    committed = (REPO / "data" / "demo" / "croissant.json").read_text()
    assert (drawn / "demo" / "croissant.json").read_text() == committed, "run `fer prepare --dataset demo`"


def test_datasheet_counts_the_faces_that_are_drawn_now(drawn):
    sheet = (REPO / "data" / "demo" / "README.md").read_text()
    data = load_packed("demo", drawn / "packed" / "demo")
    assert f"| | {' | '.join(EMOTIONS)} | all |" in sheet
    for split, counts in data.meta["counts"].items():
        row = [*counts.values(), sum(counts.values())]
        assert f"| {split} | {' | '.join(f'{count:,}' for count in row)} |" in sheet
    assert f"{data.meta['size']} x {data.meta['size']} pixels" in sheet
    assert f"{N_IDENTITIES} persons" in sheet
    assert data.index.groupby("identity")["split"].nunique().eq(1).all()
    assert not data.index.isna().any(axis=None)
