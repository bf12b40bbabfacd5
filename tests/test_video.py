import io
import os
import re
import stat
import struct
import subprocess
import sys
from fractions import Fraction

import av
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from demo_faces.clips import draw_clip
from fer_lib.errors import MediaError
from fer_lib.inference import video_writer
from fer_lib.inference.recognizer import Recognizer
from fer_lib.inference.video import COLUMN_TYPES, analyse_video, redraw_video, write_table
from fer_lib.inference.video_reader import MAX_LEAP, MAX_SIDE, VideoInfo, VideoReader, describe_seconds
from fer_lib.inference.video_writer import VideoWriter

WIDTH, HEIGHT, FPS, N_FRAMES = 320, 240, 30, 24


@pytest.fixture(scope="module")
def recognizer():
    return Recognizer(threads=1)


@pytest.fixture(scope="module")
def frames():
    return list(draw_clip(N_FRAMES, 2, WIDTH, HEIGHT))


def encode(
    frames,
    kind="mp4",
    codec="libx264",
    pixels="yuv420p",
    times=None,
    matrix=None,
    aspect=None,
    target=None,
):
    """Return a video's bytes. times: of the frames, in seconds; None: 30 a second."""
    target = target or io.BytesIO()
    with av.open(target, "w", format=kind) as container:
        stream = container.add_stream(codec, rate=FPS)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pixels
        stream.codec_context.gop_size = 6
        if matrix is not None:
            stream.set_display_matrix(matrix)
        if aspect is not None:
            stream.codec_context.sample_aspect_ratio = aspect
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        for index, image in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            if times is not None:
                frame.pts, frame.time_base = round(1000 * times[index]), stream.codec_context.time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return target.getvalue()


def encode_sound():
    target = io.BytesIO()
    with av.open(target, "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=44100)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.float32), format="fltp", layout="mono")
        sound.sample_rate = 44100
        container.mux(stream.encode(sound))
        container.mux(stream.encode())
    return target.getvalue()


class Unseekable(io.RawIOBase):
    """A file that is only appended to, as when a stream is recorded; its header cannot tell the length."""

    def __init__(self):
        self.written = bytearray()

    def writable(self):
        return True

    def write(self, data):
        self.written += bytes(data)
        return len(data)

    def getvalue(self):
        return bytes(self.written)


def read(data):
    """Return a video's frames, uint8 RGB, and their times."""
    with av.open(io.BytesIO(data)) as container:
        decoded = list(container.decode(video=0))
    return [frame.to_ndarray(format="rgb24") for frame in decoded], [frame.time for frame in decoded]


def probe_video(source):
    with VideoReader(source) as reader:
        return reader.info


@pytest.fixture(scope="module")
def clip(frames):
    return encode(frames)


@pytest.fixture(scope="module")
def analysed(recognizer, clip):
    shares, out = [], io.BytesIO()
    result = analyse_video(recognizer, io.BytesIO(clip), out, progress=shares.append)
    return result, out.getvalue(), shares


def test_the_table_has_a_row_per_face_and_frame(recognizer, analysed):
    result, _, _ = analysed
    table = result.table
    assert list(table.columns) == [*COLUMN_TYPES, *recognizer.emotions]
    assert {name: str(kind) for name, kind in table.dtypes.items()} == COLUMN_TYPES | dict.fromkeys(
        recognizer.emotions, "float32"
    )
    assert table.groupby("track")["frame"].apply(list).to_dict() == {n: list(range(N_FRAMES)) for n in (1, 2)}
    np.testing.assert_allclose(table["time"], table["frame"] / FPS, atol=1e-3)
    np.testing.assert_allclose(table[[*recognizer.emotions]].sum(axis=1), 1, atol=1e-5)
    assert (table[[*recognizer.emotions]].idxmax(axis=1) == table["label"].astype(str)).all()
    assert (result.n_frames, result.problems) == (N_FRAMES, [])


def test_the_copy_plays_in_browsers_and_shows_boxes(analysed, frames):
    result, data, _ = analysed
    with av.open(io.BytesIO(data)) as container:
        assert "mp4" in container.format.name
        (stream,) = container.streams
        context = stream.codec_context
        assert (context.name, context.pix_fmt, context.width, context.height) == (
            *("h264", "yuv420p"),
            *(WIDTH, HEIGHT),
        )
    images, times = read(data)
    np.testing.assert_allclose(times, np.arange(N_FRAMES) / FPS, atol=1e-3)
    for row in result.table[result.table["frame"] == 5].itertuples():
        rows = np.s_[row.top + 10 : row.top + row.height - 10]
        changed = np.abs(images[5][rows].astype(int) - frames[5][rows]).mean(axis=(0, 2))
        # Beside the box the codec alone changes colours.
        assert changed[row.left - 2 : row.left + 3].min() > 5 * changed[row.left - 12]


def test_progress_rises_to_one(analysed):
    _, _, shares = analysed
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    assert 0.4 < shares[N_FRAMES // 2] < 0.6


def test_colours_survive(tmp_path):
    drawn = np.zeros((64, 64, 3), np.uint8)
    drawn[:, :32], drawn[:, 32:] = (200, 40, 40), (40, 60, 200)
    with VideoWriter(tmp_path / "out.mp4", VideoInfo(64, 64, 30, None)) as writer:
        writer.write(drawn, 0.0)
    with VideoReader(tmp_path / "out.mp4") as reader:
        ((_, image),) = reader
    # As BT.601 read as BT.709, or the other way round, the red is off by 15 and more.
    assert np.abs(image[:, 8:24].astype(int) - drawn[:, 8:24]).max() < 15
    assert np.abs(image[:, 40:56].astype(int) - drawn[:, 40:56]).max() < 15


def test_hidden_faces_cannot_be_found_any_more(recognizer, clip):
    out = io.BytesIO()
    analyse_video(recognizer, io.BytesIO(clip), out, blur=True)
    for image in read(out.getvalue())[0][::6]:
        assert recognizer.detector.search(image, 24) == []


def test_uneven_times_are_kept(recognizer, frames):
    times = [0.0, 0.04, 0.5, 0.6, 1.9, 2.0]
    out = io.BytesIO()
    result = analyse_video(recognizer, io.BytesIO(encode(frames[:6], "matroska", times=times)), out)
    np.testing.assert_allclose(result.table["time"].unique(), times, atol=2e-3)
    np.testing.assert_allclose(read(out.getvalue())[1], times, atol=2e-3)


def test_time_starts_at_the_first_frame(clip, frames):
    with VideoReader(io.BytesIO(encode(frames[:3], "mpegts"))) as reader:  # MPEG-TS begins at 1.4 s
        assert [time for time, _ in reader] == pytest.approx([0, 1 / FPS, 2 / FPS], abs=1e-3)


def test_a_stamp_of_years_is_not_believed(frames):
    times = [0.0, 0.1, MAX_LEAP * 10, MAX_LEAP * 10 + 0.1]
    target = Unseekable()
    data = encode(frames[:4], "matroska", times=times, target=target)
    with VideoReader(io.BytesIO(data)) as reader:
        seen = [time for time, _ in reader]
        assert seen[-1] < 1
        assert seen == sorted(seen)
        assert any("damaged from 0.1 s" in problem for problem in reader.problems)


def draw_corners():
    """Return a picture, wider than high, that none of its turns and mirrorings resembles."""
    drawn = np.zeros((64, 96, 3), np.uint8)
    drawn[:32, :32], drawn[:32, 32:64], drawn[32:, :32] = (255, 255, 255), (255, 0, 0), (0, 0, 255)
    return drawn


def move_pixels(stored, a, b, c, d):
    """Return what a matrix shows, as the QuickTime File Format defines it: [x y 1] M, with y downwards."""
    y, x = np.indices(stored.shape[:2])
    left, top = a * x + c * y, b * x + d * y
    shown = np.zeros((np.ptp(top) + 1, np.ptp(left) + 1, 3), np.uint8)
    shown[top - top.min(), left - left.min()] = stored
    return shown


def build_matrix(a, b, c, d):
    """Return a display matrix: 16.16 fixed point, the last number 2.30."""
    return [*(round(a * 2**16), round(b * 2**16), 0), *(round(c * 2**16), round(d * 2**16), 0), 0, 0, 2**30]


def check_shown(data, shown):
    info = probe_video(io.BytesIO(data))
    assert (info.height, info.width) == shown.shape[:2]
    with VideoReader(io.BytesIO(data)) as reader:
        for _, image in reader:
            assert image.shape == shown.shape
            # The codec changes the colours at the edges alone; any other orientation is off by 80 and more.
            assert np.abs(image.astype(int) - shown).mean() < 6


ORIENTATIONS = [
    *((1, 0, 0, 1), (-1, 0, 0, 1), (1, 0, 0, -1), (-1, 0, 0, -1)),
    *((0, 1, 1, 0), (0, -1, 1, 0), (0, 1, -1, 0), (0, -1, -1, 0)),
]


@pytest.mark.parametrize("orientation", ORIENTATIONS, ids=str)
def test_frames_are_upright_and_not_mirrored(orientation):
    stored = draw_corners()
    data = encode([stored] * 2, matrix=build_matrix(*orientation))
    assert struct.pack(">9i", *build_matrix(*orientation)) in data[data.index(b"tkhd") :]
    check_shown(data, move_pixels(stored, *orientation))


@pytest.mark.parametrize(
    ("matrix", "orientation"),
    [
        ([0] * 9, (1, 0, 0, 1)),
        ([-(2**31)] * 9, (-1, 0, 0, -1)),  # whose absolute value is no int32
        (build_matrix(0.866, 0.5, -0.5, 0.866), (1, 0, 0, 1)),  # 30 degrees
        (build_matrix(0.5, 0.866, -0.866, 0.5), (0, 1, -1, 0)),  # 60 degrees
        (build_matrix(-3, 0, 0, 3), (-1, 0, 0, 1)),
    ],
)
def test_other_matrices_are_rounded_to_what_moves_whole_pixels(matrix, orientation):
    stored = draw_corners()
    check_shown(encode([stored] * 2, matrix=matrix), move_pixels(stored, *orientation))


def test_motion_jpeg_is_turned_by_its_exif():
    stored, picture, exif, target = draw_corners(), io.BytesIO(), Image.Exif(), io.BytesIO()
    exif[0x0112] = 6  # shown after a quarter turn clockwise
    Image.fromarray(stored).save(picture, "JPEG", quality=95, exif=exif)
    with av.open(target, "w", format="avi") as container:
        stream = container.add_stream("mjpeg", rate=FPS)
        stream.height, stream.width = stored.shape[:2]
        stream.pix_fmt = "yuvj420p"
        for index in range(2):
            packet = av.Packet(picture.getvalue())
            packet.stream, packet.time_base = stream, Fraction(1, FPS)
            packet.pts = packet.dts = index
            container.mux(packet)
    check_shown(target.getvalue(), np.rot90(stored, -1))


def test_pixels_are_square():
    image = np.zeros((96, 64, 3), np.uint8)
    info = probe_video(io.BytesIO(encode([image], aspect=Fraction(2))))
    assert (info.width, info.height) == (128, 96)


def test_odd_sides_lose_a_row_or_column(tmp_path):
    with VideoWriter(tmp_path / "out.mp4", VideoInfo(65, 49, 30, None)) as writer:
        writer.write(np.zeros((49, 65, 3), np.uint8), 0.0)
    assert read((tmp_path / "out.mp4").read_bytes())[0][0].shape == (48, 64, 3)


def test_without_x264_mpeg4_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(video_writer.av, "codecs_available", {"mpeg4"})
    with VideoWriter(tmp_path / "out.mp4", VideoInfo(64, 48, 30, None)) as writer:
        writer.write(np.zeros((48, 64, 3), np.uint8), 0.0)
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert container.streams.video[0].codec_context.name == "mpeg4"


@pytest.mark.parametrize(
    ("kind", "codec"), [("mp4", "libx264"), ("matroska", "libx264"), ("webm", "libvpx"), ("avi", "mpeg4")]
)
def test_usual_containers_are_read_whole(frames, kind, codec):
    with VideoReader(io.BytesIO(encode(frames, kind, codec))) as reader:
        assert len(list(reader)) == N_FRAMES
        assert reader.problems == []
        assert reader.info.n_seconds == pytest.approx(N_FRAMES / FPS, abs=0.05)


def test_a_video_of_one_frame_is_analysed(recognizer, frames):
    result = analyse_video(recognizer, io.BytesIO(encode(frames[:1])))
    assert (result.n_frames, len(result.table), result.problems) == (1, 2, [])


def test_a_video_without_faces_gives_an_empty_table(recognizer):
    result = analyse_video(recognizer, io.BytesIO(encode([np.full((96, 128, 3), 90, np.uint8)] * 3)))
    assert len(result.table) == 0
    assert result.n_frames == 3
    assert list(result.table.columns) == [*COLUMN_TYPES, *recognizer.emotions]


def test_a_file_that_is_cut_off_gives_what_it_has_and_says_so(recognizer, frames, capfd):
    whole = encode(frames * 3, "matroska")
    out = io.BytesIO()
    result = analyse_video(recognizer, io.BytesIO(whole[: len(whole) // 2]), out)
    assert 10 < result.n_frames < 3 * N_FRAMES - 10
    assert result.table["frame"].max() == result.n_frames - 1
    assert len(read(out.getvalue())[0]) == result.n_frames
    end = describe_seconds(result.n_frames / FPS)
    assert any("should last 2.4 s" in text and f"end after {end}" in text for text in result.problems)
    assert capfd.readouterr().err == ""  # FFmpeg's own complaints are for nobody


def test_damage_in_the_middle_is_named_with_its_time(frames):
    data = bytearray(encode(frames * 3, "mpegts"))
    rng = np.random.default_rng(0)
    for place in rng.integers(len(data) // 3, len(data) // 2, 300):
        data[place] ^= 0x5A
    with VideoReader(io.BytesIO(bytes(data))) as reader:
        times = [time for time, _ in reader]
        (problem,) = [text for text in reader.problems if "damaged from" in text]
    assert times[-1] > 2
    # The damage lies from a third to a half of 2.4 s; the decoder reads some frames ahead.
    assert 0.3 < float(problem.split("damaged from ")[1].split(" s")[0]) < 1.4


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty file"),
        (b"not a video at all\n" * 500, "expected a video, found a file that is none"),
        (b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nother.ts\n", "a file that is none"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "a file that is none"),
        (encode_sound(), "sound only"),
    ],
)
def test_what_is_no_video_is_refused_in_a_sentence(recognizer, tmp_path, content, words):
    path = tmp_path / "clip.mp4"
    path.write_bytes(content)
    out = tmp_path / "out.mp4"
    for source in (path, str(path), io.BytesIO(content)):
        with pytest.raises(MediaError, match=words) as error:
            analyse_video(recognizer, source, out)
        assert "\n" not in str(error.value)
    with pytest.raises(MediaError, match=re.escape(str(path))):
        probe_video(path)
    assert os.listdir(tmp_path) == ["clip.mp4"]


def test_a_file_without_its_index_is_refused(clip):
    with pytest.raises(MediaError, match="damaged from its start"):
        probe_video(io.BytesIO(clip[: len(clip) // 2]))


def test_no_file_is_refused_in_a_sentence(tmp_path):
    for path in (tmp_path / "none.mp4", tmp_path, tmp_path / "none" / "none.mp4"):
        with pytest.raises(MediaError, match="expected a video, found no file"):
            probe_video(path)


def test_names_that_ffmpeg_would_take_for_addresses_are_paths():
    for name in ("http://127.0.0.1:9/a.mp4", "concat:a|b", "pipe:0", "file:/etc/hostname"):
        with pytest.raises(MediaError, match="found no file"):
            probe_video(name)


def test_sizes_out_of_range_are_refused():
    with pytest.raises(MediaError, match="too small to hold a face"):
        probe_video(io.BytesIO(encode([np.zeros((8, 64, 3), np.uint8)])))
    for kind, codec in (("mp4", "libx264"), ("avi", "mpeg4")):
        data = encode([np.zeros((2400, 4096, 3), np.uint8)], kind, codec)
        with pytest.raises(MediaError, match=r"4,096 x 2,400 pixels, at most 4096 x 2304"):
            probe_video(io.BytesIO(data))


def test_sides_are_read_up_to_the_longest_that_can_be_written(recognizer):
    def encode_strip(width):
        # As a GIF, since H.264 has no longer sides.
        return io.BytesIO(encode([np.zeros((64, width, 3), np.uint8)], "gif", "gif", pixels="rgb8"))

    out = io.BytesIO()
    assert (
        analyse_video(recognizer, encode_strip(MAX_SIDE), out).n_frames == len(read(out.getvalue())[0]) == 1
    )
    with pytest.raises(MediaError, match=r"16,386 x 64 pixels, a side may have 16,384 at most"):
        probe_video(encode_strip(MAX_SIDE + 2))


def test_a_long_video_is_refused_before_it_is_read(recognizer, clip, tmp_path):
    with pytest.raises(MediaError, match=r"0\.8 s long, at most 0\.2 s"):
        analyse_video(recognizer, io.BytesIO(clip), tmp_path / "out.mp4", max_seconds=0.2)
    assert os.listdir(tmp_path) == []
    assert analyse_video(recognizer, io.BytesIO(clip), max_seconds=0.8).n_frames == N_FRAMES


def test_where_the_length_is_not_told_the_rest_is_left_out(recognizer, frames):
    data = encode(frames, "matroska", target=Unseekable())
    assert probe_video(io.BytesIO(data)).n_seconds is None
    shares, out = [], io.BytesIO()
    result = analyse_video(recognizer, io.BytesIO(data), out, max_seconds=0.3, progress=shares.append)
    assert result.n_frames == len(read(out.getvalue())[0]) == 10
    assert result.problems == ["The video is longer than 0.3 s; the rest was left out."]
    assert shares == sorted(shares)
    assert max(shares) == 1.0


def test_the_copy_appears_whole_or_not_at_all(recognizer, clip, tmp_path):
    source, out = tmp_path / "clip.mp4", tmp_path / "new" / "out.mp4"
    source.write_bytes(clip)

    def stop(share):
        if share > 0.3:
            assert not out.exists()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        analyse_video(recognizer, source, out, progress=stop)
    assert os.listdir(out.parent) == []
    analyse_video(recognizer, source, out)
    assert os.listdir(out.parent) == ["out.mp4"]
    assert len(read(out.read_bytes())[0]) == N_FRAMES


def test_places_that_cannot_be_written_are_named(recognizer, clip, tmp_path):
    source = tmp_path / "clip.mp4"
    source.write_bytes(clip)
    with pytest.raises(MediaError, match=r"ends in \.mp4"):
        analyse_video(recognizer, source, tmp_path / "out.avi")
    with pytest.raises(MediaError, match="replace the video itself"):
        analyse_video(recognizer, source, tmp_path / "." / "clip.mp4")
    with pytest.raises(MediaError, match="could not be written"):
        analyse_video(recognizer, source, source / "out.mp4")
    assert source.read_bytes() == clip
    assert os.listdir(tmp_path) == ["clip.mp4"]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
def test_a_full_disk_is_named(frames):
    def write():
        with (
            open("/dev/full", "wb", buffering=0) as full,
            VideoWriter(full, VideoInfo(WIDTH, HEIGHT, FPS, None)) as writer,
        ):
            for index, frame in enumerate(frames):
                writer.write(frame, index / FPS)

    with pytest.raises(MediaError, match="could not be written"):
        write()


def test_a_source_that_is_passed_open_stays_open(clip):
    source = io.BytesIO(clip)
    probe_video(source)
    assert probe_video(source).n_seconds == pytest.approx(N_FRAMES / FPS, abs=1e-3)  # from its start again


def test_tables_are_written_by_suffix(analysed, recognizer, tmp_path):
    table = analysed[0].table
    for name in ("faces.csv", "faces.PARQUET"):
        write_table(table, tmp_path / name)
    for back in (pd.read_csv(tmp_path / "faces.csv"), pd.read_parquet(tmp_path / "faces.PARQUET")):
        assert list(back.columns) == list(table.columns)
        assert list(back["label"]) == list(table["label"])
        np.testing.assert_allclose(back["happy"], table["happy"], atol=1e-4)
        assert (back["happy"].round(4) == back["happy"]).all()
    assert "0.033," in (tmp_path / "faces.csv").read_text()
    assert stat.S_IMODE((tmp_path / "faces.csv").stat().st_mode) & stat.S_IRUSR
    with pytest.raises(MediaError, match=r"\.csv or \.parquet"):
        write_table(table, tmp_path / "faces.xlsx")
    with pytest.raises(MediaError, match="could not be written"):
        write_table(table, tmp_path / "faces.csv" / "faces.csv")


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        *((0.04, "0.0 s"), (3.21, "3.2 s"), (59.97, "1 min"), (60, "1 min"), (725, "12 min 5 s")),
        *((3600, "1 h"), (7380, "2 h 3 min")),
    ],
)
def test_lengths_are_described(seconds, words):
    assert describe_seconds(seconds) == words


@pytest.mark.parametrize("blur", [False, True])
def test_a_copy_is_drawn_anew_as_it_was(recognizer, clip, analysed, blur):
    result, copy, _ = analysed
    shares, again = [], io.BytesIO()
    redraw_video(io.BytesIO(clip), result, again, blur=blur, progress=shares.append)
    if blur:
        expected = io.BytesIO()
        analyse_video(recognizer, io.BytesIO(clip), expected, blur=True)
        copy = expected.getvalue()
    for one, other in zip(read(again.getvalue())[0], read(copy)[0], strict=True):
        assert np.abs(one.astype(int) - other).mean() < 1  # a percentage may be rounded otherwise
    assert shares == sorted(shares)


def test_what_matches_faces_is_not_imported_for_images():
    modules = "fer_lib.inference.annotate, fer_lib.inference.tracking"
    code = f"import sys, {modules}; print('scipy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
