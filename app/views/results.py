"""Show the page Results: what the pipeline has measured so far, read anew at every look."""

from typing import Any

import streamlit as st

from app.common import escape_markdown, offer_download
from app.results_data import (
    MISSING,
    SCORES,
    ScoredModel,
    StageReport,
    build_chart_data,
    build_comparison,
    build_metric_table,
    list_datasets,
    read_models,
    read_stages,
    read_text,
    remove_page_links,
    show_commit,
)
from fer_lib.metrics_file import Metrics
from fer_lib.reporting.index_page import ABOUT

# Pixels: height of one model in the chart, and of the frame that a report is read in; it scrolls inside.
CHART_ROW, REPORT_HEIGHT = 44, 800

# Seen on light and on dark.
CHART_COLOUR = "#3A87C8"


def show() -> None:
    """Show the page."""
    st.title("Results")
    models, problems = read_models()
    datasets = list_datasets()
    for problem in problems:
        st.warning(escape_markdown(problem))
    if not models and not datasets:
        st.info(
            "Nothing has been measured yet. Run `make results` in the project's folder, then come back: "
            "this page reads the results anew each time it is opened."
        )
        return
    _show_comparison(models)
    if datasets:
        _show_study(datasets)
    else:
        st.info("There are no reports yet. `make results` writes them.")


def _show_comparison(models: list[ScoredModel]) -> None:
    st.subheader("Models side by side")
    st.write(
        "Scores on the test images, with 95 % intervals in brackets. Compare models of the same data set "
        "only: drawn faces and photographs are different tasks."
    )
    st.dataframe(
        build_comparison(models), hide_index=True, alt="The models, their scores and where they come from"
    )
    st.caption(
        "*By annotators*: judged by the majority of FER+'s annotators, where there is one, and not by the "
        "labels. *No duplicates* leaves out test images that are also training images. *Macro recall* "
        "counts every emotion the same, however rare. *Calibration error* is how far the stated confidence "
        f"is from the accuracy: lower is better. “{MISSING}” means not measured."
    )
    scores = {name: key for key, (name, _) in SCORES.items()}
    chosen = st.selectbox("Score to draw", list(scores))
    data = build_chart_data(models, scores[chosen])
    if data.empty:
        st.info("No model has this score yet. `make results` measures it.")
        return
    height = 60 + CHART_ROW * len(data)
    st.vega_lite_chart(data, build_chart(chosen, SCORES[scores[chosen]][1]), height=height)
    st.caption(f"{chosen} of each model: the dot is the value, the line its 95 % interval.")


def build_chart(title: str, spec: str) -> dict[str, Any]:
    """Return the Vega-Lite chart for `build_chart_data`: a dot and a line for each model."""
    model = {"field": "Model", "type": "nominal", "sort": None, "title": None, "axis": {"labelLimit": 130}}
    scale = {"zero": False, "nice": True, "padding": 12}  # dots, not bars: differences matter, not heights
    axis = {"format": spec.replace(".1%", ".0%"), "tickCount": 5}
    low = {"field": "low", "type": "quantitative", "scale": scale, "axis": axis, "title": title}
    tooltip = [
        {"field": "Model"},
        *[{"field": name, "type": "quantitative", "format": spec} for name in ("value", "low", "high")],
    ]
    return {
        "encoding": {"y": model, "tooltip": tooltip},
        "layer": [
            {
                "mark": {"type": "rule", "strokeWidth": 3, "color": CHART_COLOUR},
                "encoding": {"x": low, "x2": {"field": "high"}},
            },
            {
                "mark": {"type": "point", "filled": True, "size": 60, "opacity": 1, "color": CHART_COLOUR},
                "encoding": {"x": low | {"field": "value"}},
            },
        ],
    }


def _show_study(datasets: list[str]) -> None:
    st.subheader("The study, one data set at a time")
    dataset = st.selectbox("Data set", datasets)
    st.caption(f"{dataset}: {ABOUT.get(dataset, 'faces from a folder of images')}.")
    stages = read_stages(dataset)
    if not stages:
        st.info(f"No stage has finished yet. Run `make results DATASET={dataset}`.")
        return
    for stage in stages:
        st.markdown(f"**{stage.title}.** {stage.finding or 'No finding written yet.'}")
    titles = {stage.title: stage for stage in stages}
    _show_stage(dataset, titles[st.selectbox("Look closer at", list(titles), index=len(titles) - 1)])


def _show_stage(dataset: str, stage: StageReport) -> None:
    st.markdown(f"#### {stage.title}")
    for path, caption in stage.figures:
        st.image(path.read_bytes(), caption=caption, alt=caption)
    if stage.metrics:
        with st.expander("All numbers of this stage"):
            st.dataframe(build_metric_table(stage.metrics), hide_index=True)
            st.caption(_describe_origin(stage.metrics))
    if stage.page is None:
        st.info(f"The report of this stage is not there. `make results DATASET={dataset}` writes it.")
        return
    page = read_text(stage.page)
    name = f"{dataset}_{stage.page.name}"
    offer_download("Download the report (HTML)", page.encode(), name, "text/html")
    if st.toggle("Read the whole report here", key=f"report {dataset} {stage.stage}"):
        st.iframe(remove_page_links(page), height=REPORT_HEIGHT, alt=f"Report: {stage.title}, {dataset}")


def _describe_origin(metrics: Metrics) -> str:
    """Return a sentence that says what the numbers were computed from."""
    origin = metrics.provenance
    parts = {
        "data": str(origin.get("data", ""))[:12],
        "code": show_commit(str(origin.get("commit", ""))),
        "seed": origin.get("seed"),
        "device": origin.get("device"),
    }
    shown = ", ".join(f"{name} {value}" for name, value in parts.items() if value not in (None, ""))
    return f"From {shown}."


if __name__ == "__main__":
    show()
