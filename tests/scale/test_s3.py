"""A store that speaks S3, which moto does on the loopback. It needs the extras `s3` and `scale`."""

import io
import re

import boto3
import pandas as pd
import pytest
from conftest import read_files, run_dvc, run_git
from moto.server import ThreadedMotoServer
from PIL import Image
from shared_study import FACE, MODEL, build_study

from demo_faces.clips import draw_scene
from fer_lib.cli import main as cli

KEYS = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_DEFAULT_REGION": "us-east-1",
}


@pytest.fixture
def bucket(monkeypatch):
    """Start a server with an empty bucket; return the server's address and the bucket."""
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    address = "http://{}:{}".format(*server.get_host_and_port())
    yield address, boto3.resource("s3", endpoint_url=address).create_bucket(Bucket="models")
    server.stop()


def test_models_are_pushed_and_pulled_and_faces_are_not(bucket, tmp_path):
    address, objects = bucket
    study, clone = tmp_path / "study", tmp_path / "clone"
    study.mkdir()
    build_study(study)
    run_git(tmp_path, "clone", "--quiet", str(study), str(clone))
    for root, command in ((study, "push"), (clone, "pull")):
        run_dvc(root, "remote", "add", "--local", "--default", "shared", "s3://models/study")
        run_dvc(root, "remote", "modify", "--local", "shared", "endpointurl", address)
        run_dvc(root, command)
    pushed = [item.get()["Body"].read().decode() for item in objects.objects.all()]
    assert any(MODEL in content for content in pushed)
    assert not [content for content in pushed if FACE in content]
    assert read_files(clone / "models") == read_files(study / "models")
    assert "in sync" in run_dvc(clone, "status", "--cloud")


def test_images_are_scored_from_a_store_into_it(bucket, tmp_path, capsys):
    address, objects = bucket
    Image.fromarray(draw_scene(2)[0]).save(tmp_path / "two faces.png")
    objects.upload_file(str(tmp_path / "two faces.png"), "photos/two faces.png")
    place = f"s3://models/{{}}?scheme=http&endpoint_override={address.removeprefix('http://')}"
    given = [place.format("photos"), "--output", place.format("scored")]
    assert cli.main(["score", *given, "--variant", "tiny", "--workers", "1"]) == 0, capsys.readouterr().err
    (written,) = (item for item in objects.objects.all() if re.match(r"scored/shard=.*\.parquet$", item.key))
    table = pd.read_parquet(io.BytesIO(written.get()["Body"].read()))
    assert table["source"].tolist() == ["s3://models/photos/two faces.png"] * 2
    assert table["error"].isna().all()
