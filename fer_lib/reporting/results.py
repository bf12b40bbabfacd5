"""Read what the notebooks of a data set have written below `reports/`, for the index and the whole study."""

import html
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fer_lib.errors import FerError
from fer_lib.metrics_file import HEADLINES, Metrics, read_metrics
from fer_lib.paths import NOTEBOOKS_DIR, OutputDirs
from fer_lib.reporting.stage import get_stage_name
from fer_lib.wording import spell_network, spell_setting

if TYPE_CHECKING:
    from nbformat import NotebookNode

SCALE = "scale"
"""Stands in place of a data set for the notebook that is about machines, and has pages of its own."""

RERUN = "rerun.json"
"""The verdict on a rerun, beside its pages."""


@dataclass(frozen=True)
class Result:
    """What one notebook asks, and what it has found where its page exists; Markdown and plain text."""

    name: str
    """Of the notebook and its page, `04_evaluation`."""
    title: str
    question: str
    sentence: str
    """That answers the question; empty before the notebook has run."""
    table: str
    """Of the numbers behind the answer; may be empty."""
    page: Path | None
    figures: dict[Path, str]
    """Files to captions, in the order of the page."""
    provenance: dict[str, Any]

    @property
    def stage(self) -> str:
        """The name of the notebook's stage."""
        return get_stage_name(self.name)


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


def read_results(dataset: str, dirs: OutputDirs) -> list[Result]:
    """Return the results of all notebooks of a data set, of those that have not run too."""
    import nbformat

    results = []
    for path in list_notebooks(dataset):
        title, question = read_opening(nbformat.read(path, as_version=4), path.stem)
        stage = get_stage_name(path.stem)
        page = dirs.reports / f"{path.stem}.html"
        finding = dirs.reports / "findings" / f"{stage}.md"
        sentence, _, table = (finding.read_text() if finding.is_file() else "").partition("\n\n")
        captions = read_captions(page.read_text()) if page.is_file() else {}
        figures = {dirs.figures / stage / f"{name}.webp": caption for name, caption in captions.items()}
        results.append(
            Result(
                path.stem,
                title,
                question,
                sentence.strip(),
                table.strip(),
                page if page.is_file() else None,
                {figure: caption for figure, caption in figures.items() if figure.is_file()},
                read_if_written(dirs, stage).provenance,
            )
        )
    return results


def read_captions(page: str) -> dict[str, str]:
    """Return figure name to caption, in the order of a report's page as `Stage.show_figure` writes it."""
    found = re.findall(r'<figure id="figure-([^"]+)"><img [^>]*?alt="([^"]*)"', page)
    return {html.unescape(name): html.unescape(caption) for name, caption in found}


def read_if_written(dirs: OutputDirs, stage: str) -> Metrics:
    """Return the metrics of a stage, without any before it has run."""
    try:
        return read_metrics(dirs, stage)
    except FerError:
        return Metrics(stage)


def read_networks(dirs: OutputDirs) -> list[dict[str, Any]]:
    """Return the networks that recipes have trained: name, architecture, pixels and device of each."""
    networks = []
    for path in sorted((dirs.reports / "recipes").glob("*.csv")):
        found = read_if_written(dirs, f"recipes/{path.stem}")
        if found.provenance:
            networks.append(
                {
                    "name": path.stem,
                    "architecture": spell_setting(found["architecture"]),
                    "pixels": found["image_size"],
                    "device": found.provenance["device"],
                }
            )
    return networks


def read_scores(dirs: OutputDirs) -> list[dict[str, str | None]]:
    """Return the headline scores, each with its label, value, interval, and the network that it is of.

    Under `budget` stands what the network saw in training, under `origin` which networks it started and
    learned from, where these are known.
    """
    evaluation, compression = read_if_written(dirs, "evaluation"), read_if_written(dirs, "compression")
    selected = evaluation.get("selected")
    label, spec = HEADLINES["test.accuracy"]
    rows: list[tuple[Metrics, str, str, str, Any, str]]
    rows = [(evaluation, "baseline.test.accuracy", label, spec, "the paper's recipe", "baseline.budget")]
    for key, (name, format_) in HEADLINES.items():
        rows.append((evaluation, key, name, format_, selected, f"{selected}.budget"))
    int8 = spell_network(compression.get("int8.variant", ""))
    rows.append((compression, "int8.test.accuracy", f"{label} in INT8", spec, int8, "int8.budget"))
    scores = []
    for metrics, key, name, format_, network, budget in rows:
        if key in metrics:
            value, interval = f"{metrics.interval(key):{format_}}".split("\N{NO-BREAK SPACE}", 1)
            scores.append(
                {
                    "label": name,
                    "value": value,
                    "interval": interval,
                    "network": network,
                    "budget": metrics.get(budget),
                    "origin": metrics.get(budget.replace(".budget", ".origin")),
                }
            )
    return scores


def read_rerun(dirs: OutputDirs) -> dict[str, Any] | None:
    """Return the verdict that `fer rerun` wrote, and under `others` the numbers that are not identical."""
    path = dirs.reports / RERUN
    if not path.is_file():
        return None
    content = json.loads(path.read_bytes())
    return content | {"others": [one for one in content["numbers"] if one["verdict"] != "identical"]}


def read_claims(dirs: OutputDirs) -> list[dict[str, Any]]:
    """Return the paper's claims with their verdicts; none before notebook 09 has run."""
    return json.loads(dirs.ledger.read_bytes())["claims"] if dirs.ledger.is_file() else []
