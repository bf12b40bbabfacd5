"""The app's live page for half an hour: does its memory grow, does its image fall behind?

    python benchmarks/live.py [--minutes 30]

Chromium (found on the PATH) opens the page Live with a fake camera that repeats a drawn clip of twenty
seconds. Every frame carries its number as a row of black and white squares; it is read from the image
that comes back and, at the same moment, from the camera itself: the difference is the delay. Memory is
that of the server process.
"""

import argparse
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import psutil
from playwright.sync_api import Page, sync_playwright

from demo_faces.clips import draw_clip
from fer_lib.paths import ROOT

WIDTH, HEIGHT, FPS, N_FRAMES = 640, 480, 30, 600
BITS, SQUARE = 10, 32

OPEN_CAMERA = """async () => {
    const video = document.createElement('video');
    video.id = 'camera';
    video.style = 'position: fixed; width: 1px';
    video.srcObject = await navigator.mediaDevices.getUserMedia({video: {width: WIDTH, height: HEIGHT}});
    document.body.append(video);
    await video.play();
}"""

READ_STAMPS = """() => {
    const inside = frame => {
        try { return [...frame.contentDocument.querySelectorAll('video')] } catch { return [] }
    };
    const frames = [...document.querySelectorAll('iframe')];
    const camera = document.getElementById('camera');
    const videos = [...document.querySelectorAll('video'), ...frames.flatMap(inside)];
    const shown = videos.find(video => video !== camera && video.readyState >= 2 && video.videoWidth);
    if (!shown) return null;
    const read = video => {
        const canvas = document.createElement('canvas');
        canvas.width = video.videoWidth; canvas.height = video.videoHeight;
        const context = canvas.getContext('2d');
        context.drawImage(video, 0, 0);
        let number = 0;
        for (let bit = 0; bit < BITS; bit++) {
            const x = (bit + 0.5) * SQUARE / WIDTH * canvas.width, y = 0.5 * SQUARE / HEIGHT * canvas.height;
            number = number * 2 + (context.getImageData(x, y, 1, 1).data[1] > 127 ? 1 : 0);
        }
        return number;
    };
    const now = performance.now() / 1000;
    return [now, read(camera), read(shown), shown.getVideoPlaybackQuality().totalVideoFrames];
}"""
for name, value in (("BITS", BITS), ("SQUARE", SQUARE), ("WIDTH", WIDTH), ("HEIGHT", HEIGHT)):
    OPEN_CAMERA = OPEN_CAMERA.replace(name, str(value))
    READ_STAMPS = READ_STAMPS.replace(name, str(value))


def write_camera(path: Path) -> None:
    """Write the clip that the fake camera shows, as Y4M."""
    with path.open("wb") as file:
        file.write(f"YUV4MPEG2 W{WIDTH} H{HEIGHT} F{FPS}:1 Ip A1:1 C420jpeg\n".encode())
        for number, image in enumerate(draw_clip(N_FRAMES, 1, WIDTH, HEIGHT)):
            for bit in range(BITS):
                image[:SQUARE, bit * SQUARE : (bit + 1) * SQUARE] = 255 * (number >> (BITS - 1 - bit) & 1)
            file.write(b"FRAME\n" + cv2.cvtColor(image, cv2.COLOR_RGB2YUV_I420).tobytes())


def find_free_port() -> int:
    """Return a TCP port of this machine that nothing listens on."""
    with socket.socket() as server:
        server.bind(("localhost", 0))
        return server.getsockname()[1]


def watch(page: Page, server: psutil.Process, minutes: float) -> None:
    """Print a line a minute: memory, frames per second, and the delay from camera to image."""
    memories = []
    print("minute  server MB  frames/s shown  delay, s: median  95 %", flush=True)
    begun = time.monotonic()
    for minute in range(1, round(minutes) + 1):
        delays, shown = [], []
        while time.monotonic() - begun < 60 * minute:
            reading = page.evaluate(READ_STAMPS)
            if reading and max(reading[1:3]) < N_FRAMES:
                now, due, number, n_shown = reading
                delays.append(((due - number + N_FRAMES // 4) % N_FRAMES - N_FRAMES // 4) / FPS)
                shown.append((now, n_shown))
            time.sleep(0.2)
        processes = [server, *server.children(recursive=True)]
        memories.append(sum(process.memory_info().rss for process in processes) / 1e6)
        speed = (shown[-1][1] - shown[0][1]) / (shown[-1][0] - shown[0][0]) if len(shown) > 1 else 0.0
        middle, late = np.percentile(delays, [50, 95]) if delays else (np.nan, np.nan)
        print(f"{minute:6d}  {memories[-1]:9.0f}  {speed:14.1f}  {middle:16.2f}  {late:4.2f}", flush=True)
    tail = memories[len(memories) // 3 :]
    slope = np.polyfit(np.arange(len(tail)), tail, 1)[0] if len(tail) > 2 else np.nan
    print(f"\nmemory over the last two thirds: {tail[0]:.0f} to {tail[-1]:.0f} MB, {slope:+.2f} MB a minute")


def main() -> None:
    """Start the app and a browser, and watch."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=30)
    options = parser.parse_args()
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    port = find_free_port()
    with tempfile.TemporaryDirectory() as folder:
        camera = Path(folder) / "camera.y4m"
        write_camera(camera)
        command = [sys.executable, "-m", "streamlit", "run", "app/main.py", "--server.port", str(port)]
        server = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(
                    executable_path=chromium,
                    args=[
                        "--no-sandbox",
                        "--use-fake-ui-for-media-stream",
                        "--use-fake-device-for-media-stream",
                        f"--use-file-for-fake-video-capture={camera}",
                        "--disable-features=WebRtcHideLocalIpsWithMdns",
                    ],
                )
                page = browser.new_context(permissions=["camera", "microphone"]).new_page()
                for _ in range(60):
                    try:
                        page.goto(f"http://localhost:{port}/live")
                        break
                    except Exception:
                        time.sleep(1)
                page.frame_locator("iframe").get_by_role("button", name="Start the camera").click(
                    timeout=60_000
                )
                page.evaluate(OPEN_CAMERA)
                page.wait_for_function(READ_STAMPS, timeout=60_000)
                watch(page, psutil.Process(server.pid), options.minutes)
                browser.close()
        finally:
            server.terminate()
            server.wait(timeout=20)


if __name__ == "__main__":
    main()
