"""What `benchmarks/edge.py` measures, in small: a photograph on one core in little memory."""

import json
import os
import resource
import subprocess
import sys
import time

import numpy as np
import pytest
from conftest import REPO
from PIL import Image

from demo_faces.clips import draw_scene
from fer_lib.inference.recognizer import Recognizer
from fer_lib.models.preprocessing import Preprocessing, preprocess

MIB = 768
"""Of address space: what is reserved counts, whether it is used or not."""


def limit():
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    resource.setrlimit(resource.RLIMIT_AS, (MIB * 2**20, MIB * 2**20))


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux, where address space can be limited")
def test_one_core_and_little_memory_give_the_same_faces(tmp_path):
    Image.fromarray(draw_scene(2)[0]).save(tmp_path / "two.png")
    recognizer = Recognizer(variant="tiny", threads=1)
    expected = recognizer(tmp_path / "two.png")
    crops = [face.crop for face in expected]
    np.save(tmp_path / "crops", crops)
    preprocessing = recognizer.config["variants"]["tiny"]["preprocessing"]
    np.save(tmp_path / "tiny", preprocess(crops, Preprocessing.from_dict(preprocessing)))
    command = [sys.executable, REPO / "benchmarks" / "edge_child.py", "tiny", "two.png", "1"]
    done = subprocess.run(
        [*map(str, command), str(time.monotonic())],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(REPO), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        preexec_fn=limit,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)["faces"]
    assert [tuple(face["box"]) for face in found] == [face.box for face in expected]
    for one, other in zip(found, expected, strict=True):
        assert one["probabilities"] == pytest.approx(other.probabilities, abs=1e-5)
