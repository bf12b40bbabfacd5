import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from demo_faces.clips import draw_scene
from fer_lib.inference.annotate import EMOTION_COLOURS, choose_ink, draw_faces, name_face
from fer_lib.inference.recognizer import Face, Recognizer
from fer_lib.inference.tracking import TrackedFace
from fer_lib.labels import EMOTIONS_8, GROUP_OF
from fer_lib.reporting.figures.style import COLOURS


def make_face(box, label="happy", confidence=0.84, abstained=False, **more):
    kind = TrackedFace if more else Face
    return kind(
        probabilities={label: confidence},
        label=label,
        confidence=confidence,
        group=GROUP_OF[label],
        abstained=abstained,
        box=box,
        landmarks=np.zeros((5, 2), np.float32),
        detection_score=0.9,
        crop=np.zeros((48, 48), np.uint8),
        **more,
    )


def test_names_say_emotion_confidence_doubt_and_track():
    assert name_face(make_face((0, 0, 9, 9))) == "happy 84 %"
    assert name_face(make_face((0, 0, 9, 9), abstained=True)) == "unsure"
    assert name_face(make_face((0, 0, 9, 9), track=3)) == "#3 happy 84 %"


def test_original_stays_and_box_has_the_emotions_colour():
    image = np.full((200, 300, 3), 128, np.uint8)
    drawn = draw_faces(image, [make_face((100, 60, 80, 100))])
    assert (image == 128).all()
    assert tuple(drawn[120, 100]) == EMOTION_COLOURS["happy"]
    assert (drawn[110:120, 130:140] == 128).all()  # the face itself is left alone


@settings(max_examples=60, deadline=None)
@given(
    size=st.tuples(st.integers(8, 300), st.integers(8, 300)),
    corner=st.tuples(st.floats(0, 0.99), st.floats(0, 0.99)),
    extent=st.tuples(st.floats(0.001, 1), st.floats(0.001, 1)),
    blur=st.booleans(),
)
def test_any_box_inside_any_picture_can_be_drawn(size, corner, extent, blur):
    width, height = size
    left, top = int(corner[0] * width), int(corner[1] * height)
    box = (left, top, max(1, int(extent[0] * (width - left))), max(1, int(extent[1] * (height - top))))
    image = np.zeros((height, width, 3), np.uint8)
    drawn = draw_faces(image, [make_face(box, track=12)], blur=blur)
    assert drawn.shape == image.shape
    assert drawn.dtype == np.uint8
    assert drawn.any()


def test_blurred_face_keeps_nothing_finer_than_a_third_of_it():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (400, 400, 3), dtype=np.uint8)
    inside = np.s_[130:270, 130:270]
    hidden = draw_faces(image, [make_face((120, 120, 160, 160))], blur=True)[inside].astype(float)
    steps = np.abs(np.diff(hidden, axis=0)).max(), np.abs(np.diff(hidden, axis=1)).max()
    assert max(steps) <= 3  # grey levels between neighbours; noise has up to 255
    assert np.corrcoef(hidden.ravel(), image[inside].ravel().astype(float))[0, 1] < 0.1


def test_blur_hides_the_margin_around_the_box_too():
    image = np.random.default_rng(0).integers(0, 256, (400, 400, 3), dtype=np.uint8)
    hidden = draw_faces(image, [make_face((150, 150, 100, 100))], blur=True)
    assert (hidden[130:145, 240:260] != image[130:145, 240:260]).any(axis=2).mean() > 0.9


def test_detector_finds_no_face_in_what_is_hidden():
    recognizer = Recognizer.load()
    for n_faces, width in ((1, 360), (8, None)):  # a large face keeps most pixels
        image, _ = draw_scene(n_faces, face_width=width)
        faces = recognizer(image)
        assert len(faces) == n_faces
        assert recognizer(draw_faces(image, faces, blur=True)) == []


@pytest.mark.parametrize("box", [(0, 0, 60, 60), (580, 0, 60, 60), (0, 420, 60, 60)])
def test_label_stays_inside_the_picture(box):
    image = np.full((480, 640, 3), 128, np.uint8)
    drawn = draw_faces(image, [make_face(box, "surprise", track=12)])
    ground = (drawn == EMOTION_COLOURS["surprise"]).all(axis=2)
    centre = draw_faces(image, [make_face((290, 210, 60, 60), "surprise", track=12)])
    expected = (centre == EMOTION_COLOURS["surprise"]).all(axis=2)
    # The label covers as much as it does in the middle; a third of it outside would show.
    assert ground.sum() > 0.8 * expected.sum()


def test_label_of_a_face_as_high_as_the_picture_is_in_it():
    drawn = draw_faces(np.zeros((480, 640, 3), np.uint8), [make_face((100, 0, 400, 480))])
    assert (drawn[8:20, 110:150] == EMOTION_COLOURS["happy"]).all(axis=2).mean() > 0.3


def test_colours_are_those_of_the_figures():
    assert {name: COLOURS[name] for name in EMOTION_COLOURS} == {
        name: "#{:02X}{:02X}{:02X}".format(*colour) for name, colour in EMOTION_COLOURS.items()
    }
    assert EMOTION_COLOURS.keys() == GROUP_OF.keys()


@pytest.mark.parametrize("emotion", EMOTIONS_8)
def test_label_text_stands_out_from_its_ground(emotion):
    def luminance(colour):
        linear = [((c / 255 + 0.055) / 1.055) ** 2.4 if c > 10 else c / 255 / 12.92 for c in colour]
        return float(np.dot(linear, [0.2126, 0.7152, 0.0722])) + 0.05

    ground, ink = luminance(EMOTION_COLOURS[emotion]), luminance(choose_ink(EMOTION_COLOURS[emotion]))
    assert max(ground, ink) / min(ground, ink) >= 4.5  # WCAG 2.2, AA
