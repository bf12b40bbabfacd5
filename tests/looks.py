"""How a page is looked at: LOOK=light, dark or telephone; SCREENSHOTS=folder keeps what is seen on the way.

`make walk` goes through all tests in a browser once for each look.
"""

import os
import shutil
from pathlib import Path

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
"""The browser, or None where there is none."""

DESK, TELEPHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
LOOKS = {
    "light": {"color_scheme": "light", "viewport": DESK},
    "dark": {"color_scheme": "dark", "viewport": DESK},
    "telephone": {"color_scheme": "dark", "viewport": TELEPHONE},
}
LOOK = os.environ.get("LOOK", "light")
OPTIONS = LOOKS[LOOK]
"""Of a page or context of Playwright."""

TALLEST = 6000
"""Pixels of a screenshot; what is below is left out."""


def keep_screenshot(page, name):
    """Write `<SCREENSHOTS>/<name>_<LOOK>.png` of the whole page, where a folder is given."""
    folder = os.environ.get("SCREENSHOTS")
    if not folder:
        return
    Path(folder).mkdir(parents=True, exist_ok=True)
    size = page.viewport_size
    # Streamlit scrolls inside the page, so that the page itself is never taller than the window.
    height = page.evaluate("(document.querySelector('[data-testid=stMain]') ?? document.body).scrollHeight")
    page.set_viewport_size({"width": size["width"], "height": min(max(height, size["height"]), TALLEST)})
    page.wait_for_timeout(500)
    page.screenshot(path=Path(folder) / f"{name}_{LOOK}.png")
    page.set_viewport_size(size)
