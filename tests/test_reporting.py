import html
import json
import re
from types import SimpleNamespace

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pandas as pd
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from PIL import Image

from fer_lib import metrics_file
from fer_lib.errors import FerError
from fer_lib.paths import get_output_dirs
from fer_lib.reporting import execution, index_page
from fer_lib.reporting import stage as reporting
from fer_lib.reporting.execution import export_html, normalise_notebook
from fer_lib.reporting.index_page import build_index
from fer_lib.reporting.stage import build_table, start_stage, tabulate_metrics


@pytest.fixture
def stage(tmp_path, monkeypatch):
    """Return a stage that writes below a temporary folder and needs no packed data."""
    monkeypatch.setattr(metrics_file, "get_code_commit", lambda: "c0ffee" * 6)
    started = start_stage("03_training", "demo", out_dir=tmp_path)
    meta = {"layout": "demo", "dataset": "demo", "data_hash": "da7a" * 16}
    started.__dict__["data"] = SimpleNamespace(meta=meta)
    return started


@pytest.fixture
def shown(monkeypatch):
    """Return the list that collects the HTML a stage shows."""
    collected = []
    monkeypatch.setattr(reporting, "_display_html", collected.append)
    return collected


def draw_line():
    fig, axis = plt.subplots(figsize=(3, 2))
    axis.plot([0, 1], [1, 3])
    return fig


def read_metrics_file(stage):
    return json.loads((stage.dirs.metrics / "training.json").read_text())


def test_metrics_carry_the_stage_s_data_and_time(stage):
    stage.write_metrics({"test.accuracy": 0.5}, seed=7)
    written = read_metrics_file(stage)
    assert stage.metrics == written
    assert (written["test.accuracy"], written["seed"], written["data_hash"]) == (0.5, 7, "da7a" * 16)
    assert 0 <= written["wall_seconds"] < 60
    stage.write_metrics({"test.accuracy": 0.6}, seed=7, wall_seconds=99)
    assert stage.metrics["wall_seconds"] == 99


def test_interval_reads_as_the_field_writes_it(stage):
    keys = ("test.accuracy", "test.accuracy_lo", "test.accuracy_hi")
    stage.write_metrics(dict(zip(keys, (0.65249, 0.637, 0.668), strict=True)), seed=0)
    assert stage.format_interval("test.accuracy") == "0.652 [0.637, 0.668]"


def test_undefined_value_is_left_out_of_metrics_and_a_dash_in_tables():
    nothing = (float("nan"),) * 3
    assert metrics_file.flatten_interval("recall.fear", nothing) == {}
    assert metrics_file.show_interval(nothing) == "–"
    values = (0.5, 0.4, 0.6)
    assert metrics_file.flatten_interval("a.b", values) == {"a.b": 0.5, "a.b_lo": 0.4, "a.b_hi": 0.6}
    assert metrics_file.show_interval(values, ".1f") == "0.5\N{NO-BREAK SPACE}[0.4,\N{NO-BREAK SPACE}0.6]"


def test_metrics_of_a_stage_that_has_not_run_say_what_to_do(stage):
    with pytest.raises(FerError, match="run the notebook"):
        _ = stage.metrics


def test_paper_stays_white_whatever_the_colours(stage, shown):
    figure = plt.figure(figsize=(4, 4))
    axes = figure.subplots()
    axes.imshow(np.random.default_rng(0).random((60, 60, 3)))  # more colours than a palette holds
    axes.set_axis_off()
    stage.show_figure(figure, "noise", "Noise.")
    saved = Image.open(stage.dirs.figures / "training" / "noise.png").convert("RGB")
    assert saved.getpixel((0, 0)) == (255, 255, 255)


def test_figure_is_saved_the_same_twice_shown_with_alt_text_and_closed(stage, shown):
    stage.show_figure(draw_line(), "line", 'Loss < 1 & "falling".')
    path = stage.dirs.figures / "training" / "line.png"
    first = path.read_bytes()
    stage.show_figure(draw_line(), "line", 'Loss < 1 & "falling".')
    assert path.read_bytes() == first
    assert shown[0] == shown[1]
    assert 'alt="Loss &lt; 1 &amp; &quot;falling&quot;."' in shown[0]
    assert "<figcaption>" in shown[0]
    assert not plt.get_fignums()


def test_table_is_escaped_right_aligned_and_has_row_heads():
    df = pd.DataFrame(
        {"share": [0.25, None], "n": [12345, 2], "note": ["<b>", "ok"]},
        index=pd.Index(["fear", "sad"], name="emotion"),
    )
    table = build_table(df, "Classes & counts", {"share": ".0%"})
    assert re.findall(r'<th scope="row"[^>]*>(\w+)<', table) == ["fear", "sad"]
    assert re.findall(r'class="number"[^>]*>([^<]+)</td>', table) == ["25%", "12,345", "–", "2"]
    assert "&lt;b&gt;" in table
    assert "<figcaption>Classes &amp; counts</figcaption>" in table


def test_table_that_only_counts_its_rows_has_no_row_heads():
    assert 'scope="row"' not in build_table(pd.DataFrame({"a": [1, 2]}), "Rows")


def test_format_for_a_missing_column_is_an_error():
    with pytest.raises(FerError, match="'b'"):
        build_table(pd.DataFrame({"a": [1]}), "Rows", {"b": ".1f"})


def test_csv_has_fixed_digits(stage):
    stage.write_table(pd.DataFrame({"epoch": [1], "loss": [0.123456789]}), "history")
    assert (stage.dirs.reports / "history.csv").read_text() == "epoch,loss\n1,0.123457\n"


def build_executed(seconds="0.1"):
    """Return a notebook as papermill leaves it, with everything in it that changes from run to run."""
    noisy = new_code_cell(
        "train()",
        metadata={"papermill": {"duration": seconds}, "execution": {"iopub.execute_input": seconds}},
        outputs=[
            new_output("stream", name="stderr", text=f"epoch 1: 100% {seconds}s"),
            new_output("stream", name="stdout", text=f"<Figure at 0x7f{len(seconds)}a{seconds[-1]}>\n"),
            new_output("display_data", {"application/vnd.jupyter.widget-view+json": {"model_id": seconds}}),
            new_output("display_data", {"text/html": '<img alt="x" src="data:image/png;base64,A 0x7fab==">'}),
        ],
    )
    injected = new_code_cell(f'out_dir = "/tmp/{seconds}"', metadata={"tags": ["injected-parameters"]})
    cells = [new_markdown_cell("# Title\n\n**Question.** Why?"), injected, noisy]
    for position, cell in enumerate(cells):
        cell["id"] = f"cell-{position}"
    return new_notebook(
        cells=cells, metadata={"papermill": {"start_time": seconds}, "widgets": {"x": seconds}}
    )


def test_two_runs_of_a_notebook_are_normalised_to_the_same():
    first, second = (normalise_notebook(build_executed(seconds)) for seconds in ("0.1", "12.7"))
    assert nbformat.writes(first) == nbformat.writes(second)
    assert len(first.cells[1].outputs) == 2  # what the notebook printed, and its picture
    assert "0x7fab" in first.cells[1].outputs[1].data["text/html"]


@pytest.fixture
def study(tmp_path, monkeypatch):
    """Return the output folders of a study with two notebooks."""
    folder = tmp_path / "notebooks"
    folder.mkdir()
    for name, question in (("01_first", "Is `it` so?"), ("02_second", "And this,\nor not?")):
        opening = new_markdown_cell(f"# Notebook {name}\n\n**Question.** {question}\n\n**Inputs.** None.")
        nbformat.write(new_notebook(cells=[opening]), folder / f"{name}.ipynb")
    monkeypatch.setattr(index_page, "NOTEBOOKS_DIR", folder)
    monkeypatch.setattr(execution, "NOTEBOOKS_DIR", folder)
    return get_output_dirs("demo", tmp_path)


def test_page_needs_nothing_from_outside_and_is_small(study):
    page = export_html(normalise_notebook(build_executed()), "01_first", "demo", study)
    assert not re.search(r"""(?:src|href)=["'](?!data:|[\w.]+\.html)""", page)
    assert "@import" not in page
    assert "url(" not in page
    # The design's limit for a page without its figures.
    assert len(page) < 60_000


def test_page_keeps_code_as_it_is_with_one_span_for_a_string(study):
    code = 'found = f"{name:.1%} of" f" {count}" + "end"'
    page = export_html(
        normalise_notebook(new_notebook(cells=[new_code_cell(code)])), "01_first", "demo", study
    )
    [block] = re.findall(r"<pre>(.*?)</pre>", page, re.DOTALL)
    assert html.unescape(re.sub(r"<[^>]*>", "", block)).strip() == code
    spans = re.findall(r'<span class="s\w">([^<]*)</span>', block)
    assert html.unescape(spans[-1]) == '"end"'
    assert len(spans) < 8  # the highlighter makes one of every quote, brace and piece


def test_page_hides_code_and_links_its_neighbour(study):
    page = export_html(normalise_notebook(build_executed()), "01_first", "demo", study)
    assert re.search(r'<details class="code">\s*<summary>', page)
    assert 'href="02_second.html"' in page
    assert 'href="index.html"' in page
    assert "Smoke run" not in page
    assert "Smoke run" in export_html(normalise_notebook(build_executed()), "01_first", "demo", study, True)


def write_results(dirs):
    (dirs.reports / "findings").mkdir(parents=True)
    (dirs.reports / "findings" / "first.md").write_text("It is **so**.\n")
    (dirs.reports / "01_first.html").write_text('<figure id="figure-one">')
    (dirs.figures / "first").mkdir(parents=True)
    (dirs.figures / "first" / "one.png").write_bytes(b"")
    dirs.metrics.mkdir()
    scores = {"test.accuracy": 0.652, "test.accuracy_lo": 0.637, "test.accuracy_hi": 0.668}
    (dirs.metrics / "evaluation.json").write_text(json.dumps(scores))


def test_index_shows_question_finding_thumbnail_and_score(study, tmp_path):
    write_results(study)
    page = build_index("demo", tmp_path).read_text()
    assert "Is <code>it</code> so?" in page
    assert "And this, or not?" in page
    assert "It is <strong>so</strong>." in page
    assert 'href="01_first.html"' in page
    assert 'src="figures/first/one.png"' in page
    assert "65.2%" in page
    assert "[63.7%, 66.8%]" in page
    assert page.count("Not run yet.") == 1
    assert build_index("demo", tmp_path).read_text() == page


def test_notebook_without_a_question_is_an_error(study, tmp_path):
    nbformat.write(
        new_notebook(cells=[new_markdown_cell("# Only a title")]), tmp_path / "notebooks/03_x.ipynb"
    )
    with pytest.raises(FerError, match=r"03_x\.ipynb.*Question"):
        build_index("demo", tmp_path)


def test_table_of_metrics_leaves_empty_what_is_not_there():
    metrics = {"b0.accuracy": 0.7, "lite0.accuracy": 0.6, "b0.recall.fear": 0.4}
    rows = {"big": "b0", "small": "lite0"}
    table = tabulate_metrics(metrics, rows, {"right": "{}.accuracy", "fear": "{}.recall.fear"}, "network")
    assert table.index.tolist() == ["big", "small"]
    assert table.index.name == "network"
    assert table["right"].tolist() == [0.7, 0.6]
    assert table.loc["big", "fear"] == 0.4
    assert pd.isna(table.loc["small", "fear"])
