"""The documentation builds without a warning, its links lead somewhere, and it loads nothing from outside."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from html.parser import HTMLParser
from urllib.parse import unquote, urldefrag, urlparse

import pytest
from conftest import REPO

PAGES = sorted(path.relative_to(REPO / "docs") for path in (REPO / "docs").rglob("*.md"))

MARKDOWN = [REPO / "README.md", REPO / "CONTRIBUTING.md"]


class Links(HTMLParser):
    """Collects the anchors of a page, what it links to, and what a browser loads to show it."""

    def __init__(self, text):
        super().__init__()
        self.anchors, self.linked, self.loaded = set(), set(), set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.anchors |= {attrs[key] for key in ("id", "name") if attrs.get(key)}
        if tag == "a" and attrs.get("href"):
            self.linked.add(attrs["href"])
        elif tag != "a" and attrs.get("rel") not in ("canonical", "next", "prev"):
            self.loaded |= {attrs[key] for key in ("src", "href") if attrs.get(key)}


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Return the folder of the site, built beside links to the files of the repository that pages link to."""
    root = tmp_path_factory.mktemp("project")
    shutil.copytree(REPO / "docs", root / "docs")  # links are not followed there
    shutil.copy(REPO / "zensical.toml", root)
    for path in REPO.iterdir():
        if path.name not in (".cache", "docs", "site", "zensical.toml"):
            (root / path.name).symlink_to(path)
    done = subprocess.run(
        [sys.executable, "-m", "zensical", "build", "--strict"],
        cwd=root,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(REPO), os.environ.get("PYTHONPATH", "")])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Warning" not in done.stdout + done.stderr
    return (root / "site").resolve()


def test_every_page_is_in_the_menu():
    def list_pages(entries):
        for entry in entries:
            if isinstance(entry, str):
                yield entry
            else:
                for value in entry.values():
                    yield from [value] if isinstance(value, str) else list_pages(value)

    nav = tomllib.loads((REPO / "zensical.toml").read_text())["project"]["nav"]
    assert sorted(list_pages(nav)) == sorted(map(str, PAGES))


def test_links_of_the_site_lead_to_pages_anchors_and_files_of_the_repository(site):
    pages = {path: Links(path.read_text()) for path in site.rglob("*.html") if path.name != "404.html"}
    assert len(pages) == len(PAGES)
    broken = []
    for page, links in pages.items():
        for link in links.linked | links.loaded:
            target, anchor = urldefrag(link)
            if urlparse(target).scheme:
                continue
            path = (page.parent / unquote(target)).resolve() if target else page
            known = pages[path].anchors if path in pages else None
            if not path.exists() or (anchor and known is not None and unquote(anchor) not in known):
                broken.append(f"{page.relative_to(site)}: {link}")
    assert not broken


def test_a_browser_loads_nothing_from_elsewhere(site):
    for page in site.rglob("*.html"):
        assert not [link for link in Links(page.read_text()).loaded if urlparse(link).netloc]
    assert not [
        path
        for path in site.rglob("*.css")
        if re.search(r"@import|url\(\s*['\"]?(https?:)?//", path.read_text())
    ]


def test_reference_shows_the_signature_every_command_and_every_setting(site):
    # Each is read from the code, and a directive that is not understood would stay as text.
    python = (site / "reference/python.html").read_text()
    for name in ("Recognizer", "Face", "analyse_video", "Bootstrap", "compare_mcnemar"):
        assert re.search(rf'<h\d id="fer_lib\.[\w.]*\b{name}"', python)
    from fer_lib.cli.main import fer
    from fer_lib.param_sections import TrainingParams

    commands = Links((site / "reference/command-line.html").read_text()).anchors
    assert {f"fer-{name}" for name in fer.commands} <= commands
    parameters = (site / "reference/parameters.html").read_text()
    assert all(f"<td><code>{name}</code></td>" in parameters for name in TrainingParams.model_fields)
    for path in site.rglob("*.html"):
        assert not re.search(r"<p>(:::|\[settings\]|--8&lt;--)", path.read_text())


@pytest.mark.parametrize("path", [*MARKDOWN, *(REPO / "docs" / page for page in PAGES)], ids=lambda p: p.name)
def test_links_of_the_sources_lead_somewhere_too(path):
    # As a reader of the repository follows them, who has not built the site.
    text = re.sub(r"(?ms)^```.*?^```$|`[^`\n]+`", "", path.read_text())
    for link in re.findall(r"\]\(([^)\s]+)\)|src=\"([^\"]+)\"", text):
        target, anchor = urldefrag("".join(link))
        if urlparse(target).scheme:
            continue
        found = (path.parent / unquote(target)).resolve() if target else path
        assert found.exists(), target
        if anchor and found.suffix == ".md":
            headings = re.findall(r"(?m)^#+ (.+)$", found.read_text())
            assert anchor in {re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in headings}
