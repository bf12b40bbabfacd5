import io
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

from demo_faces.clips import draw_scene
from fer_lib import metrics_file
from fer_lib.errors import FerError
from fer_lib.inference.registry import RELEASE_DIR
from fer_lib.intervals import Interval
from fer_lib.metrics_file import Metrics
from fer_lib.models.checkpoints import read_config
from fer_lib.paths import get_output_dirs
from fer_lib.reporting import execution, results
from fer_lib.reporting import readme as tables
from fer_lib.reporting import stage as reporting
from fer_lib.reporting.execution import export_html
from fer_lib.reporting.index_page import build_index
from fer_lib.reporting.readme import check_readme, update_readme
from fer_lib.reporting.stage import build_table, start_stage, tabulate_metrics


@pytest.fixture
def stage(tmp_path, monkeypatch):
    """Return a stage that writes below a temporary folder and needs no packed data."""
    monkeypatch.setattr(metrics_file, "get_commit", lambda: "c0ffee" * 6)
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


def build_metrics(accuracy=0.5, stage="training"):
    metrics = Metrics(stage)
    metrics.add("accuracy", Interval(accuracy, accuracy - 0.02, accuracy + 0.02), split="test", n=1200)
    return metrics


def draw_line():
    fig, axis = plt.subplots(figsize=(3, 2))
    axis.plot([0, 1], [1, 3])
    return fig


def read_files(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_metrics_carry_the_stage_s_data_and_time(stage):
    stage.write_metrics(build_metrics(), seed=7, headline=["test.accuracy"])
    assert json.loads((stage.dirs.metrics / "training.json").read_text()) == {"test.accuracy": 0.5}
    written = stage.metrics
    assert f"{written.interval('test.accuracy'):.0%}" == "50%\N{NO-BREAK SPACE}[48%,\N{NO-BREAK SPACE}52%]"
    assert (written.provenance["seed"], written.provenance["data"]) == (7, "da7a" * 16)
    assert 0 <= written.provenance["wall_seconds"] < 60
    theirs = {"dataset": "demo", "data_hash": "0" * 64}
    stage.write_metrics(build_metrics(0.6), seed=7, wall_seconds=99, meta=theirs)
    assert stage.metrics.provenance["wall_seconds"] == 99
    assert stage.metrics.provenance["data"] == "0" * 64


def test_metrics_of_a_stage_that_has_not_run_say_what_to_do(stage):
    with pytest.raises(FerError, match="run stage 'training' first"):
        _ = stage.metrics


def test_figure_is_saved_the_same_twice_shown_with_alt_text_and_closed(stage, shown):
    stage.show_figure(draw_line(), "line", 'Loss < 1 & "falling".')
    path = stage.dirs.figures / "training" / "line.webp"
    first = path.read_bytes()
    stage.show_figure(draw_line(), "line", 'Loss < 1 & "falling".')
    assert path.read_bytes() == first
    assert not Image.open(path).info.keys() & {"exif", "xmp", "icc_profile"}
    assert shown[0] == shown[1]
    assert 'alt="Loss &lt; 1 &amp; &quot;falling&quot;."' in shown[0]
    assert "<figcaption>" in shown[0]
    assert not plt.get_fignums()


def read_figure(fig, tmp_path):
    """Return what matplotlib draws and what is kept of it, as int (H, W, 3)."""
    drawn = io.BytesIO()
    fig.savefig(drawn, format="png")
    plt.close(fig)
    content, _ = reporting.encode_webp(drawn)
    (tmp_path / "kept.webp").write_bytes(content)
    return [np.array(Image.open(one).convert("RGB"), int) for one in (drawn, tmp_path / "kept.webp")]


def test_chart_keeps_its_lines_and_text_sharp(tmp_path):
    drawn, kept = read_figure(draw_line(), tmp_path)
    assert np.abs(drawn - kept).max() <= 4  # of 255, by the palette; lossy coding blurs edges by more


def test_figure_of_faces_keeps_its_colours_and_is_small(tmp_path):
    fig, axis = plt.subplots()
    axis.imshow(draw_scene(2)[0])
    drawn, kept = read_figure(fig, tmp_path)
    assert np.abs(drawn - kept).mean() < 2  # of 255; a palette of 256 colours loses as much
    exact = io.BytesIO()
    Image.fromarray(drawn.astype(np.uint8)).save(exact, "webp", lossless=True)
    assert (tmp_path / "kept.webp").stat().st_size < len(exact.getvalue()) / 3


def test_table_is_escaped_right_aligned_and_has_row_heads():
    df = pd.DataFrame(
        {"share": [0.25, None], "n": [12345, 2], "note": ["<b>", "ok"], "holds": [True, False]},
        index=pd.Index(["fear", "sad"], name="emotion"),
    )
    table = build_table(df, "Classes & counts", {"share": ".0%"})
    assert re.findall(r'<th scope="row"[^>]*>(\w+)<', table) == ["fear", "sad"]
    assert re.findall(r'class="number"[^>]*>([^<]+)</td>', table) == ["25%", "12,345", "–", "2"]
    assert "&lt;b&gt;" in table
    assert "<td>yes</td>" in table
    assert re.search(r'<div role="region" aria-label="Classes &amp; counts" tabindex="0"', table)
    assert table.count('<th scope="col"') == 5
    assert "<figcaption>Classes &amp; counts</figcaption>" in table


def test_long_names_in_a_table_may_wrap_and_numbers_may_not():
    table = build_table(pd.DataFrame({"key": ["macro.recall_gain"], "n": ["0.702 [0.687]"]}), "a.b")
    assert "<td>macro.<wbr>recall_<wbr>gain</td>" in table
    assert '<td class="number">0.702 [0.687]</td>' in table
    assert 'aria-label="a.b"' in table


def test_table_that_only_counts_its_rows_has_no_row_heads():
    assert 'scope="row"' not in build_table(pd.DataFrame({"a": [1, 2]}), "Rows")


def test_format_for_a_missing_column_is_an_error():
    with pytest.raises(FerError, match="'b'"):
        build_table(pd.DataFrame({"a": [1]}), "Rows", {"b": ".1f"})


STATE = "application/vnd.jupyter.widget-state+json"


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
        cells=cells,
        metadata={"papermill": {"start_time": seconds}, "widgets": {STATE: {"state": {"a": seconds}}}},
    )


@pytest.fixture
def study(tmp_path, monkeypatch):
    """Return the output folders of a study with two notebooks."""
    folder = tmp_path / "notebooks"
    folder.mkdir()
    for name, question in (("01_first", "Is `it` so?"), ("02_second", "And this,\nor not?")):
        opening = new_markdown_cell(f"# Notebook {name}\n\n**Question.** {question}\n\n**Inputs.** None.")
        nbformat.write(new_notebook(cells=[opening]), folder / f"{name}.ipynb")
    monkeypatch.setattr(results, "NOTEBOOKS_DIR", folder)
    monkeypatch.setattr(execution, "NOTEBOOKS_DIR", folder)
    return get_output_dirs("demo", tmp_path)


def export(study, seconds="0.1", **options):
    return export_html(build_executed(seconds), "01_first", "demo", study, **options)


def test_two_runs_of_a_notebook_give_the_same_page(study):
    page = export(study)
    assert page == export(study, "12.7")
    assert "&lt;Figure at 0x…&gt;" in page
    assert "0x7fab" in page  # within an image it is no address
    assert "epoch 1" not in page
    assert "out_dir" not in page


def test_page_shows_everything_without_another_file_and_is_small(study):
    page = export(study)
    assert re.findall(r"""(?:src|href)=["'](?!data:|#|[\w.]+\.html)([^"']*)""", page) == ["pages.js"]
    assert "@import" not in page
    assert "url(" not in page
    # The design's limit for a page without its figures.
    assert len(page) < 60_000


def test_page_hides_code_and_links_the_index(study):
    page = export(study)
    assert re.search(r'<details class="code">\s*<summary>', page)
    assert 'href="index.html"' in page
    assert "Smoke run" not in page
    assert "Smoke run" in export(study, smoke=True)
    assert not re.search('(?:href|src)="(?!#)', export(study, is_alone=True).replace('src="data:', ""))


def test_long_page_lists_its_sections(study):
    notebook = build_executed()
    notebook.cells += [new_markdown_cell(f"## Part {name}, *so*") for name in "abc"]
    page = export_html(notebook, "01_first", "demo", study)
    entries = re.findall(r'<li><a href="#([^"]+)">(.*?)</a></li>', page)
    assert entries == [(f"Part-{name},-so", f"Part {name}, <em>so</em>") for name in "abc"]
    assert all(f'<h2 id="{anchor}">' in page for anchor, _ in entries)
    assert "contents" not in export(study).split("</style>")[1]


def test_a_change_elsewhere_leaves_metrics_page_and_index_as_they_are(study, stage, tmp_path, monkeypatch):
    def run(accuracy=0.5, **later):
        for name, value in later.items():
            monkeypatch.setattr(metrics_file, name, lambda *_, value=value: value)
        stage.write_metrics(build_metrics(accuracy, "first"), seed=0, headline=["test.accuracy"])
        page = study.reports / "01_first.html"
        page.write_text(export(study))
        build_index("demo", tmp_path)
        return read_files(study.reports)

    stage.notebook = "01_first"
    monkeypatch.setattr(metrics_file, "find_stage", lambda *_: {"deps": []})
    monkeypatch.setattr(metrics_file, "hash_stage_params", lambda *_: "a")
    monkeypatch.setattr(metrics_file, "hash_stage_code", lambda *_: {"fer_lib/data": "b"})
    first = run()
    assert b"c0ffee" in first[study.reports / "01_first.html"]
    assert run(get_commit="beef" * 9, _get_device="GPU") == first
    assert run(hash_stage_params="c") != first  # what the numbers depend on is told anew
    assert run(accuracy=0.6) != first


def write_results(dirs):
    (dirs.reports / "findings").mkdir(parents=True)
    (dirs.reports / "findings" / "first.md").write_text("It is **so**.\n")
    (dirs.reports / "01_first.html").write_text('<figure id="figure-one"><img src="data:" alt="The one.">')
    (dirs.figures / "first").mkdir(parents=True)
    (dirs.figures / "first" / "one.webp").write_bytes(b"")
    write_evaluation(dirs)


def write_evaluation(dirs):
    metrics = build_metrics(0.7, "evaluation")
    metrics.add("accuracy", Interval(0.6, 0.58, 0.62), model="baseline", split="test")
    metrics.describe("baseline.budget", "5 epochs of 99 faces at 112 px")
    metrics.describe("selected", "b0")
    metrics.describe("b0.budget", "8 epochs of 99 faces at 104 px")
    dirs.get_table("evaluation").parent.mkdir(parents=True)
    dirs.get_table("evaluation").write_text(metrics_file._to_csv(metrics.to_frame()))
    dirs.get_provenance("evaluation").parent.mkdir(parents=True)
    dirs.get_provenance("evaluation").write_text(json.dumps({"facts": metrics.facts}))


def test_index_shows_question_finding_thumbnail_and_score(study, tmp_path):
    write_results(study)
    page = build_index("demo", tmp_path).read_text()
    assert "Is <code>it</code> so?" in page
    assert "And this, or not?" in page
    assert "It is <strong>so</strong>." in page
    assert 'href="01_first.html"' in page
    assert 'src="figures/first/one.webp"' in page
    assert "<dt>Accuracy</dt>" in page
    assert "70.0%" in page
    assert "[68.0%,\N{NO-BREAK SPACE}72.0%]" in page
    assert page.count("Not run yet.") == 1
    assert build_index("demo", tmp_path).read_text() == page


def test_pages_learn_from_the_index_which_others_exist(study, tmp_path):
    write_results(study)
    build_index("demo", tmp_path)
    listed = (study.reports / "pages.js").read_text()
    assert listed.startswith("window.reportPages = [")
    assert re.findall(r'"name": "(\w+)"', listed) == ["01_first"]  # 02_second has not run
    assert "window.vegaEmbed" in (study.reports.parent / "charts.js").read_text()


def test_study_is_one_file_with_findings_figures_and_provenance(study, tmp_path):
    write_results(study)
    build_index("demo", tmp_path)
    page = (study.reports / "study.html").read_text()
    assert "It is <strong>so</strong>." in page
    assert not re.search('(?:href|src)="(?!data:|#)', page)
    assert "batch size of 32" in page  # of `demo` in params.yaml


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


@pytest.fixture
def readme(tmp_path, monkeypatch):
    path = tmp_path / "README.md"
    path.write_text(f"before\n{tables.BEGIN}\nold\n{tables.END}\nafter\n")
    monkeypatch.setattr(tables, "README", path)
    monkeypatch.setattr(tables, "ROOT", tmp_path)
    return path


def test_readme_table_is_written_from_the_metrics_and_checked(readme):
    write_evaluation(get_output_dirs("demo", readme.parent))
    assert not check_readme()
    update_readme()
    text = readme.read_text().replace("\N{NO-BREAK SPACE}", " ")
    recipe = "60.0% [58.0%, 62.0%] (`baseline`, 5 epochs of 99 faces at 112 px)"
    selected = "70.0% [68.0%, 72.0%] (`b0`, 8 epochs of 99 faces at 104 px)"
    row = f"1,200 | {recipe} | {selected} | – | – | – | – | – |"
    assert f"| [demo](reports/demo/index.html) | {row}" in text
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert check_readme()


def test_readme_names_measured_and_implemented_claims_apart(readme):
    dirs = get_output_dirs("demo", readme.parent)
    write_evaluation(dirs)
    update_readme()
    assert "Claims" not in readme.read_text()  # none has been judged
    judged = [
        ("S1", "measured", "partly"),
        ("S3", "implemented", "implemented"),
        ("S4", "measured", "partly"),
    ]
    rows = [dict(zip(("id", "basis", "verdict"), row, strict=True)) for row in judged]
    dirs.ledger.write_text(json.dumps({"claims": rows}))
    assert not check_readme()
    update_readme()
    page = "[demo](reports/demo/09_claims.html)"
    assert f"| {page} | – | S1, S4 | – | – | – |" in readme.read_text()
    assert f"| {page} | S3 | – | – | – |" in readme.read_text()


def test_readme_says_what_every_released_variant_scores_by_both_judges(readme):
    write_evaluation(get_output_dirs("demo", readme.parent))
    update_readme()
    text = readme.read_text()
    for name in ("photographs", "fer2013-labels"):
        config = read_config(RELEASE_DIR / name)
        for variant, of in config["variants"].items():
            scores = [
                f"{100 * of['metrics'][f'test.{judge}accuracy']:.1f}%\N{NO-BREAK SPACE}["
                for judge in ("", "majority.")
            ]
            mark = " (default)" if variant == config["default"] else ""
            [row] = [
                line for line in text.splitlines() if f"[{name}]" in line and f"| `{variant}`{mark} |" in line
            ]
            assert [score in row for score in scores] == [True, True]


def test_readme_that_lost_its_markers_is_told(readme):
    readme.write_text("nothing\n")
    with pytest.raises(FerError, match="put the two lines back"):
        update_readme()


def test_readme_of_the_project_is_up_to_date():
    assert check_readme(), "run `make readme`"


def test_zero_of_a_table_has_no_sign():
    table = pd.DataFrame({"arm": ["a", "b"], "change": [-0.0004, -0.06]})
    html = build_table(table, "Changes", {"change": ".1f"})
    assert ">0.0<" in html
    assert ">-0.1<" in html
