"""Run the app: `make app`, or `streamlit run app/main.py`. What it is shown stays in memory, here."""

import sys
from pathlib import Path

import streamlit as st

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:  # Streamlit puts the script's own folder there; the pages import `app.common`
    sys.path.insert(0, str(ROOT))

from app.common import guard, keep_uploads_in_memory  # noqa: E402

# File in `views/` (and address), title, icon: all that a new page needs. The first opens by itself.
PAGES = (
    ("photo", "Photo", ":material/photo_camera:"),
    ("compare", "Compare", ":material/compare:"),
    ("video", "Video", ":material/movie:"),
    ("live", "Live", ":material/videocam:"),
    ("results", "Results", ":material/bar_chart:"),
    ("about", "About this model", ":material/info:"),
)

PRIVACY = "Images stay on this computer, in memory. Nothing is written and nothing is sent."


def show() -> None:
    """Show the menu, and the page that is chosen in it."""
    keep_uploads_in_memory()
    st.set_page_config(page_title="Facial expressions", page_icon="🙂")
    pages = [
        st.Page(f"views/{name}.py", title=title, icon=icon, url_path=name, default=name == PAGES[0][0])
        for name, title, icon in PAGES
    ]
    page = st.navigation(pages)
    with guard():
        page.run()
    st.sidebar.caption(PRIVACY)


show()
