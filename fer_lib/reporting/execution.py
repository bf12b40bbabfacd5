"""Run a notebook as a pipeline stage and turn it into a page: the same results give the same bytes."""

import json
import os
import re
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fer_lib import errors
from fer_lib.errors import FerError
from fer_lib.files import write_atomically
from fer_lib.metrics_file import read_metrics
from fer_lib.params import load_params
from fer_lib.paths import NOTEBOOKS_DIR, ROOT, SCRATCH_DIR, OutputDirs, get_output_dirs
from fer_lib.reporting.index_page import build_index
from fer_lib.reporting.results import read_if_written, read_opening
from fer_lib.reporting.stage import CHART_TYPE, TEMPLATE_DIR, get_stage_name

if TYPE_CHECKING:
    from nbformat import NotebookNode

AUDIT = "08_robustness"
"""The notebook that also audits one model on a user's own faces."""

STUDY_TAG = "study"
"""Of its cells that read what other stages of the pipeline have written."""

HIDDEN_TAGS = {"parameters", "injected-parameters"}
"""Of cells that a page leaves out: they hold the output folder of this machine."""

MEMORY_ADDRESS = re.compile(r"(?<= at )0x[0-9a-f]+")
"""As in `<Figure at 0x7f10>`; the ` at ` keeps the pattern out of embedded images."""

HEADING = re.compile(r'<h2 id="([^"]+)">(.*?)<a class="anchor-link"')
"""Of a section, as nbconvert writes it: its anchor and its title."""

MIN_CONTENTS = 3
"""Sections from which on a page lists them."""

KERNEL_SETTLES_SECONDS = 60
"""How long the kernel may take to fall idle after a cell; nbclient's 4 are too few on a busy machine."""


def run_notebook(notebook: str, dataset: str, out_dir: str | Path | None = ROOT, smoke: bool = False) -> Path:
    """Execute `notebooks/<notebook>.ipynb` and write `reports/<dataset>/<notebook>.html` under `out_dir`.

    Progress bars reach the terminal while it runs.

    Raises FerError when the notebook does not exist or a cell fails; the executed notebook is then kept in
    `scratch/failed/`.
    """
    if smoke and out_dir and Path(out_dir).resolve() == ROOT:
        raise FerError("a smoke run may not replace the study's results; leave --out-dir out")
    load_params(dataset)  # an unknown data set is told before a kernel starts
    dirs = get_output_dirs(dataset, out_dir)
    parameters = {"dataset": dataset, "smoke": smoke, "out_dir": _shorten(out_dir)}
    executed = _execute(notebook, parameters)
    page = dirs.reports / f"{notebook}.html"
    write_atomically(page, export_html(executed, notebook, dataset, dirs, smoke).encode())
    build_index(dataset, out_dir)
    return page


def audit_model(
    model: str, data: str, out: str | Path, variant: str | None = None, n_faces: int = 300
) -> Path:
    """Run the robustness notebook on one model and a user's faces; return the page, `<out>/audit.html`.

    Beside it stands `audit.json` with every number, its interval as `<key>_lo` and `<key>_hi`.

    model: name or folder.   data: name of a packed data set, or folder of images.   n_faces: so many, at
    most, are perturbed.
    """
    asked = {"model": model, "data": data, "variant": variant, "n_faces": n_faces}
    with tempfile.TemporaryDirectory() as folder:
        dirs = get_output_dirs("demo", folder)
        executed = _execute(AUDIT, {"dataset": "demo", "out_dir": folder, **asked}, without=STUDY_TAG)
        metrics = read_metrics(dirs, get_stage_name(AUDIT))
        html = export_html(executed, AUDIT, f"{Path(model).name} on {Path(data).name}", dirs, is_alone=True)
    page = Path(out) / "audit.html"
    write_atomically(page, html.encode())
    made_by = {"git_commit": metrics.provenance["commit"], "seed": metrics.provenance["seed"]}
    numbers = json.dumps({**metrics.flatten(), **made_by}, indent=2, sort_keys=True, ensure_ascii=False)
    write_atomically(page.with_suffix(".json"), f"{numbers}\n".encode())
    return page


def export_html(
    notebook: "NotebookNode",
    name: str,
    dataset: str,
    dirs: OutputDirs,
    smoke: bool = False,
    is_alone: bool = False,
) -> str:
    """Return the executed notebook as one HTML page that shows everything without another file.

    Links to the pages before and after it, and interactive charts, come from the files that `build_index`
    writes beside it.

    dataset: what the page's head says it is about.   is_alone: there are no other pages to link.
    """
    import nbformat
    from nbconvert import HTMLExporter
    from traitlets.config import Config

    exporter = HTMLExporter(
        config=Config(TagRemovePreprocessor={"enabled": True, "remove_cell_tags": HIDDEN_TAGS}),
        template_name=TEMPLATE_DIR.name,
        extra_template_basedirs=[str(TEMPLATE_DIR.parent)],
    )
    title, _ = read_opening(notebook, name)
    page = {
        "name": name,
        "dataset": dataset,
        "smoke": smoke,
        "title": title,
        "is_alone": is_alone,
        "has_charts": CHART_TYPE in nbformat.writes(notebook),
        "provenance": read_if_written(dirs, get_stage_name(name)).provenance,
    }
    body, _ = exporter.from_notebook_node(notebook, resources={"page": page})
    return _insert_contents(MEMORY_ADDRESS.sub("0x…", body))


def _insert_contents(page: str) -> str:
    """Return a page with a list of its sections after the opening one, where it has enough of them."""
    headings = HEADING.findall(page)
    if len(headings) < MIN_CONTENTS:
        return page
    items = "".join(f'<li><a href="#{anchor}">{title}</a></li>' for anchor, title in headings)
    contents = f'<nav class="contents" aria-label="On this page"><ol>{items}</ol></nav>'
    return page.replace("</section>", f"</section>\n{contents}", 1)


def _execute(notebook: str, parameters: Mapping[str, Any], without: str | None = None) -> "NotebookNode":
    """Return the notebook with its outputs; the cells tagged `without` are left out."""
    import nbformat
    import papermill
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    # Else the debugger, which the kernel brings along unused, warns about Python's frozen modules.
    os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")
    path = NOTEBOOKS_DIR / f"{notebook}.ipynb"
    if not path.is_file():
        known = ", ".join(sorted(other.stem for other in NOTEBOOKS_DIR.glob("*.ipynb")))
        raise FerError(f"{path}: not found; notebooks: {known}")
    source = nbformat.read(path, as_version=4)
    source.cells = [cell for cell in source.cells if without not in cell.metadata.get("tags", [])]
    with tempfile.TemporaryDirectory() as folder:
        asked, executed = Path(folder) / path.name, Path(folder) / "executed.ipynb"
        nbformat.write(source, asked)
        try:
            return papermill.execute_notebook(
                asked,
                executed,
                parameters,
                cwd=ROOT,  # from where the kernel imports fer_lib
                kernel_name="python3",
                language="python",
                progress_bar=False,  # counts cells; the training's own bar, with time left, says more
                stderr_file=sys.stderr,
                iopub_timeout=KERNEL_SETTLES_SECONDS,
                # Else the kernel warns on every start that it listens on this machine's own loopback, and
                # calls it an error when it is told to end while it still tidies up after a cell.
                extra_arguments=["--log-level=CRITICAL"],
            )
        except PapermillExecutionError as error:
            message = " ".join(str(error.evalue).split())
            is_ours = isinstance(getattr(errors, error.ename, None), type)
            if is_ours and without:  # an audit's user is told about the faces, and need not know the notebook
                raise FerError(message) from None
            kept = SCRATCH_DIR / "failed" / f"{parameters['dataset']}_{path.name}"
            write_atomically(kept, executed.read_bytes())
            raise FerError(
                f"{notebook}, cell {error.cell_index}: {message if is_ours else f'{error.ename}: {message}'} "
                f"(the notebook as it failed: {_shorten(kept)})"
            ) from None
        except DeadKernelError:
            raise FerError(
                f"{notebook}: its process died, as when memory runs out; start again, training goes on"
            ) from None


def _shorten(path: str | Path | None) -> str | None:
    """Return `path` relative to the project where it lies inside, so that no page names this machine."""
    if path is None:
        return None
    absolute = Path(path).resolve()
    return str(absolute.relative_to(ROOT)) if absolute.is_relative_to(ROOT) else str(absolute)
