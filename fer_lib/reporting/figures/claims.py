"""Figures of the claims ledger."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import PercentFormatter

from fer_lib.evaluation.claims import BELOW, CONTAINED, REACHED, SUPPORTED, VERDICTS
from fer_lib.reporting.figures.style import FAINT, GRID, INK, MAIN, SECOND, SOFT, STYLE, build_figure

GREEN, AMBER = "#009E73", "#E69F00"
VERDICT_COLOURS = dict(zip(VERDICTS, (GREEN, AMBER, SECOND, FAINT), strict=True))
POSITION_COLOURS = {REACHED: GREEN, CONTAINED: AMBER, BELOW: MAIN}


def list_gains(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, Mapping[str, Any]]]:
    """Return the differences that rules of kind `gains` have found: the claim's id and the check of each."""
    gains = [row for row in rows if row["rule"] == "gains"]
    return [(row["id"], check) for row in gains for check in row["checks"] if check["low"] is not None]


@mpl.rc_context(STYLE)
def plot_verdicts(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Plot the rows of `claims.judge_claim`: a line per verdict, a tile per claim."""
    longest = max(12, max(sum(row["verdict"] == verdict for row in rows) for verdict in VERDICTS))
    figure, axes = build_figure(9, 2.6)
    for y, (verdict, colour) in enumerate(VERDICT_COLOURS.items()):
        names = [row["id"] for row in rows if row["verdict"] == verdict]
        axes.text(-0.03, y, verdict, ha="right", va="center", transform=axes.get_yaxis_transform())
        axes.text(0, y, len(names), ha="right", va="center", weight="bold", size=12)
        for x, name in enumerate(names, start=1):
            axes.add_patch(Rectangle((x - 0.45, y - 0.36), 0.9, 0.72, color=colour, linewidth=0))
            ink = INK if colour == AMBER else "white"
            axes.text(x, y, name, color=ink, weight="bold", size=9.5, ha="center", va="center")
    axes.set(xlim=(-0.4, longest + 0.5), ylim=(len(VERDICTS) - 0.6, -0.5), yticks=[], xticks=[])
    axes.spines[:].set_visible(False)
    return figure


@mpl.rc_context(STYLE)
def plot_gains(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Plot the differences of `list_gains`, at least one, over the side of 0 that the claim expects."""
    gains = list_gains(rows)
    figure, axes = build_figure(9, 1.2 + 0.36 * len(gains))
    reach = 108 * max(abs(check[end]) for _, check in gains for end in ("value", "low", "high"))
    for y, (_, check) in enumerate(gains):
        is_clear = check["low"] > 0 or check["high"] < 0
        colour = GREEN if check["outcome"] == SUPPORTED else SECOND if is_clear else FAINT
        side = reach if check["expected"] == "above 0" else -reach
        axes.barh(y, side, height=0.8, color=GRID, alpha=0.6)
        axes.plot([100 * check["low"], 100 * check["high"]], [y, y], color=colour, linewidth=2)
        axes.plot(100 * check["value"], y, "o", ms=6, color=colour, mfc=colour if is_clear else "white")
    axes.axvline(0, color=INK, linewidth=0.9)
    names = [f"{name}   {_name_gain(check['key'])}" for name, check in gains]
    axes.set_yticks(range(len(gains)), names)
    axes.set(xlim=(-reach, reach), ylim=(len(gains) - 0.4, -0.6), xlabel="points of 100")
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    return figure


@mpl.rc_context(STYLE)
def plot_accuracies(accuracies: Sequence[Mapping[str, Any]], value: float) -> Figure:
    """Plot `collect_accuracies`, a row each under the name of its data set, and a line at `value`."""
    datasets = list(dict.fromkeys(row["dataset"] for row in accuracies))
    figure, axes = build_figure(9, 1.2 + 0.34 * (len(accuracies) + len(datasets)))
    beside = axes.get_yaxis_transform()
    y, ticks = 0, {}
    for dataset in datasets:
        axes.text(-0.01, y, dataset, ha="right", va="center", weight="bold", transform=beside)
        y += 1
        for row in (row for row in accuracies if row["dataset"] == dataset):
            colour = POSITION_COLOURS[row["reached"]]
            axes.plot([row["low"], row["high"]], [y, y], color=colour, linewidth=2)
            axes.plot(row["accuracy"], y, "o", ms=6, color=colour)
            axes.text(1.01, y, f"{row['accuracy']:.1%}", va="center", size=9.5, transform=beside)
            split = "" if row["split"] == "test" else f", {row['split']}"
            ticks[y] = f"{row['model']}, {row['classes']} {row['labels']}{split}"
            y += 1
    axes.axvline(value, color=INK, linewidth=1, linestyle=(0, (4, 3)))
    axes.text(value, -0.9, f"the paper's {value:.0%}", ha="center", va="bottom", color=SOFT)
    axes.set_yticks(list(ticks), ticks.values())
    axes.set(xlabel="accuracy", ylim=(y - 0.4, -0.8))
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.grid(axis="x")
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    return figure


def _name_gain(key: str) -> str:
    """Return `loss: focal 2, accuracy` for `loss.focal_2.accuracy.gain`."""
    study, *rest = key.removesuffix(".gain").replace("_", " ").split(".")
    return f"{study}: {', '.join(rest)}" if rest else study
