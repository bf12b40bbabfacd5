"""The app in a real browser, with a fake camera: every page is opened and used as a visitor would.

`make test` installs Chromium where it can; without a browser these tests are skipped.
"""

import base64
import io
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import zipfile
from pathlib import Path

import cv2
import pillow_heif
import pytest
from axe import SERIOUS, find_violations
from conftest import REPO
from looks import CHROMIUM, DESK, LOOK, OPTIONS, TELEPHONE, keep_screenshot
from PIL import Image
from playwright.sync_api import expect, sync_playwright

from app.video_analysis import draw_demo
from demo_faces.clips import draw_clip, draw_scene
from fer_lib.inference.video_reader import VideoReader

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on the PATH")

pillow_heif.register_heif_opener()

SECONDS = 1000
PATIENCE = 60 * SECONDS  # a loaded machine of two cores also runs the server, the network and the browser
IS_DARK = """wanted => {
    const colour = getComputedStyle(document.querySelector(".stApp")).backgroundColor;
    return wanted === Math.max(...colour.match(/\\d+/g).slice(0, 3)) < 128;
}"""
"""Whether the app's background is dark, or else light."""
SETTLED = """() => !document.querySelector('[data-stale="true"]') && document.getAnimations().every(
    ({ playState, effect }) => playState !== "running" || effect.getTiming().iterations === Infinity)"""
EXAMPLES = sorted((REPO / "app" / "examples").glob("*.jpg"))
PAGES = {
    "photo": "Photo",
    "compare": "Compare",
    "video": "Video",
    "live": "Live",
    "results": "Results",
    "about": "About this model",
}
HEADINGS = PAGES | {"photo": "Facial expressions"}


@pytest.fixture(scope="module")
def address():
    """Start the app as `make app` does, on a free port; return its address."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "streamlit", "run", "app/main.py", "--server.port", str(port)]
    with subprocess.Popen(command, cwd=REPO, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        url = f"http://localhost:{port}"
        for _ in range(120):
            try:
                urllib.request.urlopen(f"{url}/_stcore/health", timeout=1).close()
                break
            except (urllib.error.URLError, OSError):
                time.sleep(0.5)
        yield url
        server.terminate()


@pytest.fixture(scope="module")
def browser(tmp_path_factory, record_testsuite_property):
    """Return Chromium with a fake camera that shows a drawn clip. `make record` keeps its version."""
    camera = tmp_path_factory.mktemp("camera") / "camera.y4m"
    with camera.open("wb") as file:
        file.write(b"YUV4MPEG2 W640 H480 F30:1 Ip A1:1 C420jpeg\n")
        for image in draw_clip(30):
            file.write(b"FRAME\n" + cv2.cvtColor(image, cv2.COLOR_RGB2YUV_I420).tobytes())
    arguments = [
        "--no-sandbox",
        "--use-fake-ui-for-media-stream",
        "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-video-capture={camera}",
        "--disable-features=WebRtcHideLocalIpsWithMdns",
    ]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        record_testsuite_property("browser", f"Chromium {browser.version}")
        yield browser
        browser.close()


@pytest.fixture
def page(browser, address):
    """Return a fresh page; afterwards, check that nothing was asked of another computer."""
    context = browser.new_context(permissions=["camera", "microphone"], base_url=address, **OPTIONS)
    context.set_default_timeout(PATIENCE)
    page = context.new_page()
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    yield page
    context.close()
    outside = [url for url in asked if not url.startswith((address, "data:", "blob:", "about:"))]
    assert not outside


def open_page(page, name):
    page.goto("/" if name == "photo" else f"/{name}")  # the first page is the root
    expect_heading(page, name)


def expect_heading(page, name):
    heading = page.get_by_role("heading", name=HEADINGS[name], exact=True, level=1)
    expect(heading).to_be_visible(timeout=PATIENCE)


def follow(page, title):
    """Choose a page in the menu, which a telephone hides."""
    page.wait_for_selector('[data-testid="stSidebarNavItems"]', state="attached", timeout=PATIENCE)
    menu = page.get_by_test_id("stExpandSidebarButton")
    if menu.is_visible():
        menu.click()
    page.get_by_role("link", name=title).click()
    if LOOK == "telephone":  # where it lies over the page
        page.get_by_test_id("stSidebarCollapseButton").get_by_role("button").click()


def wait_until_done(page):
    """Wait until Streamlit has run the script to its end."""
    page.wait_for_selector('[data-testid="stApp"][data-test-script-state="notRunning"]', timeout=PATIENCE)


def find_barriers(page):
    """Return serious violations of axe-core's rules, once nothing fades in or out: it would be too faint."""
    wait_until_done(page)
    page.wait_for_function(SETTLED, timeout=PATIENCE)
    return find_violations(page, SERIOUS)


def expect_no_trace(page):
    text = page.locator("body").inner_text()
    assert "Traceback" not in text
    assert 'File "' not in text


def encode(image, kind):
    out = io.BytesIO()
    Image.fromarray(image).save(out, kind)
    return out.getvalue()


def upload(page, name, content, mime="image/jpeg"):
    page.locator('input[type="file"]').first.set_input_files(
        {"name": name, "mimeType": mime, "buffer": content}
    )


def paste(field, name, content):
    """Paste a file into a field, as Ctrl+V after copying an image does, and send it."""
    field.evaluate(
        """(field, [name, content]) => {
            const clipboardData = new DataTransfer();
            const bytes = Uint8Array.from(atob(content), each => each.charCodeAt(0));
            clipboardData.items.add(new File([bytes], name, { type: "image/png" }));
            field.dispatchEvent(new ClipboardEvent("paste", { clipboardData, bubbles: true }));
        }""",
        [name, base64.b64encode(content).decode()],
    )
    expect(field.page.get_by_text(name)).to_be_visible(timeout=PATIENCE)
    # Enter does nothing while the file is still uploaded; the button says when it is.
    expect(field.page.get_by_role("button", name="Send message")).to_be_enabled(timeout=PATIENCE)
    field.press("Enter")


def test_photo_names_the_faces_explains_one_and_hands_out_files(page):
    open_page(page, "photo")
    upload(page, "two.jpg", encode(draw_scene(2)[0], "JPEG"))
    expect(page.get_by_text("two.jpg: 2 faces")).to_be_visible(timeout=PATIENCE)
    with page.expect_download(timeout=PATIENCE) as download:
        page.get_by_role("button", name="Download the table (CSV)").click()
    assert Path(download.value.path()).read_text().count("\n") == 3
    with page.expect_download(timeout=PATIENCE) as download:
        page.get_by_role("button", name="Download the image (JPEG)").click()
    assert Image.open(download.value.path()).size == (640, 480)
    page.get_by_text("Show which parts of a face speak for an emotion").click()
    expect(page.get_by_text("What speaks for")).to_be_visible(timeout=PATIENCE)
    keep_screenshot(page, "photo_two_faces")
    for name in ("about", "photo"):
        follow(page, PAGES[name])
        expect(page.get_by_role("heading", name=HEADINGS[name], level=1)).to_be_visible(timeout=PATIENCE)
        wait_until_done(page)
    expect(page.get_by_text("What speaks for")).to_be_visible(timeout=PATIENCE)  # as it was left
    page.get_by_role("button", name="Remove").click()
    expect(page.get_by_text("two.jpg")).to_have_count(0, timeout=PATIENCE)
    paste(page.get_by_placeholder("Or paste an image here"), "pasted.png", encode(draw_scene(1)[0], "PNG"))
    expect(page.get_by_text("pasted.png: 1 face")).to_be_visible(timeout=PATIENCE)
    expect_no_trace(page)


def test_many_images_become_a_gallery_a_table_and_an_archive(page):
    open_page(page, "photo")
    page.get_by_role("radiogroup", name="Image from").get_by_text("Many files").click()
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("holiday/two.heic", encode(draw_scene(2)[0], "HEIF"))
        archive.writestr("holiday/notes.txt", "no image")
    files = {"holiday.zip": packed.getvalue(), "broken.jpg": b"no image"}
    files |= {path.name: path.read_bytes() for path in EXAMPLES}
    given = [{"name": name, "mimeType": "", "buffer": content} for name, content in files.items()]
    page.locator('input[type="file"][multiple]').first.set_input_files(given)
    page.get_by_role("button", name=re.compile("Analyse 4 images")).click()
    expect(page.get_by_text("broken.jpg").last).to_be_visible(timeout=PATIENCE)
    expect(page.get_by_role("button", name="Table (JSON)")).to_be_visible(timeout=PATIENCE)
    assert not find_barriers(page)
    keep_screenshot(page, "photo_many")
    with page.expect_download(timeout=PATIENCE) as download:
        page.get_by_role("button", name="Table (CSV)").click()
    assert Path(download.value.path()).read_text().count("\n") == 5  # a head and four faces
    with page.expect_download(timeout=PATIENCE) as download:
        page.get_by_role("button", name="Images (ZIP)").click()
    assert len(zipfile.ZipFile(download.value.path()).namelist()) == 3
    expect_no_trace(page)


def test_faces_models_and_thresholds_are_compared(page):
    open_page(page, "compare")
    expect(page.get_by_text("answer happy.")).to_be_visible(timeout=PATIENCE)
    keep_screenshot(page, "compare_models")
    for view in ("Two images", "Thresholds"):
        page.get_by_role("radiogroup", name="What to compare").get_by_text(view).click()
        wait_until_done(page)
        expect_no_trace(page)
        assert not find_barriers(page)
        keep_screenshot(page, f"compare_{view}".lower().replace(" ", "_"))
    of_faces = page.get_by_text(re.compile(r"Of 1,000 faces it names an emotion in \d+"))
    before = of_faces.inner_text()
    page.get_by_role("slider", name="Threshold").press("End")
    expect(of_faces).not_to_have_text(before, timeout=PATIENCE)


def test_photo_that_is_none_gets_a_sentence(page):
    open_page(page, "photo")
    for name, content, words in (
        ("game.jpg", b"MZ\x90\x00" + bytes(2000), "expected an image"),
        ("cut.png", encode(draw_scene(1)[0], "PNG")[:20_000], "damaged"),
        ("wall.png", encode(draw_scene(0)[0], "PNG"), "No face was found"),
        ("empty.png", b"", "expected an image"),
    ):
        upload(page, name, content)
        expect(page.get_by_text(words).first).to_be_visible(timeout=PATIENCE)
        expect_no_trace(page)
        keep_screenshot(page, f"photo_{Path(name).stem}")


def test_video_is_analysed_played_and_handed_out(page):
    open_page(page, "video")
    upload(page, "clip.mp4", draw_demo(), "video/mp4")
    page.get_by_role("button", name="Analyse the video").click()
    with page.expect_download(timeout=2 * PATIENCE) as download:
        page.get_by_role("button", name="Download the table (CSV)").click(timeout=2 * PATIENCE)
    assert Path(download.value.path()).read_text().startswith("time,frame,track,left,top,width,height")
    page.wait_for_function("document.querySelector('video')?.readyState >= 2", timeout=PATIENCE)
    timeline = page.get_by_role("slider", name="Emotions over time")
    timeline.click(position={"x": 0.6 * timeline.bounding_box()["width"], "y": 20})  # of five seconds
    page.wait_for_function(
        "Math.abs(document.querySelector('video').currentTime - 3) < 0.2", timeout=PATIENCE
    )
    expect(timeline).to_have_attribute("aria-valuetext", re.compile(r"0:0[23]\.\d"), timeout=PATIENCE)
    expect(page.get_by_text(re.compile(r"0:0[23]\.\d · #1: \w+ \d+"))).to_be_visible(timeout=PATIENCE)
    keep_screenshot(page, "video_at_three_seconds")
    assert not find_barriers(page)
    timeline.press("Home")
    page.wait_for_function("document.querySelector('video').currentTime === 0", timeout=PATIENCE)
    shown = page.locator("video")
    clear = shown.get_attribute("src")
    blur = page.locator("label", has_text="Blur faces")
    blur.click()
    expect(shown).not_to_have_attribute("src", clear, timeout=PATIENCE)
    blur.click()
    expect(shown).to_have_attribute("src", clear, timeout=PATIENCE)
    expect_no_trace(page)


def test_live_connects_plays_and_counts_frames(page):
    open_page(page, "live")
    deadline = time.monotonic() + PATIENCE / SECONDS
    start = page.frame_locator("iframe").get_by_role("button", name="Start the camera")
    start = start.or_(page.get_by_role("button", name="Start the camera")).first
    start.wait_for(timeout=PATIENCE)
    while True:  # as a person does: on a loaded machine a click can fall while the page rerenders
        if start.is_visible():
            start.click()
        try:
            expect(page.get_by_text("The camera is on.")).to_be_visible(timeout=15 * SECONDS)
            break
        except AssertionError:
            assert time.monotonic() < deadline, "the camera does not start"
    analysed = page.get_by_text("frames analysed")
    expect(analysed).to_be_visible(timeout=PATIENCE)
    page.wait_for_function(
        """() => [...document.querySelectorAll('video'), ...[...document.querySelectorAll('iframe')]
            .flatMap(frame => [...frame.contentDocument?.querySelectorAll('video') ?? []])]
            .some(video => video.readyState >= 2 && video.getVideoPlaybackQuality().totalVideoFrames > 20)""",
        timeout=PATIENCE,
    )
    first = int(analysed.inner_text().split()[0].replace(",", ""))
    expect(analysed).not_to_contain_text(f"{first:,} frames", timeout=PATIENCE)
    page.get_by_role("button", name="Record", exact=True).click()
    expect(page.get_by_text(re.compile(r"Recording: 0:0[1-9]"))).to_be_visible(timeout=PATIENCE)
    expect(page.get_by_text(re.compile(r"now · #1: \w+ \d+"))).to_be_visible(timeout=PATIENCE)
    keep_screenshot(page, "live_recording")
    assert not find_barriers(page)
    page.get_by_role("button", name="Stop recording").click()
    expect(page.get_by_text("Recorded: ")).to_be_visible(timeout=PATIENCE)
    follow(page, "About this model")
    expect(page.locator("iframe")).to_have_count(0, timeout=PATIENCE)  # so the camera is off
    follow(page, "Live")
    expect(page.get_by_text("The camera is off.")).to_be_visible(timeout=PATIENCE)
    with page.expect_download(timeout=PATIENCE) as download:
        page.get_by_role("button", name="Download the video (MP4)").click()
    with VideoReader(Path(download.value.path())) as reader:
        assert reader.info.width == 640
        assert len(list(reader)) > 1
    expect_no_trace(page)


def test_live_offers_snapshots(page):
    open_page(page, "live")
    page.locator("label", has_text="Use snapshots instead").click()
    # A person takes the photo when they see themselves; before the first frame the button does nothing.
    page.wait_for_function("() => document.querySelector('video')?.readyState >= 2", timeout=PATIENCE)
    page.get_by_role("button", name="Take Photo").click()
    expect(page.get_by_text("1 face found")).to_be_visible(timeout=PATIENCE)
    keep_screenshot(page, "live_snapshot")
    assert not find_barriers(page)


def test_results_and_card_are_shown_and_accessible(page):
    def check(name):
        wait_until_done(page)
        expect_no_trace(page)
        keep_screenshot(page, name)
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            assert not find_barriers(page), scheme
        page.emulate_media(color_scheme=OPTIONS["color_scheme"])

    open_page(page, "results")
    for view, heading in {
        "Models": "Models side by side",
        "Findings": "4 · Evaluation",
        "Two versions": "Headline numbers",
    }.items():
        page.get_by_role("radiogroup", name="Show").get_by_text(view, exact=True).click()
        expect(page.get_by_role("heading", name=heading, exact=True)).to_be_visible(timeout=PATIENCE)
        check(f"results_{view}".lower().replace(" ", "_"))
    open_page(page, "about")
    expect(page.get_by_text("AI Act").first).to_be_visible(timeout=PATIENCE)
    page.get_by_text("The whole model card").click()
    expect(page.get_by_role("heading", name="What they score")).to_be_visible(timeout=PATIENCE)
    check("about_card")


def test_menu_leads_to_pages_that_fit_a_telephone_and_follow_the_theme(page):
    page.goto("/")
    for name, title in PAGES.items():
        follow(page, title)
        if name == "live":  # its component draws the page once more when it is there
            expect(page.frame_locator("iframe").get_by_role("button").first).to_be_visible(timeout=PATIENCE)
        expect_heading(page, name)
        if name == "photo":
            page.get_by_role("radiogroup", name="Image from").get_by_text("An example").click()
            expect(page.get_by_text("Eileen Collins: 1 face")).to_be_visible(timeout=PATIENCE)
        if name == "compare":
            expect(page.get_by_text("answer happy.")).to_be_visible(timeout=PATIENCE)
        wait_until_done(page)
        expect_no_trace(page)
        keep_screenshot(page, f"menu_{name}")
        for scheme, size in (("light", DESK), ("dark", TELEPHONE)):
            page.emulate_media(color_scheme=scheme)
            page.set_viewport_size(size)
            page.wait_for_function(IS_DARK, arg=scheme == "dark", timeout=10 * SECONDS)
            # The layout follows the new width a moment later; a page that does not fit stays too wide.
            fits = "document.documentElement.scrollWidth <= window.innerWidth"
            page.wait_for_function(fits, timeout=10 * SECONDS)
            assert not find_barriers(page), (name, scheme)
        page.set_viewport_size(OPTIONS["viewport"])
        page.emulate_media(color_scheme=OPTIONS["color_scheme"])
