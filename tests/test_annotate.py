import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from demo_faces.clips import draw_scene
from fer_lib.inference.annotate import UNSURE_COLOUR, choose_ink, draw_faces, name_face, place_labels
from fer_lib.inference.faces import Face
from fer_lib.inference.recognizer import Recognizer
from fer_lib.inference.tracking import TrackedFace
from fer_lib.labels import EMOTIONS_8, GROUP_OF
from fer_lib.palette import EMOTION_COLOURS


def to_rgb(colour):
    return tuple(bytes.fromhex(colour[1:]))


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
        turned=0,
        crop=np.zeros((48, 48), np.uint8),
        **more,
    )


def test_names_say_emotion_confidence_doubt_and_track():
    assert name_face(make_face((0, 0, 9, 9))) == "happy 84%"
    assert name_face(make_face((0, 0, 9, 9), abstained=True)) == "unsure 84%"
    assert name_face(make_face((0, 0, 9, 9), track=3)) == "#3 happy 84%"


def test_original_stays_and_box_has_the_emotions_colour():
    image = np.full((200, 300, 3), 128, np.uint8)
    drawn = draw_faces(image, [make_face((100, 60, 80, 100))])
    assert (image == 128).all()
    assert tuple(drawn[120, 100]) == to_rgb(EMOTION_COLOURS["happy"])
    assert (drawn[110:120, 130:140] == 128).all()  # the face itself is left alone


@settings(max_examples=60, deadline=None)
@given(
    size=st.tuples(st.integers(8, 300), st.integers(8, 300)),
    corner=st.tuples(st.floats(0, 0.99), st.floats(0, 0.99)),
    extent=st.tuples(st.floats(0.001, 1), st.floats(0.001, 1)),
    blur=st.booleans(),
)
def test_any_box_inside_any_image_can_be_drawn(size, corner, extent, blur):
    width, height = size
    left, top = int(corner[0] * width), int(corner[1] * height)
    box = (left, top, max(1, int(extent[0] * (width - left))), max(1, int(extent[1] * (height - top))))
    image = np.zeros((height, width, 3), np.uint8)
    drawn = draw_faces(image, [make_face(box, track=12)], blur=blur)
    assert drawn.shape == image.shape
    assert drawn.dtype == np.uint8
    assert drawn.any()


def test_blurred_face_keeps_nothing_finer_than_a_third_of_it():
    image = np.random.default_rng(0).integers(0, 256, (400, 400, 3), dtype=np.uint8)
    hidden = draw_faces(image, [make_face((120, 120, 160, 160))], blur=True)[130:270, 130:270]
    assert len(np.unique(hidden.reshape(-1, 3), axis=0)) <= 16  # cells that meet in the box
    # Averages of a cell, not single pixels: those of noise, whose deviation is 74, vary by 74 / 50.
    assert hidden.astype(float).std() < 5


def test_blur_hides_the_margin_around_the_box_too():
    image = np.random.default_rng(0).integers(0, 256, (400, 400, 3), dtype=np.uint8)
    hidden = draw_faces(image, [make_face((150, 150, 100, 100))], blur=True)
    assert (hidden[130:145, 240:260] != image[130:145, 240:260]).any(axis=2).mean() > 0.9


def test_detector_finds_no_face_in_what_is_hidden():
    recognizer = Recognizer()
    for n_faces, width in ((1, 360), (8, None)):  # a large face keeps most pixels
        image, _ = draw_scene(n_faces, face_width=width)
        faces = recognizer(image)
        assert len(faces) == n_faces
        assert recognizer(draw_faces(image, faces, blur=True)) == []


@pytest.mark.parametrize("box", [(0, 0, 60, 60), (580, 0, 60, 60), (0, 420, 60, 60)])
def test_label_stays_inside_the_image(box):
    image = np.full((480, 640, 3), 128, np.uint8)
    drawn = draw_faces(image, [make_face(box, "surprise", track=12)])
    ground = (drawn == to_rgb(EMOTION_COLOURS["surprise"])).all(axis=2)
    centre = draw_faces(image, [make_face((290, 210, 60, 60), "surprise", track=12)])
    expected = (centre == to_rgb(EMOTION_COLOURS["surprise"])).all(axis=2)
    # The label covers as much as it does in the middle; a third of it outside would show.
    assert ground.sum() > 0.8 * expected.sum()


def test_label_of_a_face_as_high_as_the_image_is_in_it():
    drawn = draw_faces(np.zeros((480, 640, 3), np.uint8), [make_face((100, 0, 400, 480))])
    assert (drawn[8:20, 110:150] == to_rgb(EMOTION_COLOURS["happy"])).all(axis=2).mean() > 0.3


def count_overlaps(boxes):
    """Return how many pairs of boxes share a pixel."""
    low = np.maximum(boxes[:, None, :2], boxes[:, :2])
    high = np.minimum(boxes[:, None, 2:], boxes[:, 2:])
    return int(np.triu((high > low).all(axis=2), k=1).sum())


@settings(max_examples=60, deadline=None)
@given(
    boxes=st.lists(
        st.tuples(st.integers(0, 560), st.integers(0, 400), st.integers(20, 200)), min_size=1, max_size=12
    ),
    size=st.tuples(st.integers(60, 160), st.integers(12, 30)),  # twelve of the largest fill a fifth
)
def test_no_label_covers_another_and_all_are_inside(boxes, size):
    faces = np.array([(x, y, x + side, y + side) for x, y, side in boxes])
    labels = place_labels(np.tile(size, (len(faces), 1)), faces, (640, 480))
    assert count_overlaps(labels) == 0
    assert labels.min() >= 0
    assert (labels[:, 2:] <= (640, 480)).all()
    assert (labels[:, 2:] - labels[:, :2] == size).all()


def test_labels_of_a_full_image_stay_inside():
    labels = place_labels(np.full((9, 2), 50), np.tile([10, 10, 40, 40], (9, 1)), (60, 60))
    assert labels.min() >= 0
    assert labels.max() <= 60


def test_label_covers_no_other_face_where_it_need_not():
    faces = np.array([(100, 200, 180, 300), (100, 90, 180, 196)])  # one right above the other
    labels = place_labels(np.tile([90, 20], (2, 1)), faces, (640, 480))
    low, high = np.maximum(labels[:, :2], faces[::-1, :2]), np.minimum(labels[:, 2:], faces[::-1, 2:])
    assert not (high > low).all(axis=1).any()


def test_labels_of_a_crowd_are_all_drawn_whole():
    image, placed = draw_scene(12)
    names = (*EMOTIONS_8, *EMOTIONS_8)
    boxes = [tuple(map(int, place.box)) for place in placed]
    faces = [make_face(box, name, track=9) for box, name in zip(boxes, names, strict=False)]
    together = draw_faces(image, faces)
    for face in faces:
        colour = to_rgb(EMOTION_COLOURS[face.label])
        alone = draw_faces(image, [face])
        n_pixels = (alone == colour).all(axis=2).sum()
        assert (together == colour).all(axis=2).sum() >= n_pixels


def test_every_emotion_has_a_colour_of_its_own():
    assert EMOTION_COLOURS.keys() == GROUP_OF.keys()
    assert len({*EMOTION_COLOURS.values(), UNSURE_COLOUR}) == len(EMOTION_COLOURS) + 1


@pytest.mark.parametrize("emotion", EMOTIONS_8)
def test_label_text_stands_out_from_its_ground(emotion):
    def luminance(colour):
        linear = [((c / 255 + 0.055) / 1.055) ** 2.4 if c > 10 else c / 255 / 12.92 for c in to_rgb(colour)]
        return float(np.dot(linear, [0.2126, 0.7152, 0.0722])) + 0.05

    ground, ink = luminance(EMOTION_COLOURS[emotion]), luminance(choose_ink(EMOTION_COLOURS[emotion]))
    assert max(ground, ink) / min(ground, ink) >= 4.5  # WCAG 2.2, AA
