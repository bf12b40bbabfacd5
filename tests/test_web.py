"""The page in app/web, built from npm packages and run in a real browser."""

import functools
import json
import re
import shutil
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import cv2
import numpy as np
import pytest

from fer_lib.errors import FerError
from fer_lib.inference.recognizer import Recognizer

pytest.importorskip("playwright.sync_api")
from playwright.sync_api import sync_playwright

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")

pytestmark = pytest.mark.skipif(
    not (CHROMIUM and shutil.which("npm")), reason="needs Chromium and npm (`make browser`)"
)


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    from app.web.build import build

    try:
        return build(tmp_path_factory.mktemp("web") / "dist")
    except FerError as error:
        if re.search("ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ETIMEDOUT", str(error)):
            pytest.skip(f"npm's registry does not answer: {error}")
        raise


@pytest.fixture(scope="module")
def address(folder):
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()


@pytest.fixture
def page(address):
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page()
        page.errors, page.asked = [], []
        page.on("pageerror", lambda error: page.errors.append(str(error)))
        page.on("request", lambda request: page.asked.append(request.url))
        page.goto(address)
        yield page
        assert not page.errors
        assert all(url.startswith((address, "data:", "blob:")) for url in page.asked)
        browser.close()


def read_probabilities(page, variant):
    """Return what the page says once it says something of `variant`."""
    page.evaluate("delete document.body.dataset.probabilities")
    page.select_option("#variant", variant)
    if page.input_value("#variant") == variant:
        page.click("#example")  # choosing what is chosen already changes nothing
    page.wait_for_selector("body[data-probabilities]", timeout=60_000)
    return np.array(json.loads(page.evaluate("document.body.dataset.probabilities")))


# A deeper int8 network ends elsewhere when one activation rounds the other way: ONNX Runtime's kernels and
# its reference differ by as much on one machine.
@pytest.mark.parametrize(("variant", "most"), [("tiny", 1e-3), ("balanced", 1e-2)])
def test_page_says_what_python_says(page, folder, variant, most):
    page.wait_for_selector("body[data-probabilities]", timeout=60_000)
    found = read_probabilities(page, variant)
    (emotion,) = Recognizer.load(variant=variant).classify([folder / "example.png"])
    assert np.abs(found - list(emotion.probabilities.values())).max() < most
    assert emotion.label in page.inner_text("#answer")
    assert "frames per second" in page.inner_text("#speed")


def test_page_shrinks_and_enlarges_as_opencv_does(page):
    page.wait_for_selector("body[data-probabilities]", timeout=60_000)
    rgb = np.random.default_rng(0).integers(0, 256, (192, 192, 3), np.uint8)
    rgba = np.dstack([rgb, np.full((192, 192), 255, np.uint8)])
    script = """async ([pixels, sizes]) => {
        const { toGrey, shrink, enlarge } = await import("./preprocessing.js");
        const grey = toGrey(Uint8Array.from(pixels));
        const face = shrink(grey, 192, 4);
        return [grey, face, ...sizes.map((size) => enlarge(face, 48, size))].map((part) => Array.from(part));
    }"""
    grey, face, *large = page.evaluate(script, [rgba.ravel().tolist(), [64, 112]])
    expected = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    assert np.array_equal(grey, expected.ravel())
    small = cv2.resize(expected, (48, 48), interpolation=cv2.INTER_AREA)
    assert np.array_equal(face, small.ravel())
    for size, found in zip((64, 112), large, strict=True):
        resized = cv2.resize(small, (size, size), interpolation=cv2.INTER_LINEAR)
        assert np.array_equal(found, resized.ravel())


def test_file_that_is_no_image_is_told(page, tmp_path):
    page.wait_for_selector("body[data-probabilities]", timeout=60_000)
    (tmp_path / "notes.png").write_text("no image")
    page.set_input_files("#file", tmp_path / "notes.png")
    page.get_by_text("This file is no image that the browser can read.").wait_for(timeout=10_000)
