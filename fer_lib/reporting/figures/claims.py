"""Draw the figures of the claims ledger: the verdicts, the differences behind them, and every accuracy."""

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt
import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from fer_lib.evaluation.claim_checks import COMPARED, HIGHER, SUPPORTED
from fer_lib.evaluation.claim_rules import BELOW, CONTAINED, REACHED
from fer_lib.evaluation.claims import group_verdicts, name_claim, spell_verdict
from fer_lib.evaluation.paper import describe_labels
from fer_lib.intervals import Interval
from fer_lib.reporting.figures.style import (
    AMBER,
    FAINT,
    GREEN,
    GRID,
    INK,
    MAIN,
    PERCENT,
    SECOND,
    SKY,
    SOFT,
    STYLE,
    build_figure,
    draw_interval,
    name_rows,
)

VERDICT_COLOURS = {"partly": AMBER, "inconclusive": SKY, "not tested": FAINT}
VERDICT_COLOURS |= {"reproduced": GREEN, "implemented": GREEN}
VERDICT_COLOURS |= {"not reproduced": SECOND, "not implemented": SECOND}
POSITIONS = {
    REACHED: (GREEN, "the interval lies at the paper's figure or above"),
    CONTAINED: (AMBER, "the interval contains it"),
    BELOW: (MAIN, "the interval lies below it"),
}

Accuracies = Sequence[Mapping[str, Any]]


@mpl.rc_context(STYLE)
def plot_verdicts(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Plot the rows of `claims.judge_claim`: a panel for each basis, the claims by verdict, best first."""
    names = {row["id"]: name_claim(row) for row in rows}
    groups = group_verdicts(rows)
    longest = max(sum(map(len, verdicts.values())) + len(verdicts) for verdicts in groups.values())
    figure, panels = build_figure(9, 0.6 + 0.27 * longest, columns=len(groups))
    for axes, (basis, verdicts) in zip(panels, groups.items(), strict=True):
        y = 0
        for verdict, ids in verdicts.items():
            axes.text(
                0, y, f"{spell_verdict(verdict, basis)}: {len(ids)}", va="center", weight="bold", size=10
            )
            for name in ids:
                y += 1
                axes.add_patch(Rectangle((0.02, y - 0.32), 0.05, 0.64, color=VERDICT_COLOURS[verdict]))
                axes.text(0.1, y, names[name], va="center", size=9.5)
            y += 1
        axes.set(
            title=f"{basis.capitalize()} claims", xlim=(0, 1), ylim=(longest, -0.6), xticks=[], yticks=[]
        )
        axes.spines[:].set_visible(False)
    return figure


def list_gains(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, Mapping[str, Any]]]:
    """Return the differences that rules of kind `gains` have found: the claim's id and the check of each."""
    gains = [row for row in rows if row["rule"] == "gains"]
    return [(row["id"], check) for row in gains for check in row["checks"] if check["low"] is not None]


@mpl.rc_context(STYLE)
def plot_gains(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Plot the differences of `list_gains`, at least one, over the side of 0 that the claim expects."""
    names, shown = [], []
    for name, check in list_gains(rows):
        quantity, _, baseline = check["name"].partition(COMPARED)
        names.append(f"{name}: {quantity}" + (f"\nover {baseline}" if baseline else ""))
        shown.append((check, Interval(*(100 * check[end] for end in ("value", "low", "high")))))
    figure, axes = build_figure(9, 1.2 + 0.45 * len(names))
    reach = 1.08 * max(abs(end) for _, gain in shown for end in gain)
    for y, (check, gain) in enumerate(shown):
        is_clear = gain.low > 0 or gain.high < 0
        colour = GREEN if check["outcome"] == SUPPORTED else SECOND if is_clear else FAINT
        side = reach if check["expected"] == HIGHER else -reach
        axes.barh(y, side, height=0.8, color=GRID, alpha=0.6)
        draw_interval(axes, y, gain, colour, is_filled=is_clear)
    axes.axvline(0, color=INK, linewidth=0.9)
    axes.set(xlim=(-reach, reach), xlabel="difference in points")
    name_rows([axes], names)
    axes.tick_params(axis="y", labelsize=9)
    return figure


@mpl.rc_context(STYLE)
def plot_accuracies(accuracies: Accuracies, value: float) -> Figure:
    """Plot the rows of `paper.collect_accuracies`, each group's highest first, and a line at `value`.

    Rows whose whole interval lies below guessing are left out: they would squeeze the axis.
    """
    groups = _group(accuracies)
    n_rows = sum(map(len, groups.values()))
    figure, axes = build_figure(9, 1.5 + 0.13 * n_rows + 0.3 * len(groups))
    y, names = 0.0, {}
    for title, rows in groups.items():
        names[y + (len(rows) - 1) / 2] = title
        for row in rows:
            axes.hlines(y, row["low"], row["high"], color=POSITIONS[row["reached"]][0], linewidth=1.6)
            axes.plot(row["accuracy"], y, "o", color=POSITIONS[row["reached"]][0], markersize=3.5)
            y += 1
        best = rows[0]
        axes.text(
            1.02,
            y - len(rows),
            f"{best['model']}: {best['accuracy']:.1%}",
            size=9.5,
            va="center",
            transform=axes.get_yaxis_transform(),
        )
        y += 2
    axes.axvline(value, color=INK, linewidth=1, linestyle=(0, (4, 3)), label=f"the paper's {value:.0%}")
    for place in dict.fromkeys(row["reached"] for row in accuracies):
        colour, words = POSITIONS[place]
        axes.plot([], [], "o-", color=colour, markersize=3.5, label=words)
    axes.set(ylim=(y - 1, -1.5), xlabel="accuracy")
    axes.set_yticks(list(names), names.values())
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.xaxis.set_major_formatter(PERCENT)
    axes.grid(axis="x")
    figure.legend(loc="outside lower center", ncols=2)
    return figure


def chart_accuracies(accuracies: Accuracies, value: float) -> dict[str, Any]:
    """Return `plot_accuracies` as a chart: one split and kind of labels at a time, intervals on hover."""
    groups = _group(accuracies)
    table = pd.DataFrame(
        {"question": title, "model": row["model"]}
        | {end: round(row[end], 4) for end in ("accuracy", "low", "high")}
        | {"shown": f"{Interval(row['accuracy'], row['low'], row['high']):.1%}"}
        for title, rows in groups.items()
        for row in rows
    )
    questions = list(groups)
    options = alt.binding_select(options=questions, name="Split and labels: ")
    question = alt.param(name="question", value=questions[0], bind=options)
    highest = alt.EncodingSortField("accuracy", op="max", order="descending")
    chart = alt.Chart(table).transform_filter("datum.question === question")
    chart = chart.encode(y=alt.Y("model:N", sort=highest, title=None, axis=alt.Axis(labelLimit=260)))
    axis: Any = {
        "scale": alt.Scale(zero=False),
        "axis": alt.Axis(format=".0%", tickCount=6),
        "title": "accuracy",
    }
    bars = chart.mark_rule(color=MAIN, strokeWidth=2).encode(x=alt.X("low:Q", **axis), x2="high:Q")
    dots = chart.mark_point(filled=True, size=60, color=MAIN, opacity=1).encode(
        x=alt.X("accuracy:Q", **axis),
        tooltip=["model:N", alt.Tooltip("shown:N", title="accuracy, 95% interval")],
    )
    line = alt.Chart().mark_rule(strokeDash=[4, 3], color=SOFT, aria=False)
    line = line.encode(x=alt.datum(value, type="quantitative"))
    layers = alt.layer(bars, dots, line).add_params(question)
    return layers.properties(width="container", height=alt.Step(16)).to_dict()


def _group(accuracies: Accuracies) -> dict[str, list[Mapping[str, Any]]]:
    """Return the accuracies not below guessing by split and labels, in their order, each's highest first."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for row in (row for row in accuracies if row["high"] >= 1 / row["classes"]):
        groups.setdefault(f"{row['split']}, {describe_labels(row)}", []).append(row)
    return {title: sorted(rows, key=lambda row: -row["accuracy"]) for title, rows in groups.items()}
