"""Show and write the results of a notebook; `execution` turns the notebook into a page.

stage = start_stage("03_training", dataset, smoke, out_dir)
stage.show_figure(fig, "loss_curves", "Loss by epoch.")
stage.write_metrics(metrics, stage.params.training.seed, headline=["val.accuracy"])
stage.show_finding(f"The best epoch reaches {stage.metrics['val.accuracy']:.1%}.")
"""

import base64
import html
import io
import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from pandas.io.formats.style import Styler
from PIL import Image

from fer_lib.errors import FerError
from fer_lib.files import write_atomically
from fer_lib.metrics_file import Metrics, read_metrics, write_metrics
from fer_lib.params import Params, load_params
from fer_lib.paths import OutputDirs, get_output_dirs

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from fer_lib.data.packed import PackedDataset

TEMPLATE_DIR = Path(__file__).parent / "report_template"
TableStyler = Styler.from_custom_template(str(TEMPLATE_DIR), html_table="table.html.j2")

PIXELS_PER_INCH = 144
SHOWN_PIXELS_PER_INCH = 96
"""A figure of 8 inches is drawn 1152 pixels wide and shown 768 wide, so it is sharp on dense screens."""

CHART_TYPE = "application/vnd.vegalite+json"
"""Of the element that holds a figure's chart; `report.js` looks for it."""

SMOKE_FACES = 128
"""Faces per split in smoke mode: every step runs, none takes long."""


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
        """The name of the stage in its files; see `get_stage_name`."""
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
    def metrics(self) -> Metrics:
        """The stage's metrics as they stand in its files. Raises FerError before `write_metrics`."""
        return read_metrics(self.dirs, self.name)

    def show_figure(
        self, fig: "Figure", name: str, caption: str, chart: Mapping[str, Any] | None = None
    ) -> None:
        """Save `fig` to `figures/<stage>/<name>.webp`, show it with its caption, and close it.

        `caption` is plain text and also the image's text alternative. The first figure of a notebook is its
        thumbnail on the index page.

        chart: the same figure as a Vega-Lite specification, of a `chart_*` function. A browser with
        JavaScript shows it in place of the image.
        """
        content, fragment = embed_figure(fig, name, caption, chart)
        write_atomically(self.dirs.figures / self.name / f"{name}.webp", content)
        _display_html(fragment)

    def show_table(self, df: pd.DataFrame, caption: str, formats: Mapping[str, str] | None = None) -> None:
        """Show `df` as a table; see `build_table`."""
        _display_html(build_table(df, caption, formats))

    def write_plot(self, df: pd.DataFrame, name: str) -> None:
        """Write what `dvc plots` draws, `plots/<name>.csv`, with four decimals."""
        content = df.to_csv(index=False, float_format="%.4f", lineterminator="\n")
        write_atomically(self.dirs.reports / "plots" / f"{name}.csv", content.encode())

    def show_text(self, markdown: str) -> None:
        """Show generated prose."""
        from IPython.display import Markdown, display

        display(Markdown(markdown))

    def show_finding(self, markdown: str, measures: Mapping[str, object] | None = None) -> None:
        """Show the notebook's conclusion and keep it for the index page, in `findings/<stage>.md`.

        Its numbers come from `metrics`, never from a keyboard.   markdown: a plain sentence or two.
        measures: what they rest on, for a small table: name to value. The interval of a formatted `Interval`
        gets a column of its own.
        """
        rows = [[name, *_split_interval(str(value))] for name, value in (measures or {}).items()]
        if not any(interval for _, _, interval in rows):
            rows = [row[:2] for row in rows]
        columns = ["quantity", "value", "95% interval"][: len(rows[0])] if rows else []
        lines = [columns, ["---", "--:", "--:"][: len(columns)], *rows] if rows else []
        table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        text = f"{markdown.strip()}\n\n{table}".strip()
        write_atomically(self.dirs.reports / "findings" / f"{self.name}.md", f"{text}\n".encode())
        self.show_text(f'<div class="finding">\n\n{text}\n\n</div>')

    def write_metrics(
        self,
        metrics: Metrics,
        seed: int,
        headline: Sequence[str] = (),
        wall_seconds: float | None = None,
        meta: Mapping[str, Any] | None = None,
    ) -> None:
        """Write the stage's metrics as `metrics_file.write_metrics` does.

        wall_seconds: instead of the time since the stage started, where the work began in an earlier process.
        meta: `dataset` and `data_hash` of faces that are not the stage's packed ones.
        """
        seconds = wall_seconds or time.monotonic() - self.started
        write_metrics(self.dirs, metrics, meta or self.data.meta, self.params, seed, seconds, headline)


def embed_figure(
    fig: "Figure", name: str, caption: str, chart: Mapping[str, Any] | None = None
) -> tuple[bytes, str]:
    """Return a figure as an image file and as HTML, as `Stage.show_figure` shows it, and close it."""
    import matplotlib.pyplot as plt

    drawn = io.BytesIO()
    fig.savefig(drawn, format="png", dpi=PIXELS_PER_INCH, bbox_inches="tight", facecolor="white")
    plt.close(fig)  # or Jupyter shows it a second time at the end of the cell
    content, (width, height) = encode_webp(drawn)
    data, text = base64.b64encode(content).decode(), html.escape(caption)
    # Compact, and free of what would end the element.
    spec = json.dumps(chart, separators=(",", ":")).replace("<", "\\u003c") if chart else ""
    fragment = (
        f'<figure id="figure-{html.escape(name)}"><img src="data:image/webp;base64,{data}" alt="{text}" '
        f'width="{width}" height="{height}" style="max-width: 100%; height: auto">'
        + (f'<script type="{CHART_TYPE}">{spec}</script>' if chart else "")
        + f"<figcaption>{text}</figcaption></figure>"
    )
    return content, fragment


def encode_webp(drawn: io.BytesIO) -> tuple[bytes, tuple[int, int]]:
    """Return a figure as WebP, and its size as shown, (width, height) in pixels.

    Charts are smaller without loss, in a palette of 256 colours; faces are smaller with some, at quality 90,
    and keep their colours. The smaller one is taken. The same figure gives the same bytes.
    """
    image = Image.open(drawn).convert("RGB")
    palette = image.quantize(256, dither=Image.Dither.NONE).convert("RGB")
    exact, lossy = io.BytesIO(), io.BytesIO()
    # Quality, here effort: 100 saves 2% and takes forty times as long, seconds a figure.
    palette.save(exact, format="webp", lossless=True, quality=99, method=6)
    image.save(lossy, format="webp", quality=90, method=6)
    width, height = (round(side * SHOWN_PIXELS_PER_INCH / PIXELS_PER_INCH) for side in image.size)
    return min(exact.getvalue(), lossy.getvalue(), key=len), (width, height)


def start_stage(notebook: str, dataset: str, smoke: bool = False, out_dir: str | None = None) -> Stage:
    """Return the stage of `notebook` (`03_training`). Without `out_dir` it writes to `scratch/`.

    Raises ParamsError when `params.yaml` does not fit.
    """
    params = load_params(dataset, smoke=smoke)
    return Stage(notebook, dataset, params, get_output_dirs(dataset, out_dir), smoke)


def get_stage_name(notebook: str) -> str:
    """Return the notebook's name without its number: `training` for `03_training`."""
    return notebook.split("_", 1)[1]


def tabulate_metrics(
    metrics: Mapping[str, Any], rows: Mapping[str, str], columns: Mapping[str, str], row_title: str
) -> pd.DataFrame:
    """Return metrics as a table: `rows` and `columns` map what names them to their part of the key.

    A column's part holds `{}` where the row's stands, as in `{"precision": "test.precision.{}"}`. A metric
    that is not there, of a class without images say, leaves its cell empty.
    """
    table = {title: [metrics.get(key.format(row)) for row in rows.values()] for title, key in columns.items()}
    return pd.DataFrame(table, index=pd.Index(rows, name=row_title))


_ROUNDED_AWAY = re.compile(r"-(0(?:\.0+)?%?)")
"""A number below zero of which rounding leaves nothing but the sign."""

_LONG_NAME = re.compile(r"(?<=[a-z])[._](?=[a-z])")
"""Where a key such as `test.macro.recall` may go on in the next line of a cell."""


_NUMBER = re.compile(r"[+−-]?[\d.,]+ ?%?(\s\[.*\])?|–")
"""A cell that is a number, perhaps with its interval, or a dash in place of one."""


def _is_of_numbers(column: pd.Series) -> bool:
    """Return whether a column of a table is read as numbers: it is aligned and sorted so."""
    return pd.api.types.is_numeric_dtype(column) or all(_NUMBER.fullmatch(str(cell)) for cell in column)


def build_table(df: pd.DataFrame, caption: str, formats: Mapping[str, str] | None = None) -> str:
    """Return `df` as an HTML table; the index heads the rows unless it only counts them.

    formats: column to a format such as `.1%`. Without one, whole numbers get thousands separators, floats
    three decimals, and a missing value a dash. Raises FerError for a format of a column that is not there.
    """
    has_row_heads = not isinstance(df.index, pd.RangeIndex) or df.index.name is not None
    shown = df.rename_axis(index=lambda name: name or "").reset_index() if has_row_heads else df
    formats = formats or {}
    unknown = formats.keys() - set(shown.columns)
    if unknown:
        raise FerError(f"table {caption!r}: a format for {min(unknown)!r}, which is no column")
    truths = shown.select_dtypes(bool)
    shown = shown.assign(**truths.replace({True: "yes", False: "no"}))
    styler = TableStyler(shown).set_caption(html.escape(caption)).hide(axis="index")
    styler.format_index(escape="html", axis="columns").format(
        {column: f"{{:{spec}}}" for column, spec in formats.items()},
        na_rep="–",
        precision=3,
        thousands=",",
        escape="html",
    )
    numeric = [_is_of_numbers(shown[column]) for column in shown]
    table = styler.to_html(exclude_styles=True, numeric=numeric, has_row_heads=has_row_heads)
    caption, end, cells = table.partition("</figcaption>")
    return caption + end + re.sub(r"(?<=>)[^<>]+(?=<)", lambda text: _tidy_cell(text[0]), cells)


def _tidy_cell(cell: str) -> str:
    """Return a cell whose long names may go on in the next line; a zero has no sign."""
    return _LONG_NAME.sub(
        r"\g<0><wbr>", _ROUNDED_AWAY.sub(r"\1", cell) if _ROUNDED_AWAY.fullmatch(cell) else cell
    )


def _split_interval(text: str) -> tuple[str, str]:
    """Return `0.652` and `[0.637, 0.668]` of a formatted Interval; of another text itself and nothing."""
    value, bracket, rest = text.partition("\N{NO-BREAK SPACE}[")
    return (value, f"[{rest}") if bracket else (text, "")


def _display_html(content: str) -> None:
    from IPython.display import HTML, display

    display(HTML(content))
