"""Write the files that the pages of a data set share: the index, the study as one document, links and charts.

No number comes from a keyboard: all are read from what the stages have written below `reports/`.
"""

import base64
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fer_lib.files import write_atomically
from fer_lib.params import load_params
from fer_lib.paths import ROOT, get_output_dirs
from fer_lib.reporting.results import (
    SCALE,
    Result,
    read_claims,
    read_if_written,
    read_networks,
    read_rerun,
    read_results,
    read_scores,
)
from fer_lib.reporting.stage import TEMPLATE_DIR
from fer_lib.wording import spell_setting

ABOUT = {
    "demo": "faces drawn by the project itself from known settings; no person is shown",
    "fer2013": "FER2013, small grey photographs found on the web",
    "ferplus": "FER+, the FER2013 photographs labelled again by ten annotators each",
    "affectnet": "AffectNet, colour photographs found on the web",
    "rafdb": "RAF-DB, colour photographs found on the web",
    SCALE: "what scoring, serving and training take on one machine and on many",
}

FROM_FOLDER = "faces from a folder of images"
"""What any other data set is."""

ABSTRACT = ("evaluation", "ablations", "compression", "robustness", "claims")
"""Stages whose findings make up the abstract."""

IN_STUDY = {
    "augmentation": ("pixel_statistics",),
    "evaluation": ("networks", "confusion", "reliability"),
    "gradcam": ("choice", "mean_maps"),
    "robustness": ("accuracy", "areas"),
}
"""Figures that the study's document shows of a stage; of any other the first."""

VEGA_LITE = "6.4"
"""Version of the library that draws interactive charts; vl-convert brings it."""


def build_index(dataset: str, out_dir: str | Path | None = ROOT) -> Path:
    """Write `reports/<dataset>/index.html` from what the notebooks have written so far; return its path.

    Beside it stand `study.html`, the study as one document without links to other files, and `pages.js`, from
    which each page learns its neighbours; one folder up stands `charts.js`, which draws interactive charts.
    """
    from jinja2 import Environment, FileSystemLoader
    from markupsafe import Markup

    dirs = get_output_dirs(dataset, out_dir)
    environment = Environment(
        loader=FileSystemLoader(TEMPLATE_DIR), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "markdown": lambda text: Markup(_to_html(text)),
        "inline": lambda text: Markup(_to_html(text).removeprefix("<p>").removesuffix("</p>")),
        "relative": lambda path: path.relative_to(dirs.reports).as_posix(),
        "spell": spell_setting,
        "embed": lambda path: f"data:image/webp;base64,{base64.b64encode(path.read_bytes()).decode()}",
    }
    results = read_results(dataset, dirs)
    sentences = {result.stage: result.sentence for result in results if result.sentence}
    content: dict[str, Any] = {
        "dataset": dataset,
        "about": ABOUT.get(dataset, FROM_FOLDER),
        "headlines": [sentences[stage] for stage in ABSTRACT if stage in sentences],
        "scores": read_scores(dirs),
        "results": results,
        "rerun": read_rerun(dirs),
        "provenance": next((one.provenance for one in reversed(results) if one.provenance), None),
    }

    def write(name: str, template: str, **more: Any) -> Path:
        path = dirs.reports / name
        page = environment.get_template(template).render(content | more)
        write_atomically(path, page.encode())
        return path

    _write_neighbours(dirs.reports / "pages.js", results)
    _write_charts(dirs.reports.parent / "charts.js")
    if dataset == SCALE:
        return write("index.html", "scale_index.html.j2")
    write(
        *("study.html", "study.html.j2"),
        shown=IN_STUDY,
        claims=read_claims(dirs),
        params=load_params(dataset),
        networks=read_networks(dirs),
        is_varied="paper.reference.accuracy" in read_if_written(dirs, "ablations"),
    )
    return write("index.html", "overview.html.j2")


def _write_neighbours(path: Path, results: Sequence[Result]) -> None:
    pages = [{"name": result.name, "title": result.title} for result in results if result.page]
    write_atomically(
        path, f"window.reportPages = {json.dumps(pages, ensure_ascii=False, indent=1)};\n".encode()
    )


def _write_charts(path: Path) -> None:
    """Write Vega with all it needs as one script, once: it takes a second, and is the same for all pages."""
    import vl_convert

    versions = (
        f"// Vega {vl_convert.get_vega_version()}, Vega-Lite {VEGA_LITE}, BSD-3-Clause, vega.github.io\n"
    )
    if path.is_file() and path.open().readline() == versions:
        return
    script = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", vl_version=VEGA_LITE)
    write_atomically(path, f"{versions}(() => {{{script}}})();\n".encode())


def _to_html(markdown: str) -> str:
    from nbconvert.filters.markdown import markdown2html

    return markdown2html(markdown).strip()
