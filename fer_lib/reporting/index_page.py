"""Write the first page of a data set's reports.

No number comes from a keyboard: all are read from what the stages have written below `reports/`.
"""

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fer_lib.errors import FerError
from fer_lib.files import write_atomically
from fer_lib.metrics_file import HEADLINES, Metrics, read_metrics
from fer_lib.paths import NOTEBOOKS_DIR, ROOT, OutputDirs, get_output_dirs
from fer_lib.reporting.stage import TEMPLATE_DIR, get_stage_name

if TYPE_CHECKING:
    from nbformat import NotebookNode

ABOUT = {
    "demo": "faces drawn by the project itself from known settings; no person is shown",
    "fer2013": "FER2013, small grey photographs found on the web",
    "ferplus": "FER+, the FER2013 photographs labelled again by ten annotators each",
    "affectnet": "AffectNet, colour photographs found on the web",
    "rafdb": "RAF-DB, colour photographs found on the web",
}

SCALE = "scale"
"""Stands in place of a data set for the notebook that is about machines, and has pages of its own."""

RERUN = "rerun.json"
"""The verdict on a rerun, beside its pages."""


def build_index(dataset: str, out_dir: str | Path | None = ROOT) -> Path:
    """Write `reports/<dataset>/index.html` from what the notebooks have written so far; return its path."""
    from jinja2 import Environment, FileSystemLoader

    dirs = get_output_dirs(dataset, out_dir)
    environment = Environment(
        loader=FileSystemLoader(TEMPLATE_DIR), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    notebooks = [_describe_notebook(path, dirs) for path in list_notebooks(dataset)]
    evaluation = read_if_written(dirs, "evaluation")
    page = environment.get_template("overview.html.j2").render(
        dataset=dataset,
        about=None if dataset == SCALE else ABOUT.get(dataset, "faces from a folder of images"),
        scores=_list_scores(evaluation),
        selected=evaluation.get("selected"),
        budget=evaluation.get("test.budget"),
        notebooks=notebooks,
        rerun=_read_rerun(dirs.reports / RERUN),
        provenance=next((entry["provenance"] for entry in reversed(notebooks) if entry["provenance"]), None),
    )
    path = dirs.reports / "index.html"
    write_atomically(path, page.encode())
    return path


def list_notebooks(dataset: str) -> list[Path]:
    """Return the study's notebooks on a data set, or those on `SCALE`, in order."""
    paths = sorted(NOTEBOOKS_DIR.glob("[0-9]*_*.ipynb"))
    return [path for path in paths if (get_stage_name(path.stem) == SCALE) == (dataset == SCALE)]


def read_opening(notebook: "NotebookNode", name: str) -> tuple[str, str]:
    """Return the first heading, and the text after `**Question.**`, of a notebook's first cell."""
    text = notebook.cells[0].source
    title = re.search(r"^# (.+)$", text, re.MULTILINE)
    question = re.search(r"\*\*Question\.\*\*\s*(.+?)(?:\n\s*\n|\n\*\*|\Z)", text, re.DOTALL)
    if not title or not question:
        raise FerError(f"{name}.ipynb: the first cell needs a `# Title` and a `**Question.** ...` line")
    return title.group(1).strip(), " ".join(question.group(1).split())


def read_if_written(dirs: OutputDirs, stage: str) -> Metrics:
    """Return the metrics of a stage, without any before it has run."""
    try:
        return read_metrics(dirs, stage)
    except FerError:
        return Metrics(stage)


def _describe_notebook(path: Path, dirs: OutputDirs) -> dict[str, Any]:
    import nbformat

    title, question = read_opening(nbformat.read(path, as_version=4), path.stem)
    stage = get_stage_name(path.stem)
    page = dirs.reports / f"{path.stem}.html"
    finding = dirs.reports / "findings" / f"{stage}.md"
    return {
        "title": title,
        "question": _to_html(question, inline=True),
        "finding": _to_html(finding.read_text()) if finding.is_file() else None,
        "link": page.name if page.is_file() else None,
        "thumbnail": _find_thumbnail(page, dirs.figures / stage),
        "provenance": read_if_written(dirs, stage).provenance,
    }


def _read_rerun(path: Path) -> dict[str, Any] | None:
    """Return the verdict that `fer rerun` wrote, and under `others` the numbers that are not identical."""
    if not path.is_file():
        return None
    content = json.loads(path.read_bytes())
    return content | {"others": [one for one in content["numbers"] if one["verdict"] != "identical"]}


def _find_thumbnail(page: Path, folder: Path) -> str | None:
    """Return the page's first figure, relative to the page."""
    first = re.search(r'<figure id="figure-([^"]+)"', page.read_text()) if page.is_file() else None
    figure = folder / f"{first.group(1)}.png" if first else None
    return figure.relative_to(page.parent).as_posix() if figure and figure.is_file() else None


def _list_scores(metrics: Metrics) -> list[dict[str, str]]:
    scores = []
    for key, (label, spec) in {"baseline.test.accuracy": ("The paper's recipe", ".1%"), **HEADLINES}.items():
        if key in metrics:
            value, interval = f"{metrics.interval(key):{spec}}".split("\N{NO-BREAK SPACE}", 1)
            scores.append({"label": label, "value": value, "interval": interval})
    return scores


def _to_html(markdown: str, inline: bool = False) -> Any:
    from markupsafe import Markup
    from nbconvert.filters.markdown import markdown2html

    text = markdown2html(markdown).strip()
    return Markup(re.sub(r"^<p>|</p>$", "", text) if inline else text)
