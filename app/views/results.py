"""Show the page Results: what the pipeline has measured so far, read anew at every look."""

from collections.abc import Callable
from typing import Any

import pandas as pd
import streamlit as st

from app.common import escape_markdown, guard, offer_download
from app.number_titles import SCORES
from app.results_data import (
    MISSING,
    RELEASED,
    STUDY,
    ScoredModel,
    StageReport,
    build_chart_data,
    build_comparison,
    build_metric_table,
    describe_dataset,
    find_study,
    list_datasets,
    list_scores,
    read_models,
    read_stages,
    read_text,
    remove_page_links,
    show_commit,
    sort_datasets,
)
from app.revisions import FILES_HERE, compare_numbers, compare_settings, list_revisions, read_version
from fer_lib.metrics_file import Metrics

# Pixels: height of one model in the chart, of all around the models, and of the frame that a report is read
# in; it scrolls inside.
CHART_ROW, CHART_FRAME, REPORT_HEIGHT = 44, 90, 800

NO_FINDING = "No finding was written."

# Seen on light and on dark, and told apart by colour-blind readers; the shapes differ as well.
KINDS = {RELEASED: ("#C96A1B", "diamond"), STUDY: ("#3A87C8", "circle")}

NOTES = {
    "By annotators": "means by the majority of FER+'s annotators, where there is one, and not by the labels.",
    "No duplicates": "leaves out test images that are also training images.",
    "Macro recall": "counts every emotion the same, however rare.",
    "Calibration error": "is how far the stated confidence is from the accuracy: lower is better.",
}
"""Words in the names of `SCORES` to what they mean."""


def show() -> None:
    """Show the page."""
    st.title("Results")
    models, problems = read_models()
    for problem in problems:
        st.warning(escape_markdown(problem))
    datasets = sort_datasets({*list_datasets(), *(model.dataset for model in models)})
    if not datasets:
        st.info(
            "Nothing has been measured yet. Run `make results` in the project's folder, then come back: "
            "this page reads the results anew each time it is opened."
        )
        return
    dataset = st.selectbox(
        "Data set", datasets, format_func=describe_dataset, key="results data set", persist_state="session"
    )
    stages, of_dataset = read_stages(dataset), [model for model in models if model.dataset == dataset]
    views: dict[str, Callable[[], None]] = {}
    if of_dataset:
        views["Models"] = lambda: _show_models(of_dataset)
    if stages:
        views["Findings"] = lambda: _show_findings(dataset, stages)
    views["Two versions"] = lambda: _show_versions(dataset)
    # One choice for all data sets that offer the same.
    key = f"results {' '.join(views)}"
    chosen = st.segmented_control(
        "Show", list(views), default=next(iter(views)), required=True, key=key, persist_state="session"
    )
    views[chosen]()


def _show_models(models: list[ScoredModel]) -> None:
    st.header("Models side by side")
    scores = list_scores(models)
    if scores:
        chosen = st.selectbox("Score", list(scores), key="results score", persist_state="session")
        data = build_chart_data(models, scores[chosen])
        chart = build_chart(data, chosen, SCORES[scores[chosen]][1])
        st.vega_lite_chart(data, chart, height=CHART_FRAME + CHART_ROW * len(data))
        st.caption(
            f"{chosen} on the test images: each mark is a model's value, the line its 95% interval. "
            "*Released* models are those of the page Photo; those of the *study* are what its pages compare."
        )
        places = {name: place for place, name in enumerate(data["Model"])}
        models = sorted(models, key=lambda model: places.get(model.name, len(places)))
    else:
        st.info("No model has a score yet. `make results` measures it.")
    st.subheader("All scores")
    table = build_comparison(models)
    st.dataframe(table, hide_index=True, alt="The models, their scores and where they come from")
    columns = " ".join(table.columns).lower()
    notes = [f"*{name}* {note}" for name, note in NOTES.items() if name.lower() in columns]
    st.caption(" ".join(["95% intervals are in brackets.", *notes, f"“{MISSING}” means not measured."]))


def build_chart(data: pd.DataFrame, title: str, spec: str) -> dict[str, Any]:
    """Return the Vega-Lite chart of `build_chart_data`: under a model's name a mark and a line.

    title: of the score.   spec: the format of its values.
    """
    # Streamlit's own grey is too faint on white for small letters.
    text_colour = st.get_option(f"theme.{st.context.theme.type or 'light'}.textColor")
    # The name stands above the line, inside the chart: beside it, a telephone has no room for both.
    label = {
        "Align": "left",
        "Padding": -4,
        "Offset": -15,
        "Limit": 330,
        "FontSize": 13,
        "Color": text_colour,
    }
    axis = {"ticks": False, "domain": False} | {f"label{name}": value for name, value in label.items()}
    model = {"field": "Model", "type": "nominal", "sort": None, "title": None, "axis": axis}
    kinds = [kind for kind in KINDS if kind in set(data["Kind"])]
    colours, shapes = zip(*(KINDS[kind] for kind in kinds), strict=True)
    kind = {"field": "Kind", "type": "nominal", "legend": {"orient": "top", "title": None}}
    colour = {**kind, "scale": {"domain": kinds, "range": colours}}
    shape = {**kind, "scale": {"domain": kinds, "range": shapes}}
    scale = {"zero": False, "nice": True, "padding": 12}  # marks, not bars: differences matter, not heights
    axis = {"format": spec.replace(".1%", ".0%"), "tickCount": 5}
    low = {"field": "low", "type": "quantitative", "scale": scale, "axis": axis, "title": title}
    tooltip = [
        {"field": "Model"},
        *[{"field": name, "type": "quantitative", "format": spec} for name in ("value", "low", "high")],
    ]
    return {
        "encoding": {"y": model, "color": colour, "tooltip": tooltip},
        "layer": [
            {
                "mark": {"type": "errorbar", "ticks": {"size": 10}, "rule": {"strokeWidth": 2}},
                "encoding": {"x": low, "x2": {"field": "high"}},
            },
            {
                "mark": {"type": "point", "filled": True, "size": 90, "opacity": 1},
                "encoding": {"x": low | {"field": "value"}, "shape": shape},
            },
        ],
    }


def _show_findings(dataset: str, stages: list[StageReport]) -> None:
    study = find_study(dataset)
    if study:
        label = "Download the whole study (HTML)"
        offer_download(label, study.read_bytes, f"{dataset}_{study.name}", "text/html")
    if len(stages) > 1:
        st.header("What was found")
        for stage in stages:
            st.markdown(f"**{stage.title}.** {stage.answer or NO_FINDING}")
    names = [stage.stage for stage in stages]
    number = st.selectbox(
        "Page",
        range(len(stages)),
        index=names.index("evaluation") if "evaluation" in names else 0,
        format_func=lambda index: stages[index].title,
        key=f"page of {dataset}",
        persist_state="session",
    )
    _show_stage(dataset, stages[number])


def _show_stage(dataset: str, stage: StageReport) -> None:
    st.header(stage.title)
    st.markdown(stage.finding or NO_FINDING)
    for path, caption in stage.figures:
        st.image(path.read_bytes(), caption=caption, alt=caption)
    if stage.metrics:
        with st.expander("All numbers of this page"):
            st.dataframe(build_metric_table(stage.metrics), hide_index=True, alt=f"Numbers of {stage.title}")
            st.caption(_describe_origin(stage.metrics))
    page = read_text(stage.page)
    name = f"{dataset}_{stage.page.name}"
    offer_download("Download this page (HTML)", page.encode(), name, "text/html")
    key = f"report {dataset} {stage.stage}"
    if st.toggle("Read the whole page here", key=key, persist_state="session"):
        st.iframe(remove_page_links(page), height=REPORT_HEIGHT, alt=f"Report: {stage.title}, {dataset}")


def _show_versions(dataset: str) -> None:
    st.header("Two versions side by side")
    titles = list_revisions(dataset)
    if not titles:
        st.info("This folder has no Git history to compare; a copy made with `git clone` has one.")
        return
    names = list(titles)
    old = _choose_version("Before", names, titles, names[min(1, len(names) - 1)], f"before {dataset}")
    new = _choose_version("After", [FILES_HERE, *names], titles, FILES_HERE, f"after {dataset}")
    st.caption(
        "Commits are those that changed settings or headline numbers of this data set. Any other commit, "
        "branch or tag can be typed. DVC's experiments are listed once `dvc exp run` has finished them."
    )
    with guard():
        before, after = (read_version(name, dataset) for name in (old, new))
        numbers, settings = compare_numbers(before, after), compare_settings(before, after)
        st.subheader("Headline numbers")
        if numbers.empty:
            st.write(f"All {len(before.numbers.keys() & after.numbers.keys())} that both have are the same.")
        else:
            st.table(numbers, hide_index=True, border="horizontal", alt="Headline numbers that differ")
            st.caption(
                "Only numbers that both versions have and that differ. 95% intervals are in brackets. Where "
                "they do not overlap, the choice of test images does not explain the difference; where they "
                "overlap, these numbers alone cannot tell."
            )
        st.subheader("Settings")
        if settings.empty:
            st.write("All settings are the same.")
        else:
            st.dataframe(settings, hide_index=True, alt="Settings that differ")
            st.caption(f"Settings of other data sets are left out. “{MISSING}” means that there is none.")


def _choose_version(label: str, names: list[str], titles: dict[str, str], default: str, key: str) -> str:
    return st.selectbox(
        label,
        names,
        index=names.index(default),
        format_func=lambda name: titles.get(name, name),
        accept_new_options=True,
        key=key,
        persist_state="session",
    )


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
