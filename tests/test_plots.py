import json

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Text
from sklearn.metrics import confusion_matrix

from fer_lib.analysis.severity_curves import Curves, tabulate_areas
from fer_lib.evaluation import perturbations
from fer_lib.evaluation.ablation_results import SHARES
from fer_lib.evaluation.bootstrap import Bootstrap
from fer_lib.evaluation.metrics import compute_reliability, compute_risk_coverage, score_predictions
from fer_lib.intervals import Interval
from fer_lib.labels import EMOTIONS_7, EMOTIONS_8, GROUPS
from fer_lib.reporting.figures import (
    analysis,
    claims,
    classes,
    compression,
    data,
    evaluation,
    robustness,
    scale,
    studies,
)
from fer_lib.reporting.figures.style import COLOURS

RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, 7, 300)
PROBABILITIES = RNG.dirichlet(np.ones(7), 300) * 0.6 + 0.4 * np.eye(7)[LABELS]
FACES = RNG.integers(0, 256, (7, 48, 48)).astype(np.uint8)
COUNTS = pd.DataFrame([[5, 1, 4, 9, 3, 2, 6], [0] * 7], index=["train", "test"], columns=EMOTIONS_7)
DUPLICATES = pd.DataFrame(
    {"n_images": [100, 20, 25], "train": [10, 2, 2], "val": [3, 0, 1], "test": [4, 1, 0]},
    index=["train", "val", "test"],
)
HISTORY = pd.DataFrame(
    {"epoch": [1, 2], "train_loss": [1.5, 1.1], "val_loss": [1.4, 1.2], "val_accuracy": [0.5, 0.6]}
)
PAPER = pd.DataFrame(
    {"epoch": [1, 5], "train_loss": [0.5, 0.2], "val_loss": [0.5, 0.2], "val_accuracy": [0.68, 0.89]}
)
STATS = pd.DataFrame(
    {"transform": ["original"] * 9 + ["brightness"] * 9, "mean": np.arange(18.0), "std": np.arange(18.0)}
)


SCORES = {"b0": Interval(0.6, 0.55, 0.65), "other": Interval(0.7, 0.66, 0.74)}
CURVE = compute_risk_coverage(LABELS, PROBABILITIES)
AGREEMENT = pd.DataFrame(
    {"annotators": [0.5, 1], "model": [0.4, 0.9], "voter": [0.3, 1], "n_images": [10, 1234]}, index=[4, 10]
)
ADJUSTMENT = pd.DataFrame(
    {
        "tau": [0.0, 0.0, 1.0, 1.0],
        "judge": ["labels", "annotators"] * 2,
        "accuracy": [0.6, 0.8, 0.7, 0.7],
        "macro_recall": [0.5, 0.6, 0.7, 0.75],
    }
)
TIME = pd.DataFrame({"seconds": [60.0, 120.0], "val_accuracy": [0.5, 0.6]})
NAMES = ["baseline", "b0", "student"]
DISAGREEMENT = pd.DataFrame(RNG.random((3, 3)) / 4, index=NAMES, columns=NAMES)
CONDITIONS = pd.DataFrame(
    RNG.random((2, 9)), index=["b0", "student"], columns=["clean", *perturbations.CONDITIONS]
)
DIFFERENCES = pd.DataFrame(
    {
        "arm": ["schedule: cosine lower"] * 4 + ["dropout: none"] * 4,
        "share": list(SHARES) * 2,
        "gain": [0.02, -0.03, 0.005, 0.0] * 2,
        "low": [0.01, -0.04, -0.005, 0.0] * 2,
        "high": [0.03, -0.02, 0.015, 0.0] * 2,
    }
)


@pytest.fixture(scope="module")
def scores() -> dict[str, Interval]:
    return score_predictions(LABELS, PROBABILITIES, EMOTIONS_7, Bootstrap(len(LABELS), 50, seed=0))


VOTE_SHARES = pd.DataFrame(
    {
        "judge": ["labels", "labels", "the annotators' majority"],
        "share": [0.0, 1.0, 1.0],
        "accuracy": [0.7, 0.6, 0.8],
        "low": [0.7, 0.55, 0.75],
        "high": [0.7, 0.65, 0.9],
    }
)

VARIANTS = pd.DataFrame(
    {
        "network": ["tiny", "lite", "lite"],
        "variant": ["int8", "int8", "float32"],
        "accuracy": [0.68, 0.71, 0.7],
        "low": [0.66, 0.69, 0.68],
        "high": [0.7, 0.73, 0.72],
        "ms": [0.3, 0.6, 1.2],
        "bytes": [9e5, 4e6, 1.4e7],
    }
)
LAYERS = pd.DataFrame({"kind": ["stem", "conv"], "error": [0.1, 0.02]})
PRUNED = pd.DataFrame(
    {
        "kind": ["channels removed"] * 2,
        "left": [1.0, 0.5],
        "accuracy": [0.7, 0.6],
        "accuracy_low": [0.68, 0.58],
        "accuracy_high": [0.72, 0.62],
        "speedup": [1.0, 2.0],
        "speedup_low": [1.0, 1.9],
        "speedup_high": [1.0, 2.3],
    }
)
VERDICTS = [
    {
        "id": f"S{n}",
        "title": "Rare classes are found more often",
        "basis": "measured",
        "verdict": "not tested",
    }
    for n in range(1, 15)
]
CURVES = Curves(
    ("clean/0", *(f"{name}/{severity}" for name in perturbations.CORRUPTIONS for severity in range(1, 6))),
    {"accuracy": RNG.random((9, 1 + 5 * len(perturbations.CORRUPTIONS)))},
)
AREAS = tabulate_areas({"student (FP32)": CURVES, "augmented": CURVES})
GROUPS_OF = pd.DataFrame({"accuracy": [Interval(0.5, 0.4, 0.6)] * 6}, index=[*"12345", "no landmarks"])
MAPS = {name: {m: Interval(0.5, 0.4, 0.6) for m in analysis.MEASURES} for name in analysis.MAPS}
HIDING = {
    curve: {name: np.full((3, 11), 0.5) for name in analysis.MAPS} for curve in ("deletion", "insertion")
}
DENSITY = pd.DataFrame(RNG.random((7, 8)), index=EMOTIONS_7, columns=["rest of the face"] * 8)
CORRELATIONS = pd.DataFrame(RNG.random((5, 3)), columns=["classifier", "blocks.6", "conv_stem"])
RATES = pd.DataFrame(
    {"work": ["crops, balanced"] * 4, "workers": [1, 1, 2, 2], "per_second": [5.0, 6, 9, 10]}
)
PARTS = {"crops, balanced": {"decode": 1.0, "classify": 3.0}}

FIGURES = {
    "class_counts": lambda _: data.plot_class_counts(COUNTS),
    "mean_faces": lambda _: data.plot_mean_faces(FACES.astype(np.float32), EMOTIONS_7),
    "face_grid": lambda _: data.plot_face_grid(FACES[:5], [f"row {i}" for i in range(5)], 3),
    "vote_entropy": lambda _: data.plot_vote_entropy(RNG.random(300), LABELS, EMOTIONS_7),
    "duplicates": lambda _: data.plot_duplicates(DUPLICATES),
    "augmentations": lambda _: data.plot_augmentations(FACES[:3], {"flip": FACES[:3, :, ::-1]}),
    "pixel_statistics": lambda _: data.plot_pixel_statistics(STATS),
    "training_curves": lambda _: evaluation.plot_training_curves(HISTORY, PAPER),
    "confusion": lambda _: classes.plot_confusion(
        confusion_matrix(LABELS, PROBABILITIES.argmax(axis=1)), EMOTIONS_7
    ),
    "class_scores": lambda scores: classes.plot_class_scores(
        scores, {name: name for name in ("recall", "precision", "f1", "specificity")}, EMOTIONS_7
    ),
    "reliability": lambda _: evaluation.plot_reliability(compute_reliability(LABELS, PROBABILITIES)),
    "roc": lambda _: classes.plot_roc(LABELS, PROBABILITIES, EMOTIONS_7),
    "split_comparison": lambda scores: evaluation.plot_split_comparison(
        {"test": scores, "test_dedup": scores}, [{"accuracy": "accuracy", "macro.f1": "macro F1"}]
    ),
    "scores": lambda _: evaluation.plot_scores(SCORES, "test accuracy"),
    "risk_coverage": lambda _: evaluation.plot_risk_coverage({"b0": CURVE, "ensemble, twelve views": CURVE}),
    "agreement": lambda _: evaluation.plot_agreement(AGREEMENT),
    "adjustment": lambda _: evaluation.plot_adjustment(
        {"b0": ADJUSTMENT, "tiny": ADJUSTMENT}, {"b0": 0.25, "tiny": 0.5}
    ),
    "time": lambda _: evaluation.plot_time({"b0": TIME, "student": TIME}),
    "disagreement": lambda _: evaluation.plot_disagreement(DISAGREEMENT),
    "disagreement of one": lambda _: evaluation.plot_disagreement(DISAGREEMENT.iloc[:1, :1]),
    "conditions": lambda _: evaluation.plot_conditions(CONDITIONS),
    "differences": lambda _: studies.plot_differences(DIFFERENCES),
    "no differences": lambda _: studies.plot_differences(DIFFERENCES[:0]),
    "vote_shares": lambda _: studies.plot_vote_shares(VOTE_SHARES),
    "front": lambda _: compression.plot_front(VARIANTS, VARIANTS.index[:2]),
    "sensitivity": lambda _: compression.plot_sensitivity(
        {"lite": LAYERS, "tiny": LAYERS.assign(error=0.01)}, 0.04
    ),
    "pruning": lambda _: compression.plot_pruning(PRUNED),
    "verdicts": lambda _: claims.plot_verdicts(VERDICTS),
    "severities": lambda _: robustness.plot_curves(CURVES),
    "areas": lambda _: robustness.plot_areas(AREAS[:9], "area"),
    "groups": lambda _: robustness.plot_groups(
        dict.fromkeys(robustness.PROXY_AXES, GROUPS_OF), robustness.PROXY_AXES
    ),
    "measures of maps": lambda _: analysis.plot_measures(MAPS),
    "hiding": lambda _: analysis.plot_hiding(HIDING),
    "parts of the face": lambda _: analysis.plot_parts({"Correct": DENSITY, "Errors": DENSITY}),
    "sanity": lambda _: analysis.plot_sanity(CORRELATIONS, CORRELATIONS),
    "throughput": lambda _: scale.plot_throughput(RATES),
    "parts of the work": lambda _: scale.plot_parts(PARTS),
    "waiting": lambda _: scale.plot_waiting([3.0, 5.0, 4.0]),
}


def get_texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


@pytest.mark.parametrize("name", FIGURES)
def test_figures_are_legible_complete_and_leave_nothing_behind(name, scores):
    mpl.get_backend()  # settles the backend, which the first figure would otherwise do
    before, open_figures = mpl.rcParams.copy(), plt.get_fignums()
    figure = FIGURES[name](scores)
    assert isinstance(figure, Figure)
    assert plt.get_fignums() == open_figures
    assert mpl.rcParams.copy() == before
    figure.draw_without_rendering()  # places everything; the canvas of a closed figure draws nothing
    drawn = [text for text in figure.findobj(Text) if text.get_text() and text.get_visible()]
    assert min(text.get_fontsize() for text in drawn) >= 9
    assert figure.get_figwidth() <= 9
    # Nothing that is drawn sticks out of the page.
    box = figure.get_tightbbox()
    assert box.x0 >= 0
    assert box.y0 >= 0
    assert box.x1 <= figure.get_figwidth()
    assert box.y1 <= figure.get_figheight()


def test_every_emotion_and_group_has_its_own_colour():
    assert {*EMOTIONS_8, *GROUPS} <= set(COLOURS)
    assert len({to_rgb(COLOURS[name]) for name in EMOTIONS_8}) == 8
    assert len({to_rgb(COLOURS[name]) for name in GROUPS}) == 3


def test_class_counts_has_a_panel_per_split_and_a_bar_per_emotion():
    figure = data.plot_class_counts(COUNTS)
    assert [axes.get_title("left") for axes in figure.axes] == ["train: 30 images", "test: 0 images"]
    assert [bar.get_width() for bar in figure.axes[0].patches] == COUNTS.loc["train"].tolist()
    assert "9  30.0%" in get_texts(figure)


def test_face_grid_hides_the_places_without_a_face():
    figure = data.plot_face_grid(FACES[:5], list("abcde"), 3)
    assert [len(axes.images) for axes in figure.axes] == [1, 1, 1, 1, 1, 0]
    assert [axes.get_title() for axes in figure.axes[:5]] == list("abcde")
    assert not any(axes.axison for axes in figure.axes)
    image = figure.axes[0].images[0]
    assert (image.norm.vmin, image.norm.vmax) == (0, 255)


def test_mean_faces_are_stretched_together_and_an_empty_class_is_blank():
    means = np.stack([np.full((8, 8), level, dtype=np.float32) for level in (100, 150, np.nan)])
    figure = data.plot_mean_faces(means, ("happy", "sad", "fear"))
    first, second, empty = (axes.images[0].get_array() for axes in figure.axes)
    assert (first.max(), second.min()) == (0, 255)
    assert np.ma.getmaskarray(empty).all()


def test_colour_images_are_drawn_in_colour():
    colour = RNG.integers(0, 256, (2, 16, 16, 3)).astype(np.uint8)
    figure = data.plot_face_grid(colour, ["a", "b"], 2)
    np.testing.assert_array_equal(figure.axes[1].images[0].get_array(), colour[1])


def test_vote_entropy_puts_the_most_disputed_emotion_first():
    entropy = np.where(EMOTIONS_7.index("disgust") == LABELS, 2.0, 0.5)
    entropy[EMOTIONS_7.index("happy") == LABELS] = 0.1
    axes = data.plot_vote_entropy(entropy, LABELS, EMOTIONS_7).axes[0]
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names[0] == "disgust"
    assert names[-1] == "happy"
    assert "bits" in axes.get_xlabel()
    assert axes.yaxis_inverted()


def test_duplicates_shows_shares_of_the_row_and_counts():
    texts = get_texts(data.plot_duplicates(DUPLICATES))
    assert {"8.0%\n2 images", "10.0%\n10 images"} <= set(texts)  # 2 of 25 test images; 10 of 100
    assert "test\n25 images" in texts


def test_augmentations_has_a_row_per_variant_under_the_originals():
    figure = data.plot_augmentations(FACES[:3], {"flip": FACES[:3, :, ::-1], "same": FACES[:3]})
    assert [axes.get_ylabel() for axes in figure.axes[::3]] == ["original", "flip", "same"]
    np.testing.assert_array_equal(figure.axes[3].images[0].get_array(), FACES[0, :, ::-1])
    with pytest.raises(ValueError, match="zip"):
        data.plot_augmentations(FACES[:3], {"flip": FACES[:2]})


def test_pixel_statistics_marks_the_median_of_the_first_transform():
    left, right = data.plot_pixel_statistics(STATS).axes
    assert [label.get_text() for label in left.get_yticklabels()] == ["original", "brightness"]
    for axes in (left, right):
        assert axes.lines[0].get_xdata()[0] == 4.0  # median of 0..8


def test_training_curves_draws_the_run_and_the_paper():
    figure = evaluation.plot_training_curves(HISTORY, PAPER)
    left, right = figure.axes
    assert len(left.lines) == 4
    assert right.lines[0].get_ydata().tolist() == [0.5, 0.6]
    assert right.lines[1].get_ydata().tolist() == [0.68, 0.89]
    assert [text.get_text() for text in figure.legends[0].texts] == [
        "training, this run",
        "training, paper",
        "validation, this run",
        "validation, paper",
    ]


def test_confusion_is_normalised_by_row_and_survives_an_empty_one():
    figure = classes.plot_confusion(np.array([[3, 1], [0, 0]]), ("happy", "sad"))
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["happy  (4)", "sad  (0)"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["happy", "sad"]
    assert {"75%\n3", "25%\n1", "0%\n0"} <= set(get_texts(figure))


def test_class_scores_draws_whiskers_and_skips_what_is_undefined(scores):
    partial = {name: value for name, value in scores.items() if name != "recall.disgust"}
    axes = classes.plot_class_scores(partial, {"recall": "recall"}, EMOTIONS_7).axes[0]
    assert len(axes.collections) == 7  # six emotions and the macro average
    segment = axes.collections[0].get_segments()[0]
    assert segment[:, 0].tolist() == [scores["recall.angry"].low, scores["recall.angry"].high]
    assert [label.get_text() for label in axes.get_yticklabels()] == [*EMOTIONS_7, "macro average"]


def test_reliability_leaves_out_empty_bins():
    table = compute_reliability(LABELS, PROBABILITIES)
    top, bottom = evaluation.plot_reliability(table).axes
    assert len(top.lines[1].get_xdata()) == (table["count"] > 0).sum()
    ends = np.array([segment[:, 1] for segment in top.collections[0].get_segments()])
    assert (ends[:, 0] < top.lines[1].get_ydata()).any()
    assert ends.min() >= 0
    assert ends.max() <= 1
    assert sum(bar.get_height() for bar in bottom.patches) == 300


def test_roc_has_a_curve_per_class_that_occurs():
    kept = EMOTIONS_7.index("disgust") != LABELS
    axes = classes.plot_roc(LABELS[kept], PROBABILITIES[kept], EMOTIONS_7).axes[0]
    names = [text.get_text().split()[1] for text in axes.get_legend().texts]
    assert sorted(names) == sorted(set(EMOTIONS_7) - {"disgust"})
    scores = [float(text.get_text().split()[0]) for text in axes.get_legend().texts]
    assert scores == sorted(scores, reverse=True)


def test_split_comparison_names_both_splits_and_gives_each_panel_its_scale(scores):
    splits = {"test  (300 images)": scores, "test_dedup  (250 images)": scores}
    panels = [{"accuracy": "accuracy", "macro.f1": "macro F1"}, {"macro.specificity": "macro specificity"}]
    figure = evaluation.plot_split_comparison(splits, panels)
    assert [text.get_text() for text in figure.legends[0].texts] == list(splits)
    names = [[label.get_text() for label in axes.get_yticklabels()] for axes in figure.axes]
    assert names == [["accuracy", "macro F1"], ["macro specificity"]]
    assert [len(axes.collections) for axes in figure.axes] == [4, 2]
    for axes, panel in zip(figure.axes, panels, strict=True):
        low, high = axes.get_xlim()
        assert low < min(scores[name].low for name in panel)
        assert high > max(scores[name].high for name in panel)


def test_charts_hold_what_the_figures_show():
    predictions = PROBABILITIES.argmax(axis=1)
    matrix = confusion_matrix(LABELS, predictions)
    chart = classes.chart_confusion(matrix, EMOTIONS_7)
    (cells,) = chart["datasets"].values()
    assert sum(cell["images"] for cell in cells) == 300
    happy = next(cell for cell in cells if cell["label"] == cell["predicted"] == "happy")
    i = EMOTIONS_7.index("happy")
    assert happy["recalled"] == pytest.approx(matrix[i, i] / matrix[i].sum(), abs=1e-4)
    assert happy["precise"] == pytest.approx(matrix[i, i] / matrix[:, i].sum(), abs=1e-4)

    chart = classes.chart_roc(LABELS, PROBABILITIES, EMOTIONS_7)
    (points,) = chart["datasets"].values()
    curves = pd.DataFrame(points).groupby("emotion")
    assert set(curves.groups) == set(EMOTIONS_7)
    assert curves.size().max() <= 100
    assert (curves[["fpr", "tpr"]].max() == 1).all(axis=None)
    assert len(json.dumps(chart)) < 150_000

    chart = compression.chart_front(VARIANTS, VARIANTS.index[:2])
    listed = [point for points in chart["datasets"].values() for point in points]
    assert {point["variant"] for point in listed} == {"INT8", "FP32"}
    assert {point["megabytes"] for point in listed if point["network"] == "tiny"} == {0.9}


def test_pairs_of_networks_stand_once():
    axes = evaluation.plot_disagreement(DISAGREEMENT).axes[0]
    shown = [text.get_text() for text in axes.texts]
    pairs = [DISAGREEMENT.iloc[1, 0], DISAGREEMENT.iloc[2, 0], DISAGREEMENT.iloc[2, 1]]
    assert shown == [f"{pair:.1%}" for pair in pairs]


def test_conditions_are_coloured_by_what_a_network_loses_and_say_what_it_scores():
    axes = evaluation.plot_conditions(CONDITIONS).axes[0]
    assert [text.get_text() for text in axes.texts] == [f"{v:.1%}" for v in CONDITIONS.to_numpy().ravel()]
    colours = axes.collections[0].get_array().reshape(CONDITIONS.shape)
    assert (colours[:, 0] == 0).all()
    assert np.allclose(colours, CONDITIONS.sub(CONDITIONS.iloc[:, 0], axis=0))


def test_vote_shares_have_a_line_per_judge_and_an_interval_per_point():
    figure = studies.plot_vote_shares(VOTE_SHARES)
    axes, judges = figure.axes[0], ["labels", "the annotators' majority"]
    assert [text.get_text() for text in figure.legends[0].texts] == judges
    assert [bars[0].get_xydata().tolist() for bars in axes.containers] == [[[0, 0.7], [1, 0.6]], [[1, 0.8]]]
    ends = [np.ptp(segment[:, 1]) for bars in axes.containers for segment in bars[2][0].get_segments()]
    assert ends == pytest.approx([0, 0.1, 0.15])


def test_compression_has_one_scale_of_errors_and_an_interval_per_point():
    panels = FIGURES["sensitivity"](None).axes
    assert panels[0].get_ylim() == panels[1].get_ylim()
    left, right = FIGURES["pruning"](None).axes
    segments = right.containers[0][2][0].get_segments()
    assert sorted(np.ptp(segment[:, 1]) for segment in segments) == pytest.approx([0, 0.4])
    assert left.get_title("left") == "Test accuracy"
    front = FIGURES["front"](None).axes[0]
    bars = [
        tuple(lines.get_segments()[0][:, 1]) for lines in front.collections if hasattr(lines, "get_segments")
    ]
    assert bars == [(0.66, 0.7), (0.69, 0.73), (0.68, 0.72)]


def test_differences_are_filled_where_they_are_clear():
    panels = studies.plot_differences(DIFFERENCES).axes
    filled = [
        [line.get_markerfacecolor() != "white" for line in axes.lines if line.get_marker() == "o"]
        for axes in panels
    ]
    # Gain, loss, an interval around 0, and no difference at all.
    assert filled == [[True, True], [True, True], [False, False], [False, False]]
    scales = [axes.get_xlim() for axes in panels]
    assert scales[0] == scales[1] != scales[2] == scales[3]


def test_severity_chart_has_every_point_its_interval_and_a_choice_of_family():
    chart = robustness.chart_curves(CURVES)
    (points,) = chart["datasets"].values()
    rows = pd.DataFrame(points)
    assert len(rows) == 6 * len(perturbations.CORRUPTIONS)
    (family,) = (param for param in chart["params"] if param["name"] == "family")
    assert family["bind"]["options"] == list(perturbations.FAMILIES)
    blur = rows[rows["corruption"] == "blur"]
    assert blur["accuracy"].tolist() == [round(score.value, 3) for score in CURVES.trace("blur")]
    assert blur["level"].tolist()[:2] == ["clean", "0.5 (sigma, pixels of 48)"]
    assert (rows["low"] <= rows["high"]).all()


def test_areas_put_the_most_harmful_corruption_first():
    axes = robustness.plot_areas(AREAS[:4], "area").axes[0]
    shown = [label.get_text().rpartition(" (")[0] for label in axes.get_yticklabels()]
    assert shown == list(AREAS["student (FP32)"][:4].map(lambda area: area.value).sort_values().index)
