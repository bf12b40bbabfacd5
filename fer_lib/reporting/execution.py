"""Run a notebook as a pipeline stage and turn it into a page: the same results give the same bytes."""

import json
import os
import re
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fer_lib import errors
from fer_lib.errors import FerError
from fer_lib.files import hold_lock, write_atomically
from fer_lib.metrics_file import read_metrics
from fer_lib.paths import NOTEBOOKS_DIR, ROOT, SCRATCH_DIR, get_output_dirs
from fer_lib.reporting.index_page import TEMPLATE_DIR, build_index, list_notebooks
from fer_lib.reporting.stage import get_stage_name

if TYPE_CHECKING:
    from nbformat import NotebookNode

UNCOLOURED = re.compile(r'<span class="(?:b?p|nn?|nb|nf|ne|o|w)">([^<]*)</span>')
"""What the highlighter marks but `style.css` leaves black: names and operators, half the bytes of a page."""
STRINGS = re.compile(r'(?:<span class="s[12aei]">[^<]*</span>){2,}')
"""Pieces of a formatted string, each in a span of its own and all of one colour."""
SPAN = re.compile(r"<[^>]*>")
DROPPED_TYPES = re.compile(r"application/vnd\.jupyter\.widget|application/javascript")
MEMORY_ADDRESS = re.compile(r"(?<= at )0x[0-9a-f]+")
"""As in `<Figure at 0x7f10>`; the ` at ` keeps the pattern out of embedded pictures."""

ALIGNMENT = re.compile(r' style="text-align: (?:left|right)"')
"""What JupyterLab needs in every cell of a table; the page's style sheet says it once."""

KERNEL_SETTLES_SECONDS = 60
"""How long the kernel may take to fall idle after a cell; nbclient's 4 are too few on a busy machine."""


def run_notebook(notebook: str, dataset: str, out_dir: str | Path | None = ROOT, smoke: bool = False) -> Path:
    """Execute `notebooks/<notebook>.ipynb` and write `reports/<dataset>/<notebook>.html` under `out_dir`.

    Progress bars reach the terminal while it runs. Raises FerError when the notebook does not exist or a
    cell fails; the executed notebook is then kept in `scratch/failed/`.
    """
    source = NOTEBOOKS_DIR / f"{notebook}.ipynb"
    if not source.is_file():
        known = ", ".join(path.stem for path in list_notebooks())
        raise FerError(f"{source}: not found; notebooks: {known}")
    if smoke and out_dir and Path(out_dir).resolve() == ROOT:
        raise FerError("a smoke run may not replace the study's results; leave --out-dir out")
    dirs = get_output_dirs(dataset, out_dir)
    parameters = {"dataset": dataset, "smoke": smoke, "out_dir": _shorten(out_dir)}
    # Two runs that train into one state would spoil each other's weights.
    with hold_lock(dirs.training_state.parent / f"{dataset}.lock"):
        executed = normalise_notebook(_execute(source, parameters))
    page = dirs.reports / f"{notebook}.html"
    write_atomically(page, export_html(executed, notebook, dataset, dirs, smoke).encode())
    build_index(dataset, out_dir)
    return page


def normalise_notebook(notebook: "NotebookNode") -> "NotebookNode":
    """Drop, in place, what differs between two equal runs: times, progress bars, widgets, addresses."""
    notebook.metadata.pop("papermill", None)
    notebook.metadata.pop("widgets", None)
    # Papermill's own cell repeats the parameters and holds the output folder of this machine.
    notebook.cells = [c for c in notebook.cells if "injected-parameters" not in c.metadata.get("tags", [])]
    for cell in notebook.cells:
        for key in ("papermill", "execution"):
            cell.metadata.pop(key, None)
        if cell.cell_type == "code":
            cell.outputs = [out for out in map(_normalise_output, cell.outputs) if out is not None]
    return notebook


def export_html(notebook: "NotebookNode", name: str, dataset: str, dirs: Any, smoke: bool = False) -> str:
    """Return the executed notebook as one HTML page that needs nothing from outside itself."""
    from nbconvert import HTMLExporter

    exporter = HTMLExporter(
        template_name=TEMPLATE_DIR.name,
        extra_template_basedirs=[str(TEMPLATE_DIR.parent)],
        exclude_anchor_links=True,
    )
    order = [path.stem for path in list_notebooks()]
    position = order.index(name) if name in order else 0
    page = {
        "name": name,
        "dataset": dataset,
        "smoke": smoke,
        "title": get_title(notebook),
        "previous": order[position - 1] if position > 0 else None,
        "next": order[position + 1] if position + 1 < len(order) else None,
        "provenance": _read_provenance(dirs, name),
    }
    body, _ = exporter.from_notebook_node(notebook, resources={"page": page})
    return ALIGNMENT.sub("", STRINGS.sub(_join_spans, UNCOLOURED.sub(r"\1", body)))


def _join_spans(spans: re.Match[str]) -> str:
    return f'<span class="s2">{SPAN.sub("", spans[0])}</span>'


def get_title(notebook: "NotebookNode") -> str:
    """Return the first heading of the notebook."""
    for cell in notebook.cells:
        match = re.search(r"^# (.+)$", cell.source, re.MULTILINE)
        if cell.cell_type == "markdown" and match:
            return match.group(1).strip()
    return "Untitled"


def _execute(source: Path, parameters: dict[str, Any]) -> "NotebookNode":
    import papermill
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    with tempfile.TemporaryDirectory() as folder, _kernel_environment():
        executed = Path(folder) / source.name
        try:
            return papermill.execute_notebook(
                source,
                executed,
                parameters,
                cwd=ROOT,
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
            kept = SCRATCH_DIR / "failed" / f"{parameters['dataset']}_{source.name}"
            write_atomically(kept, executed.read_bytes())
            raise FerError(_describe_failure(source.stem, error, kept)) from None
        except DeadKernelError:
            raise FerError(
                f"{source.stem}: its process died, as when memory runs out; start again, training goes on"
            ) from None


@contextmanager
def _kernel_environment() -> Any:
    """Let the kernel import `fer_lib` from this project, without the debugger's warnings."""
    saved = dict(os.environ)
    paths = [str(ROOT), *filter(None, [saved.get("PYTHONPATH")])]
    os.environ |= {"PYTHONPATH": os.pathsep.join(paths), "PYDEVD_DISABLE_FILE_VALIDATION": "1"}
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(saved)


def _describe_failure(notebook: str, error: Any, kept: Path) -> str:
    is_ours = isinstance(getattr(errors, error.ename, None), type)
    message = " ".join(str(error.evalue).split())
    what = message if is_ours else f"{error.ename}: {message}"
    return f"{notebook}, cell {error.cell_index}: {what} (the notebook as it failed: {_shorten(kept)})"


def _normalise_output(output: Any) -> Any:
    if output.output_type == "stream":
        if output.name == "stderr":  # progress bars and warnings: they reached the terminal
            return None
        output.text = MEMORY_ADDRESS.sub("0x…", output.text)
        return output
    output.pop("execution_count", None)
    if "data" in output:
        output.data = {
            kind: MEMORY_ADDRESS.sub("0x…", value) if kind.startswith("text/") else value
            for kind, value in output.data.items()
            if not DROPPED_TYPES.match(kind)
        }
    return output if output.get("data") or output.output_type == "error" else None


def _read_provenance(dirs: Any, notebook: str) -> dict[str, Any]:
    try:
        return read_metrics(dirs, get_stage_name(notebook))
    except (FerError, json.JSONDecodeError):
        return {}


def _shorten(path: str | Path | None) -> str | None:
    """Return `path` relative to the project where it lies inside, so that no page names this machine."""
    if path is None:
        return None
    absolute = Path(path).resolve()
    return str(absolute.relative_to(ROOT)) if absolute.is_relative_to(ROOT) else str(absolute)
