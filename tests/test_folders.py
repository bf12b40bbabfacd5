import io
from collections import Counter

import numpy as np
import pillow_heif
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from raw_layouts import build_params, write_image

from fer_lib.data.prepare import prepare
from fer_lib.data.readers import open_raw
from fer_lib.data.readers.base import BadRow
from fer_lib.data.readers.fer2013 import open_fer2013
from fer_lib.data.readers.folders import open_folder
from fer_lib.errors import DataError, ParamsError
from fer_lib.inference.recognizer import Recognizer
from fer_lib.labels import EMOTIONS_7
from fer_lib.param_sections import PrepareParams

GREY = np.arange(0, 256, dtype=np.uint8).reshape(16, 16)


def fill(root, *folders, n=1):
    for number, folder in enumerate(folders):
        for index in range(n):
            write_image(root / folder / f"{index}.png", np.roll(GREY, 20 * number + index))


def list_splits(raw):
    return Counter(face.split for face in raw.rows)


@pytest.mark.parametrize(
    "names", [("train", "validation", "test"), ("Training", "VALID", "testing"), ("train", "dev", "test")]
)
@pytest.mark.parametrize("open_reader", [lambda root: open_folder(root, 7), open_fer2013])
def test_split_folders_go_by_their_usual_names(tmp_path, names, open_reader):
    for number, name in enumerate(names, start=2):
        fill(tmp_path / name, "happy", "sad", n=number)
    assert list_splits(open_reader(tmp_path)) == {"train": 4, "val": 6, "test": 8}


def test_fer2013_with_a_validation_folder_cuts_the_test_split_from_train(tmp_path):
    fill(tmp_path / "train", "happy", n=3)
    fill(tmp_path / "validation", "happy", n=2)
    assert list_splits(open_fer2013(tmp_path)) == {"train|test": 3, "val": 2}


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        (
            ["train/sad", "holdout/sad"],
            r"split folders alone .*, found train/ and beside it holdout/",
        ),
        (
            ["test/sad", "angry"],
            r"split folders alone .*, found test/ and beside it angry/",
        ),
        (
            ["train/sad", "val/sad", "valid/sad"],
            r"expected one folder for val, found val/ and valid/; join them",
        ),
        (["test/sad", "valid/sad"], r"expected a folder train/ beside valid/, test/, found none; add it"),
    ],
)
def test_folder_that_is_no_split_is_named(tmp_path, folders, message):
    fill(tmp_path, *folders)
    with pytest.raises(DataError, match=message):
        open_folder(tmp_path, 7)


def test_images_below_a_class_folder_are_read(tmp_path):
    fill(tmp_path, "happy", "happy/indoors", "happy/indoors/evening")
    assert [face.source for face in open_folder(tmp_path, 7).rows] == [
        "happy/0.png",
        "happy/indoors/0.png",
        "happy/indoors/evening/0.png",
    ]


@pytest.mark.parametrize(
    ("name", "emotion"),
    [
        *{"joy": "happy", "happiness": "happy", "scared": "fear", "fearful": "fear"}.items(),
        *{"disgusted": "disgust", "Anger": "angry", "0_angry": "angry", "03-Sadness": "sad"}.items(),
        *{"5. surprised": "surprise", "NEUTRAL": "neutral", "afraid": "fear"}.items(),
    ],
)
def test_other_names_of_classes_are_read_and_told(tmp_path, name, emotion):
    fill(tmp_path, name)
    raw = open_folder(tmp_path, 7)
    assert [EMOTIONS_7[face.label] for face in raw.rows] == [emotion]
    assert raw.classes == {name: emotion}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("hapy", r"found 'hapy', which is near 'happy'; rename it, .*`classes: \{.hapy.: happy\}`"),
        ("xyz", r"found 'xyz'; rename it, .* `classes: \{\"xyz\": null\}`, where null leaves it out"),
        ("01", r"found '01'; rename it, .* `classes: \{\"01\": null\}`, where null leaves it out"),
        ("3", r"found '3'; .*`classes: \{1: surprise, 2: fear, 3: disgust, .*7: neutral\}`"),
        (
            "contempt",
            r"found 'contempt'; .*set `n_classes: 8`, or to leave it out `classes: \{.contempt.: null\}`",
        ),
    ],
)
def test_unknown_class_is_an_error_that_says_how_to_map_it(tmp_path, name, message):
    fill(tmp_path, "sad", name)
    with pytest.raises(DataError, match=message) as error:
        open_folder(tmp_path, 7)
    assert "\n" not in str(error.value)


def test_params_name_classes_and_leave_them_out(tmp_path):
    fill(tmp_path, "1", "2", "other", n=2)
    params = build_params(classes={"1": "surprise", "2": "fear", "other": None})
    raw = open_raw("mine", params, tmp_path)
    assert Counter(EMOTIONS_7[face.label] for face in raw.rows) == {"surprise": 2, "fear": 2}
    assert Counter(raw.passed_over.values()) == {"of class other": 2}
    with pytest.raises(
        DataError, match=r"expected a class 'oter' as prepare\.classes .* says, found 1, 2, other"
    ):
        open_raw(
            "mine", build_params(classes={"1": "sad", "2": "sad", "other": None, "oter": None}), tmp_path
        )


def test_classes_of_params_are_checked():
    values = build_params().model_dump()
    found = PrepareParams(**values | {"classes": {1: "Happiness", "x": None}})
    assert found.classes == {"1": "happy", "x": None}
    with pytest.raises(ValueError, match=r"expected one of angry, .* or null, found 'gladness'"):
        PrepareParams(**values | {"classes": {"a": "gladness"}})


@pytest.mark.parametrize("inner", ["photos", "mine/photos"])
def test_archive_in_a_folder_of_its_own_is_entered(tmp_path, inner):
    fill(tmp_path / "raw" / inner, "happy", "sad")
    for name in (".DS_Store", "mine.zip", "README.txt", "__MACOSX/._x.jpg"):
        (tmp_path / "raw" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "raw" / name).write_bytes(b"")
    raw = open_folder(tmp_path / "raw", 7)
    assert len(list(raw.rows)) == 2
    assert Counter(raw.passed_over.values()) == {"hidden or system": 2, ".zip": 1, ".txt": 1}


def test_fer2013_and_affectnet_in_class_folders_take_names_from_params(tmp_path):
    fill(tmp_path, "train/grin", "test/grin")
    for name in ("fer2013", "affectnet"):
        raw = open_raw(name, build_params(classes={"grin": "happy"}, channels=3), tmp_path)
        assert {EMOTIONS_7[face.label] for face in raw.rows} == {"happy"}
        assert raw.classes == {"grin": "happy"}


def test_layout_without_class_names_takes_none(tmp_path):
    with pytest.raises(DataError, match=r"a class 'grin' as .*, found none in layout 'demo'"):
        open_raw("demo", build_params(classes={"grin": "happy"}), tmp_path)


def test_fer2013_without_a_public_test_cuts_the_validation_split_from_train(tmp_path):
    write_image(tmp_path / "train" / "sad" / "Training_1.png", GREY)
    write_image(tmp_path / "test" / "sad" / "PrivateTest_2.png", GREY)
    assert list_splits(open_fer2013(tmp_path)) == {"train|val": 1, "test": 1}
    write_image(tmp_path / "test" / "sad" / "Training_3.png", GREY)
    assert [row for row in open_fer2013(tmp_path).rows if isinstance(row, BadRow)] == [
        BadRow("test/sad/Training_3.png", "expected the prefix PublicTest_ or PrivateTest_")
    ]


def test_flat_folder_says_what_lies_there(tmp_path):
    fill(tmp_path, ".", n=5)
    with pytest.raises(DataError, match=r"and of files 5 \(image outside a class folder: 5\); sort"):
        open_folder(tmp_path, 7)


def test_folder_of_images_alone_is_a_class_and_not_entered(tmp_path):
    fill(tmp_path, "photos")
    with pytest.raises(DataError, match="found 'photos'"):
        open_folder(tmp_path, 7)


def test_contempt_needs_eight_classes(tmp_path):
    fill(tmp_path, "contempt")
    assert [face.label for face in open_folder(tmp_path, 8).rows] == [7]
    fill(tmp_path / "fer2013", "train/sad", "test/sad")
    with pytest.raises(ParamsError, match="fer2013 has 7, found 8"):
        open_raw("fer2013", build_params(n_classes=8), tmp_path / "fer2013")


# --- One decoder, for training and for use -----------------------------------------------------------


def encode(kind, pixels, alpha):
    """Return an RGB image of one of the kinds of files that people have, with its suffix."""
    stream, image = io.BytesIO(), Image.fromarray(pixels)
    grey = np.asarray(image.convert("L"))
    frames = {"save_all": True, "append_images": [Image.new("RGB", image.size)]}
    exif = Image.Exif()
    exif[0x0112] = 8
    suffix, save = {
        "exif": ("jpg", lambda: image.save(stream, "JPEG", exif=exif)),
        "16-bit PNG": ("png", lambda: Image.fromarray(grey.astype(np.uint16) * 257).save(stream, "PNG")),
        "16-bit TIFF": ("tif", lambda: Image.fromarray(grey.astype(np.uint16) * 257).save(stream, "TIFF")),
        "float TIFF": ("tif", lambda: Image.fromarray(grey / np.float32(255)).save(stream, "TIFF")),
        "CMYK": ("jpg", lambda: image.convert("CMYK").save(stream, "JPEG")),
        "palette": ("png", lambda: image.convert("P").save(stream, "PNG")),
        "alpha": ("png", lambda: Image.fromarray(np.dstack([pixels, alpha])).save(stream, "PNG")),
        "alpha WebP": ("webp", lambda: Image.fromarray(np.dstack([pixels, alpha])).save(stream, "WEBP")),
        "pages": ("tiff", lambda: image.save(stream, "TIFF", **frames)),
        "animation": ("gif", lambda: image.save(stream, "GIF", **frames)),
        "MPO": ("mpo", lambda: image.save(stream, "MPO", **frames)),
        "HEIC": ("heic", lambda: pillow_heif.from_pillow(image).save(stream)),
        "AVIF": ("avif", lambda: image.save(stream, "AVIF")),
        "PGM": ("pgm", lambda: Image.fromarray(grey).save(stream, "PPM")),
    }[kind]
    save()
    return stream.getvalue(), suffix


KINDS = (
    *("exif", "16-bit PNG", "16-bit TIFF", "float TIFF", "CMYK", "palette", "alpha", "alpha WebP", "pages"),
    *("animation", "MPO", "HEIC", "AVIF", "PGM"),
)


class Eye:
    """Finds nothing and remembers what it was shown."""

    def detect(self, image, min_face):
        self.image = image
        return []


@pytest.fixture(scope="module")
def recognizer():
    recognizer = Recognizer(threads=1)
    recognizer.detector = Eye()
    return recognizer


@settings(max_examples=40, deadline=None)
@given(kind=st.sampled_from(KINDS), seed=st.integers(0, 99))
def test_prepare_packs_the_pixels_that_predict_sees(tmp_path_factory, recognizer, kind, seed):
    rng, side = np.random.default_rng(seed), 32
    coarse = rng.integers(0, 256, (4, 4, 3)).astype(np.uint8)
    pixels = np.asarray(Image.fromarray(coarse).resize((side, side), Image.Resampling.BILINEAR))
    data, suffix = encode(kind, pixels, rng.integers(0, 256, (side, side)).astype(np.uint8))
    folder = tmp_path_factory.mktemp("one")
    for split in ("train", "val", "test"):
        (folder / "raw" / split / "sad").mkdir(parents=True)
        (folder / "raw" / split / "sad" / f"face.{suffix}").write_bytes(data)
    params = build_params(size=side, channels=3)
    prepare("mine", params, folder / "raw", folder / "packed", progress=False)
    recognizer(data)
    assert np.array_equal(np.load(folder / "packed" / "faces.npy")[0], recognizer.detector.image)
    if kind.endswith(("PNG", "TIFF")):
        expected = np.asarray(Image.fromarray(pixels).convert("L")).astype(float).mean()
        assert recognizer.detector.image.mean() == pytest.approx(expected, abs=0.5)  # neither white nor black


# --- What prepare says of a folder of everything ------------------------------------------------------


def test_every_one_of_500_files_is_packed_passed_over_or_dropped(tmp_path):
    rng = np.random.default_rng(0)
    raw = tmp_path / "raw"
    kinds = [*KINDS, ".txt", ".mp4", ".zip", "._", "cut", "empty", "tiny"]
    for number in range(500):
        kind, name = kinds[number % len(kinds)], EMOTIONS_7[number % 7]
        folder = raw / name / ("deep" if number % 5 == 0 else "")
        folder.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (24, 24, 3)).astype(np.uint8)
        if kind in KINDS:
            data, suffix = encode(kind, pixels, pixels[..., 0])
            (folder / f"{number}.{suffix}").write_bytes(data)
        elif kind == "cut":
            (folder / f"{number}.jpg").write_bytes(encode("CMYK", pixels, None)[0][:400])
        elif kind == "empty":
            (folder / f"{number}.png").write_bytes(b"")
        elif kind == "tiny":
            write_image(folder / f"{number}.png", pixels[:4, :4, 0])
        elif kind == "._":
            (folder / f"._{number}.jpg").write_bytes(b"left by macOS")
        else:
            (folder / f"{number}{kind}").write_bytes(b"no image")
    params = build_params(skip_bad=True, val_fraction=0.1, test_fraction=0.1)
    meta = prepare("mine", params, raw, tmp_path / "packed", progress=False)
    n_passed_over, n_dropped = sum(meta["passed_over"].values()), sum(meta["dropped"].values())
    assert meta["n_faces"] + n_passed_over + n_dropped == 500
    assert meta["n_faces"] == sum(kinds[number % len(kinds)] in KINDS for number in range(500))
    assert set(meta["passed_over"]) == {".txt", ".mp4", ".zip", "hidden or system"}
    assert set(meta["dropped"]) == {
        "expected an image, found a file that is none",
        "the image is damaged",
        "the image is too small to hold a face",
    }
    assert meta["classes"] == {name: name for name in sorted(EMOTIONS_7)}
