import io
import os
import struct
import subprocess
import sys
import threading
import warnings
import zlib

import cv2
import numpy as np
import pillow_heif
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fer_lib.data.image_files import SUFFIXES
from fer_lib.data.images import FORMATS, MAX_PIXELS, MAX_SIDE, MIN_SIDE, read_image
from fer_lib.errors import MediaError

WIDTH, HEIGHT = 40, 24


@pytest.fixture
def pixels():
    # Smooth and different in each channel and corner, so that a swap, a flip or a lost channel shows.
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    return np.dstack([4 * x + 30, 8 * y + 20, 2 * x + 3 * y]).astype(np.uint8)


@pytest.fixture
def grey(pixels):
    return pixels[..., 0]


def encode(image, form, **options):
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def differ(found, expected):
    """Return the largest difference of two images in grey levels; their shapes must agree."""
    assert found.dtype == np.uint8
    assert found.shape == expected.shape
    return int(np.abs(found.astype(int) - expected).max())


def repeat(grey):
    return np.dstack([grey] * 3)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientations_are_undone(pixels, orientation):
    # How a camera that says `orientation` stores the upright image (Exif 2.3, tag 0x0112).
    stored = {
        1: pixels,
        2: pixels[:, ::-1],
        3: np.rot90(pixels, 2),
        4: pixels[::-1],
        5: pixels.transpose(1, 0, 2),
        6: np.rot90(pixels),
        7: np.rot90(pixels, 2).transpose(1, 0, 2),
        8: np.rot90(pixels, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(Image.fromarray(np.ascontiguousarray(stored)), "PNG", exif=exif)
    assert differ(read_image(data), pixels) == 0


@pytest.mark.parametrize("form", ["PNG", "BMP", "TIFF", "PPM"])
def test_lossless_formats_keep_every_pixel(pixels, form):
    assert differ(read_image(encode(Image.fromarray(pixels), form)), pixels) == 0


@pytest.mark.parametrize(("form", "allowed"), [("JPEG", 12), ("WEBP", 12), ("AVIF", 12), ("GIF", 40)])
def test_lossy_formats_keep_the_image(pixels, form, allowed):
    # A palette of 256 colours is that much coarser than the others' quantisation.
    assert differ(read_image(encode(Image.fromarray(pixels), form)), pixels) <= allowed


def test_every_format_has_a_suffix_the_app_offers():
    known = Image.registered_extensions() | {".heic": "HEIF", ".heif": "HEIF"}
    # MPO is a JPEG with more pictures behind it, and Pillow's reader of JPEG opens it.
    assert {known[suffix] for suffix in SUFFIXES} == {*FORMATS, "MPO"}


@pytest.mark.parametrize("mode", ["L", "LA"])
def test_grey_is_repeated(grey, mode):
    assert differ(read_image(encode(Image.fromarray(grey).convert(mode), "PNG")), repeat(grey)) == 0


def test_one_bit_is_black_and_white(grey):
    found = read_image(encode(Image.fromarray(grey > 100), "PNG"))
    assert differ(found, repeat((grey > 100) * 255)) == 0


def test_transparent_parts_become_white(pixels):
    alpha = np.full((HEIGHT, WIDTH), 255, np.uint8)
    alpha[:, :10], alpha[:, 10:20] = 0, 128
    expected = pixels.astype(float)
    expected[:, :10] = 255
    expected[:, 10:20] = 255 + (expected[:, 10:20] - 255) * 128 / 255
    found = read_image(encode(Image.fromarray(np.dstack([pixels, alpha])), "PNG"))
    assert differ(found, expected.round().astype(int)) <= 1
    assert differ(read_image(np.dstack([pixels, alpha])), expected.round().astype(int)) <= 1


def test_palette_with_a_transparent_colour():
    image = Image.new("P", (WIDTH, HEIGHT), 1)
    image.putpalette([0, 0, 0, 200, 10, 10])
    image.paste(0, (0, 0, 10, HEIGHT))
    found = read_image(encode(image, "PNG", transparency=0))
    assert (found[:, :10] == 255).all()
    assert (found[:, 10:] == [200, 10, 10]).all()


def test_cmyk_jpeg_keeps_its_colours(pixels):
    found = read_image(encode(Image.fromarray(pixels).convert("CMYK"), "JPEG", quality=95))
    assert differ(found, pixels) <= 20


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled_to_eight(grey, form):
    found = read_image(encode(Image.fromarray(grey.astype(np.uint16) * 257), form))
    assert differ(found, repeat(grey)) == 0


def test_dark_sixteen_bit_pgm_stays_dark(grey):
    header = f"P5 {WIDTH} {HEIGHT} 65535\n".encode()
    assert read_image(header + grey.astype(">u2").tobytes()).max() <= 1
    assert differ(read_image(header + (grey.astype(">u2") * 257).tobytes()), repeat(grey)) <= 1


def test_tiff_of_a_kind_that_is_not_read_is_called_one(tmp_path):
    path = tmp_path / "colour.tif"
    cv2.imwrite(str(path), np.zeros((20, 20, 3), np.float32))
    check_refusal(path, "expected a TIFF of 8 or 16 bits")
    check_refusal(path.read_bytes(), "expected a TIFF of 8 or 16 bits")


def test_dim_sixteen_bits_stay_dim_in_either_byte_order(grey):
    dim = grey.astype(">u2")  # at most 255 of 65,535
    data = encode(Image.frombytes("I;16B", (WIDTH, HEIGHT), dim.tobytes()), "TIFF")
    assert read_image(data).max() <= 1


@pytest.mark.parametrize("options", [{}, {"bit_depth": 10}, {"exif": True}])
def test_heic_of_a_telephone_is_read_upright(pixels, options):
    stream, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = 6 if options.pop("exif", False) else 1
    stored = np.ascontiguousarray(np.rot90(pixels) if exif[0x0112] == 6 else pixels)
    pillow_heif.from_pillow(Image.fromarray(stored)).save(stream, quality=95, exif=exif.tobytes())
    assert differ(read_image(stream.getvalue()), pixels) <= 25


def test_library_for_heic_is_loaded_for_heic_alone(pixels, tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(encode(Image.fromarray(pixels), "PNG"))
    code = "import sys; from fer_lib.data.images import read_image; read_image(sys.argv[1])"
    code += "; sys.exit('pillow_heif' in sys.modules)"
    subprocess.run([sys.executable, "-c", code, str(path)], check=True)


@pytest.mark.parametrize("scale", [1 / 255, 1, 257])
def test_float_tiff_of_any_range_keeps_its_greys(grey, scale):
    found = read_image(encode(Image.fromarray(grey.astype(np.float32) * np.float32(scale)), "TIFF"))
    assert differ(found, repeat(grey)) <= 1


def test_first_frame_of_an_animation_counts(pixels):
    frames = [Image.fromarray(pixels), Image.new("RGB", (WIDTH, HEIGHT), "red")]
    data = encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert differ(read_image(data), pixels) <= 40


def test_path_text_bytes_stream_and_pil_image_give_the_same(pixels, tmp_path):
    path = tmp_path / "a image.png"
    path.write_bytes(encode(Image.fromarray(pixels), "PNG"))
    stream = io.BytesIO(path.read_bytes())
    stream.read()  # an upload that was looked at before
    with open(path, "rb") as opened, Image.open(path) as image:
        for source in (path, str(path), path.read_bytes(), stream, opened, image):
            assert differ(read_image(source), pixels) == 0


@pytest.mark.parametrize(
    ("dtype", "scale"),
    [
        (np.uint8, 1),
        (np.uint16, 257),
        (np.int64, 1),
        (np.int32, 257),
        (np.float32, 1 / 255),
        (np.float64, 1 / 255),
        (np.float16, 1 / 255),
    ],
)
def test_arrays_of_any_type(pixels, dtype, scale):
    assert (
        differ(read_image((pixels.astype(float) * scale).astype(dtype)), pixels) <= 1
    )  # float16 has 11 bits


@pytest.mark.parametrize("shape", [(HEIGHT, WIDTH), (HEIGHT, WIDTH, 1)])
def test_grey_arrays(grey, shape):
    assert differ(read_image(grey.reshape(shape)), repeat(grey)) == 0


def test_array_is_left_alone(pixels):
    before = pixels.copy()
    read_image(pixels[::-1, ::-1])
    assert (pixels == before).all()


def check_refusal(source, *words):
    """Assert that the source is refused in one line that holds the words and ends in what to do."""
    with pytest.raises(MediaError) as error:
        read_image(source)
    text = str(error.value)
    assert "\n" not in text
    assert ";" in text
    assert len(text) < 500
    for word in words:
        assert word in text


def build_png(width, height, rows=b""):
    """Return a grey PNG that says it is `width` x `height`, whatever it holds."""

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")


def test_70_megapixels_are_refused_by_the_header_alone(monkeypatch):
    def decode(*_):
        raise AssertionError("decoded")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", decode)
    check_refusal(build_png(10_000, 7_000), "70 megapixels", "10,000 x 7,000", "at most 65", "smaller")


def test_bomb_is_refused_without_its_memory():
    width = height = 30_000
    bomb = build_png(width, height, bytes(1_000_000))
    check_refusal(bomb, "too large", "smaller")


def test_longest_side_is_limited():
    # 32,000 is under OpenCV's limit for turning a image, 32,767, which none may reach.
    read_image(np.zeros((MIN_SIDE, MAX_SIDE), np.uint8))
    check_refusal(np.zeros((MIN_SIDE, MAX_SIDE + 1), np.uint8), "32,001 x 8", "32,000 at most")
    check_refusal(build_png(MIN_SIDE, MAX_SIDE + 1), "8 x 32,001")
    cv2.warpAffine(np.zeros((1, MAX_SIDE, 3), np.uint8), np.eye(2, 3), (8, 8))


def test_array_over_the_limit_is_refused():
    huge = np.broadcast_to(np.uint8(0), (MAX_PIXELS // 5000 + 1, 5000))
    check_refusal(huge, "megapixels", "at most 65")


@pytest.mark.parametrize("size", [(1, 1), (7, 300), (300, 7)])
def test_image_too_small_for_a_face(size):
    check_refusal(encode(Image.new("RGB", size), "PNG"), f"{size[0]} x {size[1]}", "8 at least")
    check_refusal(np.zeros(size[::-1], np.uint8), f"{size[0]} x {size[1]}", "8 at least")


def test_program_named_as_a_image(tmp_path):
    path = tmp_path / "holiday.jpg"
    path.write_bytes(b"MZ\x90\x00\x03\x00\x00\x00" + bytes(500))
    check_refusal(path, "holiday.jpg", "a file that is none", "use JPEG")


def test_empty_file_folder_and_nothing(tmp_path):
    (tmp_path / "empty.png").touch()
    check_refusal(tmp_path / "empty.png", "empty.png", "use JPEG")
    check_refusal(b"", "found no bytes at all", "check where")
    check_refusal(tmp_path, "found no file", "check the path")
    check_refusal(tmp_path / "missing.png", "missing.png", "found no file", "check the path")
    check_refusal("", "found no file")
    check_refusal("a\0b.png", "found no file")


def test_file_that_may_not_be_read(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError("as for anyone but root")

    (tmp_path / "private.png").touch()
    monkeypatch.setattr("builtins.open", refuse)
    check_refusal(tmp_path / "private.png", "private.png", "check its permissions")


def test_pipe_does_not_block(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    check_refusal(tmp_path / "pipe.png", "found no file")


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP"])
@pytest.mark.parametrize("share", [0.5, 0.9])
def test_truncated_file(form, share):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    data = encode(Image.fromarray(noise), form)
    check_refusal(data[: int(len(data) * share)], "the image")


def test_truncated_file_that_a_caller_opened():
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    data = encode(Image.fromarray(noise), "PNG")
    check_refusal(Image.open(io.BytesIO(data[: len(data) // 2])), "damaged", "save it again")


def test_postscript_starts_no_other_program(tmp_path, monkeypatch):
    path = tmp_path / "photo.jpg"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\n%%EndComments\nshowpage\n%%EOF\n")
    with Image.open(path) as image:
        assert image.format == "EPS"  # so it would be Ghostscript's

    def start(*_, **__):
        raise AssertionError("started a program")

    monkeypatch.setattr(subprocess, "Popen", start)
    check_refusal(path, "photo.jpg", "use JPEG")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_none(bad):
    array = np.zeros((HEIGHT, WIDTH, 3))
    array[3, 4, 1] = bad
    check_refusal(array, "NaN or infinity", "check what made it")
    check_refusal(encode(Image.fromarray(array[..., 1].astype(np.float32)), "TIFF"), "NaN or infinity")


@pytest.mark.parametrize("shape", [(), (9,), (9, 9, 2), (9, 9, 5), (3, 90, 90), (1, 9, 9, 3)])
def test_odd_shapes(shape):
    check_refusal(np.zeros(shape, np.uint8), str(shape), "reshape")


@pytest.mark.parametrize("dtype", [complex, object, str, "datetime64[s]"])
def test_arrays_that_hold_no_numbers(dtype):
    check_refusal(np.zeros((HEIGHT, WIDTH), np.uint8).astype(dtype), "expected numbers", "uint8")


@pytest.mark.parametrize("source", [None, 5, ["a.png"], io.StringIO("text")])
def test_what_is_no_source(source):
    check_refusal(source, "image")


def test_name_from_an_upload_stays_one_short_line():
    stream = io.BytesIO(b"no image")
    stream.name = "a\nb\x1b[31m" + "c" * 5000 + ".png"
    check_refusal(stream, "a?b?[31m", "c.png")
    check_refusal("\n" * 3 + "d" * 5000, "found no file")


def test_threads_leave_the_process_warnings_alone(pixels):
    data, before = encode(Image.fromarray(pixels), "PNG"), list(warnings.filters)

    def work():
        for _ in range(30):
            read_image(data)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert warnings.filters == before


def check_any(source):
    """Assert that the source is a uint8 RGB image, which is returned, or refused in one line (None)."""
    try:
        found = read_image(source)
    except MediaError as refusal:
        text = str(refusal)
    else:
        assert found.dtype == np.uint8
        assert found.ndim == 3
        return found
    assert "\n" not in text
    return None


@settings(max_examples=60, deadline=None)
@given(
    data=st.binary(max_size=400), start=st.sampled_from([b"", b"\xff\xd8\xff", b"GIF89a", b"BM", b"P6 9 9 "])
)
def test_any_bytes_are_a_image_or_refused(data, start):
    check_any(start + data)


TYPES = "bool uint8 int8 uint16 int16 uint32 int64 uint64 float16 float32 float64"


@settings(max_examples=100, deadline=None)
@given(
    shape=st.lists(st.integers(0, 12), min_size=1, max_size=4)
    | st.tuples(st.integers(8, 12), st.integers(8, 12), st.sampled_from([1, 3, 4])),
    dtype=st.sampled_from(TYPES.split()),
    seed=st.integers(0, 2**16),
)
def test_any_array_is_a_image_or_refused(shape, dtype, seed):
    # Every bit pattern of the type, NaN and infinities included.
    n_bytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
    array = np.frombuffer(np.random.default_rng(seed).bytes(n_bytes), dtype).reshape(shape)
    found = check_any(array)
    assert found is None or found.shape == (*array.shape[:2], 3)
