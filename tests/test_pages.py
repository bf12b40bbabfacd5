"""The committed reports in a real browser: their links, what they offer with JavaScript, and on paper."""

import ast
import re
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlparse

import pytest
from axe import find_violations
from conftest import REPO
from looks import CHROMIUM, OPTIONS, keep_screenshot
from playwright.sync_api import expect, sync_playwright

PAGES = {f"{path.parent.name}/{path.stem}": path for path in sorted(REPO.glob("reports/*/*.html"))}

PAPER = {"width": 688, "height": 1000}
"""Pixels: A4 without the margins that the pages ask for."""

PRIVATE_WORDS = re.compile(
    r"\b(said|rightly|forms|whom|crowds?|twins?|parents?|remed(?:y|ies)|worth|likeness|pictures?|heat maps?|"
    r"perturb\w*|refusals?|coarsen\w*|put_block|hold_hand|faces as they are|faces that are none|"
    r"drawn (?:again|anew)|outside (?:data|images|photographs)|looks on|how much is left|gives away|"
    r"recognises (?:no|little)|what it answers|as far as the intervals tell)\b",
    re.IGNORECASE,
)
"""That the field has other words for, or none."""

PROSE = [
    *(REPO / name for name in ("README.md", "CONTRIBUTING.md")),
    *sorted(REPO.glob("models/release/*/README.md")),
    *sorted(REPO.glob("docs/**/*.md")),
    *sorted(path for pattern in ("*.py", "views/*.py", "web/*.py") for path in REPO.glob(f"app/{pattern}")),
    *sorted(path for suffix in ("html", "js") for path in REPO.glob(f"app/web/*.{suffix}")),
]
"""Files beside the reports that speak to a user."""

DOTTED_KEY = re.compile(r"\b[a-z0-9_]+(?:(?:\.[a-z_]\w*){2,}|\.(?:float32|int8\w*|sparse_\d+))\b")
"""As `test.macro.recall`, the name of a number in a table of the pipeline."""


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip("no Chromium on the PATH")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser):
    page = browser.new_page(**OPTIONS)
    problems = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("requestfailed", lambda request: problems.append(request.url))
    yield page
    assert not problems
    page.close()


def read_text(path):
    """Return what a reader of a page sees without its code, and what stands in code font by itself."""
    text = re.sub(
        r"(?s)<(style|script|pre|details class=\"code\").*?</(?:style|script|pre|details)>",
        " ",
        path.read_text(),
    )
    text = re.sub(r"(?s)<code.*?</code>", " ", text)
    return " ".join(re.sub(r"<[^>]+>", " ", text).split())


def read_prose(path):
    """Return what a file tells a user: strings with a space of Python, and Markdown without `code`."""
    text = path.read_text()
    if path.suffix == ".py":
        strings = [node.value for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Constant)]
        text = "\n".join(value for value in strings if isinstance(value, str) and " " in value)
    elif path.suffix == ".md":
        text = re.sub(r"`[^`]+`", " ", re.sub(r"(?m)^```.*$", "", text))
    return " ".join(text.split())


@pytest.mark.parametrize("name", PAGES)
def test_page_speaks_the_language_of_its_field(name):
    text = read_text(PAGES[name])
    assert not [match.group() for match in PRIVATE_WORDS.finditer(text)]
    assert not [match.group() for match in DOTTED_KEY.finditer(text)]


@pytest.mark.parametrize("path", PROSE, ids=lambda path: path.relative_to(REPO).as_posix())
def test_documents_and_app_speak_the_language_of_the_field(path):
    assert not [match.group() for match in PRIVATE_WORDS.finditer(read_prose(path))]


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_somewhere_everybody_can_read_it_and_it_fits_on_paper(page, name):
    page.goto(PAGES[name].as_uri())
    links = page.eval_on_selector_all("a[href]", "links => links.map(link => link.href)")
    for address in links:
        if urlparse(address).scheme == "file":
            target, anchor = urldefrag(address)
            path = Path(unquote(urlparse(target).path))
            assert path.suffix == ".html", address
            ids = set(re.findall(r'id="([^"]+)"', path.read_text()))
            assert not anchor or ids & {anchor, unquote(anchor)}, address
    if not name.endswith(("/index", "/study")):
        assert any(address.endswith("/index.html") for address in links)
    keep_screenshot(page, name.replace("/", "_"))
    page.evaluate("document.querySelectorAll('details.code').forEach((cell) => cell.remove())")  # not shown
    page.emulate_media(media="print")
    page.set_viewport_size(PAPER)
    cut_off = page.eval_on_selector_all(
        "main *",
        "(all, width) => all.filter(one => one.getBoundingClientRect().right > width + 1).length",
        PAPER["width"],
    )
    assert cut_off == 0
    page.emulate_media(media="screen")
    page.set_viewport_size(OPTIONS["viewport"])
    assert find_violations(page) == []  # last, since it skips the rest where axe-core cannot be installed
    if name.startswith("fer2013/"):  # the others have the same elements
        page.emulate_media(color_scheme="dark")
        assert find_violations(page) == []


@pytest.mark.parametrize("dataset", sorted({path.parent.name for path in PAGES.values()}))
def test_reader_walks_from_page_to_page(page, dataset):
    names = [name for name in PAGES if re.match(rf"{dataset}/\d", name)]
    page.goto(PAGES[names[0]].as_uri())
    expect(page.locator("a[rel=prev]")).to_be_hidden()
    for name in names[1:]:
        page.click("a[rel=next]")
        assert page.url == PAGES[name].as_uri()
    expect(page.locator("a[rel=next]")).to_be_hidden()
    for name in reversed(names[:-1]):
        page.click("a[rel=prev]")
        assert page.url == PAGES[name].as_uri()


def test_table_is_sorted_by_the_column_that_is_clicked(page):
    page.goto(PAGES["fer2013/04_evaluation"].as_uri())
    head = page.locator(".table th.number button").first
    table = page.locator(".table table", has=page.locator("th.number button")).first
    position = head.evaluate("button => button.parentElement.cellIndex + 1")

    def read():
        cells = table.locator(f"tbody tr > :nth-child({position})").all_inner_texts()
        return [float(re.match(r"[\d.]+", cell)[0]) for cell in cells]

    values = sorted(read())
    head.click()
    assert read() == values[::-1]
    head.click()
    assert read() == values


def test_chart_takes_the_place_of_its_image_and_paper_has_the_image(page):
    page.goto(PAGES["fer2013/04_evaluation"].as_uri())
    figure = page.locator("figure:has(script)").first
    expect(figure.locator(".chart svg")).to_be_visible()
    expect(figure.locator("img")).to_be_hidden()
    page.emulate_media(media="print")
    expect(figure.locator(".chart")).to_be_hidden()
    expect(figure.locator("img")).to_be_visible()


def test_code_appears_when_it_is_asked_for(page):
    page.goto(PAGES["demo/01_data_audit"].as_uri())
    code = page.locator("details.code pre").first
    expect(code).to_be_hidden()
    page.get_by_role("button", name="Show the code").click()
    expect(code).to_be_visible()
    assert find_violations(page) == []
