"""Open the app's pages without a browser and read what they show."""

from conftest import REPO
from streamlit.testing.v1 import AppTest

SECONDS = 60  # a loaded machine; a page takes one

KINDS = ("title", "header", "subheader", "markdown", "caption", "info", "warning", "error", "success", "html")


def open_app():
    """Return the app, opened on its first page."""
    return AppTest.from_file(REPO / "app" / "main.py", default_timeout=SECONDS).run()


def open_page(name):
    """Return the app, opened on a page alone."""
    app = AppTest.from_file(REPO / "app" / "main.py", default_timeout=SECONDS)
    return app.switch_page(f"views/{name}.py").run()


def read_page(app):
    """Return all text of a page in one string, and check that nothing went wrong unseen."""
    assert not app.exception
    return "\n".join(str(element.value) for kind in KINDS for element in getattr(app, kind))


def collect_downloads(monkeypatch, module):
    """Return what the pages of a module will offer: file name to bytes, or to a function that makes them."""
    offered = {}
    monkeypatch.setattr(module, "offer_download", lambda label, data, name, _: offered.update({name: data}))
    return offered
