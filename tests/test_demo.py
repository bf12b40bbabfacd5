"""The demo generator: reproducible, balanced as FER2013, and drawing what its factors say."""

import os
import subprocess
import sys
from dataclasses import replace

import cv2
import numpy as np
import pytest
from conftest import REPO, build_command_environment
from hypothesis import given, settings
from hypothesis import strategies as st

from demo_faces.counterfactuals import draw_counterfactuals
from demo_faces.factors import (
    ACTION_UNITS,
    EMOTIONS,
    FER2013_TRAIN_COUNTS,
    GLASSES,
    HAIR_STYLES,
    N_IDENTITIES,
    PROTOTYPES,
    SPLIT_IDENTITIES,
    FaceFactors,
    build_prototype,
    change_age,
    change_masculinity,
    get_split,
    sample_factors,
    sample_identity,
)
from demo_faces.scene import draw_face
from fer_lib.data.readers import demo
from fer_lib.data.readers.demo import draw_faces
from fer_lib.labels import EMOTIONS_7
from fer_lib.paths import ROOT

SEED = 7
SIZE = 64  # large enough to show every feature, small enough to draw hundreds

PRINT_HASHES = f"""
from hashlib import sha256
from demo_faces import scene
from demo_faces.factors import sample_factors

def print_canvas(canvas, *others):
    print("float", i, sha256(canvas.tobytes()).hexdigest())
    return develop(canvas, *others)

develop, scene._develop = scene._develop, print_canvas
for i in range(24):
    image, regions = scene.draw_face(sample_factors({SEED}, i), {SIZE})
    print("bytes", i, sha256(image.tobytes() + regions.tobytes()).hexdigest())
"""


def build_plain(emotion: str, identity_id: int = 15) -> FaceFactors:
    return FaceFactors(sample_identity(SEED, identity_id), emotion, build_prototype(emotion))


@pytest.fixture(scope="module")
def many_factors() -> list[FaceFactors]:
    return [sample_factors(SEED, i) for i in range(1000)]


def test_the_drawn_emotions_are_those_of_the_library():
    assert EMOTIONS == EMOTIONS_7


def test_reading_twice_gives_the_same_bytes():
    first, second = (list(draw_faces(6, SIZE, SEED, workers=1)) for _ in range(2))
    for a, b in zip(first, second, strict=True):
        assert a.image.tobytes() == b.image.tobytes()
        assert a.regions.tobytes() == b.regions.tobytes()
        assert a.factors == b.factors


def test_every_cpu_draws_the_same_bytes():
    # The names by which NumPy and OpenCV choose code for this CPU; without it they take an older one's.
    in_numpy = np.show_config(mode="dicts")["SIMD Extensions"].get("found", [])
    in_opencv = [name.strip("*?") for name in cv2.getCPUFeaturesLine().split() if name.startswith("*")]
    cpus = {
        "this": {},
        "no IPP": {"OPENCV_IPP": "disabled"},
        "no AVX2 to OpenCV": {"OPENCV_CPU_DISABLE": "AVX2,FMA3,AVX512-SKX"},
        "oldest to OpenCV": {"OPENCV_IPP": "disabled", "OPENCV_CPU_DISABLE": ",".join(in_opencv)},
        "oldest to OpenBLAS": {"OPENBLAS_CORETYPE": "Prescott"},
        "oldest to NumPy": {"NPY_DISABLE_CPU_FEATURES": " ".join(in_numpy)},
    }
    command = [sys.executable, "-c", PRINT_HASHES]
    lines = {
        cpu: subprocess.check_output(command, cwd=ROOT, env=os.environ | variables, text=True).splitlines()
        for cpu, variables in cpus.items()
    }
    assert {len(found) for found in lines.values()} == {48}
    others = {cpu: set(found) - set(lines["this"]) for cpu, found in lines.items()}
    assert not {cpu: other for cpu, other in others.items() if any("bytes" in line for line in other)}
    # Bytes hide most of what differs, so the floats they are rounded from count too. Those of one face in a
    # hundred do differ: a double-precision sum fell next to where its rounding to single precision turns.
    counts = {cpu: len(other) for cpu, other in others.items()}
    assert max(counts.values()) <= 2, counts


def test_workers_do_not_change_the_faces(monkeypatch):
    monkeypatch.setattr(demo, "_SMALL_SET", 1)
    pooled = list(draw_faces(40, SIZE, SEED, workers=2))  # more than one chunk
    alone = list(draw_faces(40, SIZE, SEED, workers=1))
    assert [f.source for f in pooled] == [f"demo:{SEED}:{i}" for i in range(40)]
    assert [f.image.tobytes() for f in pooled] == [f.image.tobytes() for f in alone]


UNGUARDED = """
import os
from fer_lib.data.prepare import prepare
from fer_lib.params import load_params

os.cpu_count = lambda: 2
prepare("demo", load_params("demo").prepare, out_dir="packed", progress=False)
"""


def test_script_without_a_guard_ends_with_one_sentence(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(UNGUARDED)
    # Children hold its pipe open: only when all have ended is there an end to what it says.
    done = subprocess.run(
        [sys.executable, script],
        cwd=tmp_path,
        env=build_command_environment(REPO),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,  # alone it takes three seconds; with workers that are started for ever, for ever
    )
    assert done.returncode == 1
    assert done.stderr.count("Traceback") == 1  # of the script, none of a worker
    last = done.stderr.splitlines()[-1]
    assert last.startswith("fer_lib.errors.FerError: expected worker processes")
    assert 'put the code under `if __name__ == "__main__":`' in last


def test_a_face_does_not_depend_on_the_size_of_the_set():
    short, long = list(draw_faces(3, SIZE, SEED, 1)), list(draw_faces(5, SIZE, SEED, 1))
    assert [f.image.tobytes() for f in short] == [f.image.tobytes() for f in long[:3]]


def test_seeds_give_different_faces():
    assert sample_factors(1, 0) != sample_factors(2, 0)


def test_image_and_regions_have_the_contracted_form():
    face = next(draw_faces(1, 96, SEED))
    assert face.image.dtype == np.uint8
    assert face.image.shape == (96, 96, 3)
    assert face.regions.dtype == bool
    assert face.regions.shape == (96, 96)
    assert EMOTIONS_7[face.label] == face.factors["emotion"]
    assert all(isinstance(v, str | bool | int | float) for v in face.factors.values())
    assert set(ACTION_UNITS) < set(face.factors)


def test_class_proportions_are_those_of_fer2013(many_factors):
    counts = np.array([sum(f.emotion == e for f in many_factors) for e in EMOTIONS_7])
    expected = np.array(FER2013_TRAIN_COUNTS) / sum(FER2013_TRAIN_COUNTS)
    # An even sequence strays by O(log n / n); half a percent is well above that at n = 1000.
    np.testing.assert_allclose(counts / counts.sum(), expected, atol=0.005)


def test_splits_are_80_10_10_and_share_no_identity(many_factors):
    ids = {split: set() for split in SPLIT_IDENTITIES}
    counts = dict.fromkeys(SPLIT_IDENTITIES, 0)
    for factors in many_factors:
        split = get_split(factors.identity.id)
        ids[split].add(factors.identity.id)
        counts[split] += 1
    assert ids["train"].isdisjoint(ids["val"] | ids["test"])
    assert ids["val"].isdisjoint(ids["test"])
    assert [counts[s] / len(many_factors) for s in ("train", "val", "test")] == pytest.approx(
        [0.8, 0.1, 0.1], abs=0.01
    )


def test_photographs_have_no_counterfactuals():
    with pytest.raises(ValueError, match="only those can be varied"):
        draw_counterfactuals("fer2013.parquet:7", 48)


def test_an_identity_is_the_same_person_in_every_image(many_factors):
    people = {}
    for factors in many_factors:
        assert people.setdefault(factors.identity.id, factors.identity) == factors.identity
    assert len(people) > 0.8 * N_IDENTITIES  # 800 draws of 400 leave e^-2 of them out
    assert {p.skin_tone for p in people.values()} == set(range(1, 11))


def test_masculinity_brings_its_anatomy_along_and_age_its_hair():
    person = sample_identity(SEED, 15)
    assert change_masculinity(person, person.masculinity) == person
    soft, hard = (change_masculinity(person, value) for value in (0.0, 1.0))
    assert hard.jaw_width_scale - soft.jaw_width_scale == pytest.approx(0.11)
    assert hard.lip_fullness_scale < soft.lip_fullness_scale
    assert soft.beard == "none"
    child, old = (change_age(replace(person, beard="full"), value) for value in (0.1, 0.9))
    assert (child.beard, old.beard, old.hair_colour) == ("none", "full", "grey")
    assert change_age(old, 0.5).hair_colour != "grey"


def test_skin_tone_is_independent_of_the_emotion(many_factors):
    tones = {e: [f.identity.skin_tone for f in many_factors if f.emotion == e] for e in EMOTIONS_7}
    overall = np.mean([f.identity.skin_tone for f in many_factors])
    for values in tones.values():
        # Four standard errors of the mean of a uniform 1..10 (standard deviation 2.9).
        assert abs(np.mean(values) - overall) < 4 * 2.9 / np.sqrt(len(values))


@pytest.mark.parametrize("emotion", [e for e in EMOTIONS_7 if PROTOTYPES[e]])
def test_prototype_units_dominate(emotion, many_factors):
    columns = [f.to_columns() for f in many_factors if f.emotion == emotion]
    mean = {au: np.mean([c[au] for c in columns]) for au in ACTION_UNITS}
    prototype = PROTOTYPES[emotion]
    assert min(mean[au] for au in prototype) > 0.5
    strays = [mean[au] for au in ACTION_UNITS if au not in (*prototype, "au17", "au25")]
    assert max(strays) < 0.2


def test_neutral_faces_show_hardly_any_unit(many_factors):
    sums = [sum(f.aus.values()) for f in many_factors if f.emotion == "neutral"]
    assert np.mean(sums) < 0.4


@pytest.mark.parametrize("emotion", EMOTIONS_7)
def test_regions_lie_within_the_face(emotion):
    _, regions = draw_face(build_plain(emotion), SIZE)
    rows, columns = np.nonzero(regions)
    assert 0.05 < regions.mean() < 0.5
    assert columns.min() > 0.15 * SIZE
    assert columns.max() < 0.85 * SIZE
    assert rows.min() > 0.15 * SIZE


@pytest.mark.parametrize("emotion", [e for e in EMOTIONS_7 if PROTOTYPES[e]])
def test_an_emotion_changes_the_image_inside_its_regions(emotion):
    image, regions = draw_face(build_plain(emotion), SIZE)
    rest, _ = draw_face(replace(build_plain(emotion), aus={}), SIZE)
    energy = np.abs(image.astype(float) - rest).sum(axis=2)
    near = cv2.dilate(regions.astype(np.uint8), np.ones((5, 5))) > 0
    assert energy.sum() > 0
    assert energy[near].sum() / energy.sum() > 0.6
    # The share must come from the place, not from the size of the mask.
    assert energy[near].mean() > 3 * energy[~near].mean()


@pytest.mark.parametrize(
    "change",
    [{"light_azimuth": -60.0}, {"light_strength": 0.6}, {"glasses": "sunglasses"}, {"blur_sigma": 1.0}],
    ids=lambda change: next(iter(change)),
)
def test_light_and_wear_change_the_image_but_not_the_regions(change):
    plain = build_plain("happy")
    image, regions = draw_face(plain, SIZE)
    changed, same_regions = draw_face(replace(plain, **change), SIZE)
    assert not np.array_equal(image, changed)
    np.testing.assert_array_equal(regions, same_regions)


def test_light_comes_from_the_side_it_says():
    bald = replace(sample_identity(SEED, 3), hair_style="bald")
    face = FaceFactors(bald, "neutral", {})
    right, _ = draw_face(replace(face, light_azimuth=60.0), SIZE)
    left, _ = draw_face(replace(face, light_azimuth=-60.0), SIZE)
    cheek = slice(int(0.5 * SIZE), int(0.6 * SIZE)), slice(int(0.6 * SIZE), int(0.72 * SIZE))
    assert right[cheek].mean() > left[cheek].mean() + 10


@pytest.mark.parametrize(("yaw", "pitch", "axis", "sign"), [(30, 0, 1, 1), (-30, 0, 1, -1), (0, 18, 0, -1)])
def test_the_head_turns_where_its_pose_says(yaw, pitch, axis, sign):
    _, front = draw_face(build_plain("neutral"), SIZE)
    _, turned = draw_face(replace(build_plain("neutral"), yaw=yaw, pitch=pitch), SIZE)
    moved = np.argwhere(turned).mean(axis=0) - np.argwhere(front).mean(axis=0)
    assert sign * moved[axis] > 0.03 * SIZE


def test_skin_tones_are_drawn_from_light_to_dark():
    person = replace(sample_identity(SEED, 3), hair_style="bald", beard="none")
    means = []
    for tone in (1, 4, 7, 10):
        image, _ = draw_face(FaceFactors(replace(person, skin_tone=tone), "neutral", {}), SIZE)
        means.append(image[int(0.25 * SIZE) : int(0.32 * SIZE), int(0.4 * SIZE) : int(0.6 * SIZE)].mean())
    assert means == sorted(means, reverse=True)


@settings(max_examples=40, deadline=None)
@given(
    identity_id=st.integers(0, N_IDENTITIES - 1),
    emotion=st.sampled_from(EMOTIONS_7),
    yaw=st.floats(-35, 35),
    pitch=st.floats(-20, 20),
    roll=st.floats(-20, 20),
    azimuth=st.floats(-65, 65),
    hair_style=st.sampled_from(HAIR_STYLES),
    glasses=st.sampled_from(GLASSES),
    mask=st.booleans(),
    intensity=st.floats(0, 1),
)
def test_any_pose_gives_a_image(
    identity_id, emotion, yaw, pitch, roll, azimuth, hair_style, glasses, mask, intensity
):
    identity = replace(sample_identity(SEED, identity_id), hair_style=hair_style)
    factors = FaceFactors(
        identity,
        emotion,
        build_prototype(emotion, intensity),
        yaw=yaw,
        pitch=pitch,
        roll=roll,
        light_azimuth=azimuth,
        glasses=glasses,
        mask=mask,
    )
    image, regions = draw_face(factors, 48)
    assert image.shape == (48, 48, 3)
    assert image.std() > 8  # a blank image has 0, the plainest face about 20
    assert regions.any()
