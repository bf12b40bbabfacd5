"""The first page of a data set's reports: what was asked, what was found, and where to read it."""

import re
from pathlib import Path
from typing import Any

from fer_lib.errors import FerError
from fer_lib.files import write_atomically
from fer_lib.metrics_file import format_interval, read_metrics
from fer_lib.paths import NOTEBOOKS_DIR, ROOT, OutputDirs, get_output_dirs
from fer_lib.reporting.stage import get_stage_name

TEMPLATE_DIR = Path(__file__).parent / "report_template"

ABOUT = {
    "demo": "faces drawn by the project itself from known settings; no person is shown",
    "fer2013": "FER2013, small grey photographs found on the web",
    "ferplus": "FER+, the FER2013 photographs labelled anew by a crowd",
    "affectnet": "AffectNet, colour photographs found on the web",
}

SCORES = {
    "test.accuracy": "Test accuracy",
    "test_dedup.accuracy": "Test accuracy without images that also stand in training",
    "test.macro.recall": "Macro recall: every emotion counts the same",
    "test.macro.f1": "Macro F1",
}
"""The metrics of stage `evaluation` that the page shows first."""


def build_index(dataset: str, out_dir: str | Path | None = ROOT) -> Path:
    """Write `reports/<dataset>/index.html` from what the notebooks have written so far; return its path."""
    from jinja2 import Environment, FileSystemLoader

    dirs = get_output_dirs(dataset, out_dir)
    environment = Environment(
        loader=FileSystemLoader(TEMPLATE_DIR), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    notebooks = [_describe_notebook(path, dirs) for path in list_notebooks()]
    page = environment.get_template("overview.html.j2").render(
        dataset=dataset,
        about=ABOUT.get(dataset, "faces from a folder of images"),
        scores=_read_scores(dirs),
        notebooks=notebooks,
        provenance=next((entry["metrics"] for entry in reversed(notebooks) if entry["metrics"]), None),
    )
    path = dirs.reports / "index.html"
    write_atomically(path, page.encode())
    return path


def list_notebooks() -> list[Path]:
    """Return the study's notebooks, in order."""
    return sorted(NOTEBOOKS_DIR.glob("[0-9]*_*.ipynb"))


def read_title_and_question(notebook: Path) -> tuple[str, str]:
    """Return the first heading, and the text after `**Question.**`, of a notebook's first cell."""
    import nbformat

    opening = nbformat.read(notebook, as_version=4).cells[0].source
    title = re.search(r"^# (.+)$", opening, re.MULTILINE)
    question = re.search(r"\*\*Question\.\*\*\s*(.+?)(?:\n\s*\n|\n\*\*|\Z)", opening, re.DOTALL)
    if not title or not question:
        raise FerError(f"{notebook}: the first cell needs a `# Title` and a `**Question.** ...` line")
    return title.group(1).strip(), " ".join(question.group(1).split())


def _describe_notebook(path: Path, dirs: OutputDirs) -> dict[str, Any]:
    title, question = read_title_and_question(path)
    stage = get_stage_name(path.stem)
    page = dirs.reports / f"{path.stem}.html"
    finding = dirs.reports / "findings" / f"{stage}.md"
    return {
        "title": title,
        "question": _to_html(question, inline=True),
        "finding": _to_html(finding.read_text()) if finding.is_file() else None,
        "link": page.name if page.is_file() else None,
        "thumbnail": _find_thumbnail(page, dirs.figures / stage),
        "metrics": _read_metrics(dirs, stage),
    }


def _find_thumbnail(page: Path, folder: Path) -> str | None:
    """Return the page's first figure, relative to the page."""
    first = re.search(r'<figure id="figure-([^"]+)"', page.read_text()) if page.is_file() else None
    figure = folder / f"{first.group(1)}.png" if first else None
    return figure.relative_to(page.parent).as_posix() if figure and figure.is_file() else None


def _read_metrics(dirs: OutputDirs, stage: str) -> dict[str, Any]:
    try:
        return read_metrics(dirs, stage)
    except FerError:
        return {}


def _read_scores(dirs: OutputDirs) -> list[dict[str, str]]:
    metrics = _read_metrics(dirs, "evaluation")
    scores = []
    for key, label in SCORES.items():
        if f"{key}_lo" in metrics:
            value, interval = format_interval(metrics, key, ".1%").split(" ", 1)
            scores.append({"label": label, "value": value, "interval": interval})
    return scores


def _to_html(markdown: str, inline: bool = False) -> Any:
    from markupsafe import Markup
    from nbconvert.filters.markdown import markdown2html

    text = markdown2html(markdown).strip()
    return Markup(re.sub(r"^<p>|</p>$", "", text) if inline else text)
