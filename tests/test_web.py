"""The page in app/web, built from npm packages and run in a real browser."""

import functools
import itertools
import re
import shutil
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import cv2
import numpy as np
import pytest
from axe import find_violations, skip_offline
from conftest import REPO
from looks import CHROMIUM, OPTIONS, keep_screenshot
from PIL import Image

from app.web.build import RUNTIME, build
from demo_faces.clips import draw_scene
from fer_lib.data.framing import cut_face
from fer_lib.data.images import read_image
from fer_lib.inference.recognizer import Recognizer

pytest.importorskip("playwright.sync_api")
from playwright.sync_api import expect, sync_playwright

PATIENCE = 60_000  # milliseconds: a loaded machine of two cores
EXAMPLES = sorted((REPO / "app" / "examples").glob("*.jpg"))

pytestmark = pytest.mark.skipif(
    not (CHROMIUM and shutil.which("npm")), reason="needs Chromium and npm (`make browser`)"
)


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    with skip_offline():
        return build(tmp_path_factory.mktemp("web") / "dist")


@pytest.fixture(scope="module")
def address(folder):
    """Serve the page in a subfolder, as anyone may host it."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder.parent))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/dist/"
    server.shutdown()


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """Return Chromium with a fake camera, which shows a happy person on the left and a surprised one."""
    camera = tmp_path_factory.mktemp("camera") / "camera.y4m"
    frame = cv2.cvtColor(draw_scene(n_faces=2)[0], cv2.COLOR_RGB2YUV_I420).tobytes()
    camera.write_bytes(b"YUV4MPEG2 W640 H480 F30:1 Ip A1:1 C420jpeg\n" + 2 * (b"FRAME\n" + frame))
    arguments = [
        *("--no-sandbox", "--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"),
        f"--use-file-for-fake-video-capture={camera}",
    ]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser
        browser.close()


@pytest.fixture
def page(browser, address):
    page = browser.new_page(**OPTIONS)
    page.set_default_timeout(PATIENCE)
    errors, asked = [], []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(address)
    wait(page)
    yield page
    page.close()
    assert not errors
    assert all(url.startswith((address, "data:", "blob:")) for url in asked)


def wait(page):
    page.wait_for_selector("#result[aria-busy=false]")


def open_file(page, path):
    page.set_input_files("#file", path)
    wait(page)


def drop_file(page, path):
    script = """([name, bytes]) => {
        const dataTransfer = new DataTransfer();
        dataTransfer.items.add(new File([Uint8Array.from(bytes)], name, { type: "image/jpeg" }));
        document.dispatchEvent(new DragEvent("drop", { dataTransfer }));
    }"""
    page.evaluate(script, [path.name, list(path.read_bytes())])


def read_faces(page):
    """Return the faces that the page shows, with their crops as lists."""
    return page.evaluate("""async () => {
        const { shown } = await import("./main.js");
        return shown.faces.map((face) => ({ ...face, crop: Array.from(face.crop.data) }));
    }""")


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Return ten image files: photographs, also turned and small ones, and drawn scenes."""
    folder = tmp_path_factory.mktemp("images")
    photo = Image.open(REPO / "app" / "examples" / "grace_hopper.jpg")
    made = {
        "on its side.jpg": photo.transpose(Image.Transpose.ROTATE_90),
        "tilted.png": photo.rotate(-24, Image.Resampling.BICUBIC),
        "small.jpg": photo.resize((128, 150)),
        # Faces whose answers are sure: where two are equally likely, int8 kernels decide.
        "one.jpg": Image.fromarray(draw_scene(1, 480, 360, seed=1)[0]),
        "two.png": Image.fromarray(draw_scene(2, 640, 400, seed=2)[0]),
        "three.jpg": Image.fromarray(draw_scene(3, 900, 500, seed=3)[0]),
        "lying.jpg": Image.fromarray(np.rot90(draw_scene(2, 500, 300, seed=9)[0], 3)),
        # More pixels than are searched.
        "large.jpg": Image.fromarray(draw_scene(2, 2000, 1800, face_width=300, seed=2)[0]),
    }
    for name, image in made.items():
        image.save(folder / name, quality=90)
    paths = [*EXAMPLES, *(folder / name for name in made)]
    assert len(paths) == 10
    return paths


def measure_overlap(one, other):
    (ax, ay, aw, ah), (bx, by, bw, bh) = one, other
    across, down = min(ax + aw, bx + bw) - max(ax, bx), min(ay + ah, by + bh) - max(ay, by)
    shared = max(0, across) * max(0, down)
    return shared / (aw * ah + bw * bh - shared)


def test_page_finds_frames_and_names_faces_as_python_does(page, images):
    recognizer = Recognizer()
    seen = []
    for path in images:
        open_file(page, path)
        found, expected, pixels = read_faces(page), recognizer(path), read_image(path)
        answers = page.locator("#faces h2").all_inner_texts()
        assert len(found) == len(expected) == len(answers) > 0, path.name
        for face, wanted, answer in zip(found, expected, answers, strict=True):
            # Measured: the same boxes, and landmarks up to 0.12 pixels apart. The sums of ONNX Runtime here
            # and there differ in their last bits, which can change a pixel of the copy that YuNet sees.
            assert measure_overlap(face["box"], wanted.box) > 0.98
            assert np.abs(np.array(face["landmarks"]) - wanted.landmarks).max() < 0.3
            assert face["turned"] == wanted.turned
            assert ("unsure" if wanted.abstained else f"{wanted.label} ") in answer
            # Measured: 0.002 levels in the mean from the same landmarks, since OpenCV's cubic weights have 15
            # bits; 1.1 from those 0.07 pixels apart, for which the region that is shrunk may differ by a row.
            crop = np.array(face["crop"], np.uint8).reshape(wanted.crop.shape)
            same = cut_face(pixels, np.array(face["landmarks"], np.float32), recognizer.framing)
            assert np.abs(crop - same.astype(int)).mean() < 0.01
            assert np.abs(crop - wanted.crop.astype(int)).mean() < 2
            seen.append((crop, face["probabilities"]))
    crops, probabilities = zip(*seen, strict=True)
    apart = np.abs(recognizer.compute_probabilities(crops) - np.array(probabilities))
    assert np.median(apart.max(axis=1)) < 0.02, "for int8 kernels see below"


def test_networks_say_of_a_crop_what_python_says(page):
    # A deeper int8 network ends elsewhere when one activation rounds the other way: ONNX Runtime's kernels
    # and its reference differ by as much on one machine.
    for variant, most in (("tiny", 1e-3), ("balanced", 1e-2)):
        page.select_option("#variant", variant)
        wait(page)
        (face,) = read_faces(page)
        recognizer = Recognizer(variant=variant)
        crop = np.array(face["crop"], np.uint8).reshape(1, 48, 48)
        assert np.abs(recognizer.compute_probabilities(crop) - face["probabilities"]).max() < most
        score = recognizer.config["variants"][variant]["metrics"]["test.majority.accuracy"]
        assert f"{100 * score:.1f}%" in page.inner_text("#accuracy")


def test_page_resamples_as_opencv_does(page):
    rgb = np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8)
    grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    sizes = [(180, 135), (60, 45), (40, 30), (97, 71)]
    matrix = np.array([[0.8, -0.3, 21.4], [0.3, 0.8, -7.7]])
    script = """async ([pixels, sizes, back]) => {
        const { resize, turn, warp } = await import("./resampling.js");
        const { toGrey } = await import("./preprocessing.js");
        const rgb = { data: Uint8Array.from(pixels), width: 120, height: 90, channels: 3 };
        const grey = toGrey(rgb);
        const resized = sizes.map((size) => resize(rgb, ...size));
        const turned = [1, 2, 3].map((quarters) => turn(rgb, quarters));
        const warped = [warp(rgb, back, 96), warp(grey, back, 96, { cubic: true })];
        return [grey, ...turned, ...resized, ...warped].map(({ data }) => Array.from(data));
    }"""
    *found, cubic = page.evaluate(script, [rgb.ravel().tolist(), sizes, matrix.ravel().tolist()])
    expected = [grey, *(np.rot90(rgb, quarters) for quarters in (1, 2, 3))]
    for size in sizes:
        way = cv2.INTER_LINEAR if size > (120, 90) else cv2.INTER_AREA
        expected.append(cv2.resize(rgb, size, interpolation=way))
    linear, wanted = (
        cv2.warpAffine(
            image, matrix, (96, 96), flags=way | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REPLICATE
        )
        for image, way in ((rgb, cv2.INTER_LINEAR), (grey, cv2.INTER_CUBIC))
    )
    expected.append(linear)
    for one, other in zip(found, expected, strict=True):
        assert np.abs(np.array(one) - other.ravel()).max() <= (other.shape == (71, 97, 3))  # sums in 32 bits
    assert np.abs(np.array(cubic) - wanted.ravel()).max() <= 1


def test_labels_of_neighbours_do_not_cover_each_other(page):
    script = """async (boxes) => {
        const { placeLabel } = await import("./view.js");
        const placed = [];
        for (const box of boxes) placed.push(placeLabel([90, 22], box, placed, [300, 200]));
        return placed;
    }"""
    labels = page.evaluate(script, [[20 + 45 * i, 10 + 20 * (i % 2), 40, 50] for i in range(6)])
    assert all(0 <= x <= 210 and 0 <= y <= 178 for x, y, _, _ in labels)
    assert all(measure_overlap(*pair) == 0 for pair in itertools.combinations(labels, 2))


def test_page_tells_of_what_cannot_be_loaded_and_keeps_the_network_that_answers(page):
    page.route("**/drawing.jpg", lambda route: route.fulfill(status=404))
    page.click("#drawing")
    expect(page.locator("#status.error")).to_contain_text("The sample could not be loaded", timeout=PATIENCE)
    page.route("**/*.onnx", lambda route: route.abort())
    usual = page.input_value("#variant")
    page.select_option("#variant", "tiny" if usual != "tiny" else "balanced")
    expect(page.locator("#status.error")).to_contain_text("networks could not be loaded", timeout=PATIENCE)
    assert page.input_value("#variant") == usual
    page.click("#photograph")
    expect(page.locator("#faces > li")).to_have_count(1, timeout=PATIENCE)
    assert page.inner_text("#note") == "Photograph: US Navy, public domain."
    assert page.get_attribute("#result", "aria-busy") == "false"


def test_change_of_the_network_does_not_end_a_search(page):
    held, before = [], page.inner_text("#accuracy")
    page.route("**/photograph.jpg", lambda route: held.append(route))
    page.click("#photograph")
    page.select_option("#variant", "tiny" if page.input_value("#variant") != "tiny" else "balanced")
    expect(page.locator("#accuracy")).not_to_have_text(before, timeout=PATIENCE)
    assert page.inner_text("#status") == "Looking for faces …"
    assert page.get_attribute("#result", "aria-busy") == "true"
    held[0].continue_()
    wait(page)
    expect(page.locator("#faces > li")).to_have_count(1, timeout=PATIENCE)


@pytest.mark.parametrize("pattern", ["**/model.json", "**/model.*.onnx"])
def test_file_from_before_the_networks_are_loaded_is_opened_after(page, images, pattern):
    held = []
    page.route(pattern, lambda route: held.append(route))
    with page.expect_request(pattern):
        page.reload(wait_until="domcontentloaded")
    drop_file(page, next(path for path in images if path.name == "three.jpg"))
    assert page.inner_text("#status") == "Loading the networks …"
    assert page.locator("#file").is_disabled()
    held[0].continue_()
    expect(page.locator("#faces > li")).to_have_count(3, timeout=PATIENCE)
    assert page.locator("#image").evaluate("canvas => [canvas.width, canvas.height]") == [900, 500]
    assert page.inner_text("#note") == ""
    assert page.get_attribute("#result", "aria-busy") == "false"


def test_page_clears_the_answer_and_says_what_is_wrong(page, tmp_path):
    for name, answer in (
        ("notes.png", "This browser cannot read notes.png as an image. Try a JPEG or PNG file."),
        ("IMG_1.HEIC", "This browser cannot read HEIC, the format of iPhones."),
        ("wall.png", "No face was found. Try an image with faces turned to the camera"),
    ):
        page.click("#photograph")
        expect(page.locator("#faces > li")).to_have_count(1, timeout=PATIENCE)
        if name == "wall.png":
            Image.new("RGB", (160, 120), "tan").save(tmp_path / name)
        else:
            (tmp_path / name).write_text("no image")
        open_file(page, tmp_path / name)
        assert answer in page.inner_text("#status")
        assert page.locator("#faces > li").count() == 0
        assert page.locator("#stage").is_visible() == (name == "wall.png")
        assert not page.inner_text("#speed") or name == "wall.png"
        keep_screenshot(page, f"web_{name.split('.')[0].lower()}")
    assert not find_violations(page)
    page.evaluate(
        "() => { navigator.mediaDevices.getUserMedia = () => Promise.reject(new Error('denied')); }"
    )
    page.click("#camera")
    expect(page.locator("#status")).to_contain_text("The browser gives no camera. Allow it for this page")


def test_camera_is_a_mirror_with_every_face_and_stops(page, images):
    page.click("#camera")
    expect(page.locator("#speed")).to_contain_text("frames per second", timeout=PATIENCE)
    assert (page.locator("#image").is_visible(), page.locator("#video").is_visible()) == (False, True)
    # In the image the happy face is on the left.
    keep_screenshot(page, "web_camera")
    assert [text.split()[:2] for text in page.locator("#faces h2").all_inner_texts()] == [
        *(["1", "surprise"], ["2", "happy"]),
    ]
    first, edge = page.evaluate("""async () => {
        const { shown } = await import("./main.js");
        self.track = document.getElementById("video").srcObject.getTracks()[0];
        const canvas = document.getElementById("boxes");
        const line = canvas.getContext("2d").getImageData(0, canvas.height / 2, canvas.width, 1).data;
        const left = line.findIndex((value, i) => i % 4 === 3 && value) / 4; // opaque, where all else is not
        return [shown.faces[0].box, left / canvas.width];
    }""")
    assert abs(edge - (640 - first[0] - first[2]) / 640) < 0.02
    assert not find_violations(page)
    page.click("#camera")
    assert page.inner_text("#status") == "The camera is off."
    assert page.evaluate("[track.readyState, document.getElementById('video').srcObject]") == ["ended", None]
    assert page.locator("#faces > li").count() == 0
    assert not page.locator("#stage").is_visible()
    page.click("#camera")  # a second time, and a file takes its place
    expect(page.locator("#faces > li")).to_have_count(2, timeout=PATIENCE)
    open_file(page, images[0])
    expect(page.locator("#image")).to_be_visible(timeout=PATIENCE)
    assert page.inner_text("#camera") == "Use camera"


def test_page_is_accessible(page):
    for colours, width in (("dark", 390), ("dark", 1280), ("light", 1280)):
        page.set_viewport_size({"width": width, "height": 844})
        page.emulate_media(color_scheme=colours)
        assert not find_violations(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    for name in ("file", "camera", "photograph", "drawing"):
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.id") == name
    page.keyboard.press("Enter")
    expect(page.locator("#note")).to_contain_text("not made for drawn faces", timeout=PATIENCE)
    assert page.inner_text("#status") == "2 faces: happy, surprise"
    keep_screenshot(page, "web_drawing")
    assert page.locator("[role=status]").get_attribute("id") == "status"
    assert not find_violations(page)


def test_folder_is_small_and_asks_nobody_else(page, folder):
    own = [path for path in folder.iterdir() if path.name not in RUNTIME]
    assert sum(path.stat().st_size for path in own) < 10_000_000
    for path in own:
        if path.suffix in (".html", ".js", ".css"):
            assert not re.search(r"""https?://|["'(]/[^/*]""", path.read_text()), path.name
    policy = page.locator("meta[http-equiv]").get_attribute("content")
    assert "default-src 'self'" in policy
    assert not re.search(r"'unsafe|https?:|\*", policy)
    script = """() => new Promise((resolve) => {
        document.addEventListener("securitypolicyviolation", (event) => resolve(event.violatedDirective));
        fetch("http://127.0.0.1:9/").catch(() => {});
    })"""
    assert page.evaluate(script) == "connect-src"
