"""What a notebook calls to show and to write its results; `execution` turns the notebook into a page.

stage = start_stage("03_training", dataset, smoke, out_dir)
stage.show_figure(fig, "loss_curves", "Loss by epoch.")
stage.write_metrics({"val.accuracy": 0.65}, seed=stage.params.training.seed)
stage.show_finding(f"The best epoch reaches {stage.metrics['val.accuracy']:.1%}.")
"""

import base64
import html
import io
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from PIL import Image

from fer_lib.errors import FerError
from fer_lib.files import write_atomically
from fer_lib.metrics_file import format_interval, read_metrics, write_metrics
from fer_lib.params import Params, load_params
from fer_lib.paths import OutputDirs, get_output_dirs

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from fer_lib.data.packed import PackedDataset

PIXELS_PER_INCH = 144
SHOWN_PIXELS_PER_INCH = 96
"""A figure of 8 inches is drawn 1152 pixels wide and shown 768 wide, so it is sharp on dense screens."""

SMOKE_FACES = 128
"""Faces per split in smoke mode: every step runs, none takes long."""

CHART_COLOURS = 8192
"""A picture with more colours than this is a photograph or a drawn face, no chart."""


@dataclass
class Stage:
    """One run of one notebook on one data set: its parameters, its data, and where its results go."""

    notebook: str
    dataset: str
    params: Params
    dirs: OutputDirs
    smoke: bool = False
    started: float = field(default_factory=time.monotonic)

    @property
    def name(self) -> str:
        """The notebook's name without its number: `training` for `03_training`."""
        return get_stage_name(self.notebook)

    @cached_property
    def data(self) -> "PackedDataset":
        """The packed faces, opened when first asked for; in smoke mode the first of each split alone."""
        from fer_lib.data.packed import SPLITS, load_packed

        data = load_packed(self.dataset)
        if not self.smoke:
            return data
        return data.take(np.concatenate([data.get_rows(split)[:SMOKE_FACES] for split in SPLITS]))

    @property
    def may_show_faces(self) -> bool:
        """Whether single faces may stand in the report: drawn ones may, those of real people never."""
        return self.data.meta["layout"] == "demo"

    @property
    def metrics(self) -> dict[str, Any]:
        """The stage's metrics as they stand in its file. Raises FerError before `write_metrics`."""
        return read_metrics(self.dirs, self.name)

    def show_figure(self, fig: "Figure", name: str, caption: str) -> None:
        """Save `fig` to `figures/<stage>/<name>.png`, show it with its caption, and close it.

        `caption` is plain text; it is also what a screen reader says in place of the picture. The first
        figure of a notebook is its thumbnail on the index page.
        """
        import matplotlib.pyplot as plt

        content, (width, height) = _render_png(fig)
        plt.close(fig)  # or Jupyter shows it a second time at the end of the cell
        write_atomically(self.dirs.figures / self.name / f"{name}.png", content)
        _display_html(_wrap_png(content, width, height, name, caption))

    def show_table(self, df: pd.DataFrame, caption: str, formats: dict[str, str] | None = None) -> None:
        """Show `df` as a table; `formats` maps a column to a format such as `.1%`.

        Without one, integers get thousands separators and floats three decimals. The index heads the rows
        unless it only counts them.
        """
        _display_html(build_table(df, caption, formats))

    def show_text(self, markdown: str) -> None:
        """Show generated prose."""
        from IPython.display import Markdown, display

        display(Markdown(markdown))

    def show_finding(self, markdown: str) -> None:
        """Show the notebook's conclusion and keep it for the index page, in `findings/<stage>.md`.

        Its numbers come from `metrics`, never from a keyboard.
        """
        write_atomically(self.dirs.reports / "findings" / f"{self.name}.md", f"{markdown.strip()}\n".encode())
        self.show_text(f'<div class="finding">\n\n{markdown.strip()}\n\n</div>')

    def write_table(self, df: pd.DataFrame, name: str) -> None:
        """Write `df` to `<name>.csv` next to the report, floats with six significant digits."""
        content = df.to_csv(index=False, float_format="%.6g", lineterminator="\n")
        write_atomically(self.dirs.reports / f"{name}.csv", content.encode())

    def write_metrics(self, values: dict[str, Any], seed: int, wall_seconds: float | None = None) -> None:
        """Write `metrics/<stage>.json` as `metrics_file.write_metrics` does.

        `wall_seconds` is the time since the stage started, unless the work began in an earlier process.
        """
        seconds = wall_seconds or time.monotonic() - self.started
        write_metrics(self.dirs, self.name, values, self.data.meta, self.params, seed, seconds)

    def format_interval(self, key: str, spec: str = ".3f") -> str:
        """Return a metric with its 95 % interval, as `0.652 [0.637, 0.668]`."""
        return format_interval(self.metrics, key, spec)


def start_stage(notebook: str, dataset: str, smoke: bool = False, out_dir: str | None = None) -> Stage:
    """Return the stage of `notebook` (`03_training`). Without `out_dir` it writes to `scratch/`.

    Raises ParamsError when `params.yaml` does not fit.
    """
    params = load_params(dataset, smoke=smoke)
    return Stage(notebook, dataset, params, get_output_dirs(dataset, out_dir), smoke)


def tabulate_metrics(
    metrics: Mapping[str, Any], rows: Mapping[str, str], columns: Mapping[str, str], row_title: str
) -> pd.DataFrame:
    """Return metrics as a table: `rows` and `columns` map what names them to their part of the key.

    A column's part holds `{}` where the row's stands, as in `{"precision": "test.precision.{}"}`. A metric
    that is not there, of a class without images say, leaves its cell empty.
    """
    table = {title: [metrics.get(key.format(row)) for row in rows.values()] for title, key in columns.items()}
    return pd.DataFrame(table, index=pd.Index(rows, name=row_title))


def get_stage_name(notebook: str) -> str:
    """Return the notebook's name without its number: `training` for `03_training`."""
    return notebook.split("_", 1)[1]


def build_figure_html(fig: "Figure", name: str, caption: str) -> str:
    """Return `fig` as an HTML figure that holds its picture; `caption` is plain text."""
    content, (width, height) = _render_png(fig)
    return _wrap_png(content, width, height, name, caption)


def build_table(df: pd.DataFrame, caption: str, formats: dict[str, str] | None = None) -> str:
    """Return `df` as an HTML table that scrolls within the page when it is too wide."""
    counts_rows = isinstance(df.index, pd.RangeIndex) and df.index.name is None
    shown = df if counts_rows else df.rename_axis(index=lambda name: name or "").reset_index()
    unknown = set(formats or {}) - set(shown.columns)
    if unknown:
        raise FerError(f"table {caption!r}: a format for {min(unknown)!r}, which is no column")
    numeric = [pd.api.types.is_numeric_dtype(kind) for kind in shown.dtypes]
    head = "".join(
        f'<th scope="col"{_align(is_number)}>{html.escape(str(name))}</th>'
        for name, is_number in zip(shown.columns, numeric, strict=True)
    )
    specs = [(formats or {}).get(name, "") for name in shown.columns]
    rows = []
    for values in shown.itertuples(index=False, name=None):
        cells = [
            _build_cell(value, spec, is_number, is_head=position == 0 and not counts_rows)
            for position, (value, spec, is_number) in enumerate(zip(values, specs, numeric, strict=True))
        ]
        rows.append(f"<tr>{''.join(cells)}</tr>")
    text = html.escape(caption)
    return (
        f'<figure class="table"><figcaption>{text}</figcaption>'
        f'<div role="region" aria-label="{text}" tabindex="0" style="overflow-x: auto"><table>'
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div></figure>"
    )


def _wrap_png(content: bytes, width: int, height: int, name: str, caption: str) -> str:
    data, text = base64.b64encode(content).decode(), html.escape(caption)
    return (
        f'<figure id="figure-{html.escape(name)}"><img src="data:image/png;base64,{data}" alt="{text}" '
        f'width="{width}" height="{height}" style="max-width: 100%; height: auto">'
        f"<figcaption>{text}</figcaption></figure>"
    )


def _build_cell(value: Any, spec: str, is_number: bool, is_head: bool) -> str:
    tag, scope = ("th", ' scope="row"') if is_head else ("td", "")
    return f"<{tag}{scope}{_align(is_number)}>{html.escape(_format_value(value, spec))}</{tag}>"


def _align(is_number: bool) -> str:
    return ' class="number" style="text-align: right"' if is_number else ' style="text-align: left"'


def _format_value(value: Any, spec: str) -> str:
    if pd.isna(value):
        return "–"
    if spec:
        return format(value, spec)
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, int | np.integer):
        return f"{value:,}"
    return f"{value:,.3f}" if isinstance(value, float | np.floating) else str(value)


def _render_png(fig: "Figure") -> tuple[bytes, tuple[int, int]]:
    """Return the figure as a palette PNG, the same bytes on every run, and its size as shown."""
    drawn = io.BytesIO()
    fig.savefig(drawn, format="png", dpi=PIXELS_PER_INCH, bbox_inches="tight", facecolor="white")
    # Matplotlib stamps its version into the file; Pillow writes pixels only.
    image = _reduce_colours(Image.open(drawn).convert("RGB"))
    packed = io.BytesIO()
    image.save(packed, format="png", optimize=True)
    width, height = (round(side * SHOWN_PIXELS_PER_INCH / PIXELS_PER_INCH) for side in image.size)
    return packed.getvalue(), (width, height)


def _reduce_colours(image: Image.Image) -> Image.Image:
    """Return the picture with a palette of 256 colours: a third of the size, and no difference to the eye."""
    palette = image.quantize(colors=256, kmeans=1, dither=Image.Dither.NONE)
    if image.getcolors(CHART_COLOURS):
        return _keep_paper(palette, image)
    # Faces have more colours than a palette; dithering keeps lips red and backgrounds even.
    return _keep_paper(image.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG), image)


def _keep_paper(reduced: Image.Image, image: Image.Image) -> Image.Image:
    """Return the reduced picture with the colour of its corner as it was: white is not to turn grey."""
    colours, paper = reduced.getpalette(), reduced.getpixel((0, 0))
    colours[3 * paper : 3 * paper + 3] = image.getpixel((0, 0))
    reduced.putpalette(colours)
    return reduced


def _display_html(content: str) -> None:
    from IPython.display import HTML, display

    display(HTML(content))
