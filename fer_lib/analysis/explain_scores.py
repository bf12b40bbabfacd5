"""Score saliency maps: faithfulness with intervals, and the parts of a face on which each emotion rests."""

import numpy as np
import pandas as pd

from fer_lib.analysis.explain import BACKGROUND, PARTS, REST
from fer_lib.analysis.explain_study import CENTRE, CHOSEN, LAST, RANDOM, get_folder
from fer_lib.analysis.faithfulness import CURVES, N_STEPS
from fer_lib.data.packed import PackedDataset
from fer_lib.evaluation.bootstrap import Bootstrap, average
from fer_lib.evaluation.predictions import read_table
from fer_lib.intervals import Interval
from fer_lib.paths import OutputDirs

KEYS = {CHOSEN: "chosen", LAST: "last_stage", RANDOM: "random", CENTRE: "face_centre"}
"""The maps that are compared, and how each is called in the metrics."""

PAIRS = ((CHOSEN, LAST), (CHOSEN, RANDOM), (CHOSEN, CENTRE), (LAST, RANDOM), (LAST, CENTRE))
"""A map and a rival: the chosen one against each other, the last stage's against those without a network."""

MEASURES = (*CURVES, "energy", "pointing")
ALL_PARTS = (*PARTS, REST, BACKGROUND)

NEUTRAL = "neutral"
"""No action unit makes it, so its regions say where others would show: left out of energy and pointing."""


def read_results(dirs: OutputDirs, data: PackedDataset, name: str) -> pd.DataFrame:
    """Return a table of `explain_study`: choice, faces, randomised or stability.

    Raises DataError when the stage has not run, or ran on other data.
    """
    return read_table(get_folder(dirs) / f"{name}.parquet", data, "test-saliency")


def read_maps(dirs: OutputDirs, name: str) -> dict[str, np.ndarray]:
    """Return `maps` or `examples`, as `average_maps` and `pick_examples` of `explain_study` describe them."""
    with np.load(get_folder(dirs) / f"{name}.npz") as stored:
        return dict(stored)


def tabulate_choice(choice: pd.DataFrame) -> pd.DataFrame:
    """Return one row per method and stage, the coarsest last; the larger the difference, the better."""
    table = choice.groupby(["reduction", "stage", "method"], sort=True)[list(CURVES)].mean()
    table["insertion minus deletion"] = table["insertion"] - table["deletion"]
    return table.reset_index()


def tabulate_densest(densities: pd.DataFrame) -> pd.DataFrame:
    """Return one row per emotion of `SaliencyScores.score_parts`: the part that the map marks most densely.

    Columns: densest part, density with its interval, and the other parts whose intervals reach it.
    """
    rows = {}
    for emotion, row in densities.iterrows():
        densest = max(row.index, key=lambda part: row[part].value)
        others = [part for part in row.index if part != densest and row[part].high >= row[densest].low]
        rows[emotion] = {
            "densest part": densest,
            "density": f"{row[densest]:.1f}",
            "also within the interval": ", ".join(others) or "–",
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("predicted emotion")


class SaliencyScores:
    """The table `faces` of `explain_study`, scored with intervals over images, or persons where known."""

    def __init__(self, faces: pd.DataFrame, data: PackedDataset, n_resamples: int, seed: int) -> None:
        self._maps = {str(name): part.reset_index(drop=True) for name, part in faces.groupby("map")}
        self.chosen = self._maps[CHOSEN]
        rows, label, self._pred = (self.chosen[name].to_numpy() for name in ("row", "label", "pred"))
        self._bootstrap = Bootstrap(len(rows), n_resamples, seed, data.persons[rows])
        self._emotions = data.emotions
        self._is_correct = label == self._pred
        self._is_active = self._is_correct & (label != data.emotions.index(NEUTRAL))

    def score(self) -> dict[str, dict[str, Interval]]:
        """Return map to measure to its mean; energy and pointing: of correct faces, without neutral ones."""
        return {name: {m: self._average(self._get(name, m), m) for m in MEASURES} for name in KEYS}

    def compare(self) -> dict[tuple[str, str], dict[str, Interval]]:
        """Return each of `PAIRS` to measure to the map's gain on the same faces; of deletion, less area."""
        gains: dict[tuple[str, str], dict[str, Interval]] = {pair: {} for pair in PAIRS}
        for name, rival in PAIRS:
            for measure in MEASURES:
                difference = self._get(name, measure) - self._get(rival, measure)
                gain = -difference if measure == "deletion" else difference
                gains[name, rival][measure] = self._average(gain, measure)
        return gains

    def average_curves(self) -> dict[str, dict[str, np.ndarray]]:
        """Return `deletion` and `insertion` to map to float (3, N_STEPS + 1): mean, low, high."""
        found: dict[str, dict[str, np.ndarray]] = {curve: {} for curve in CURVES}
        for curve, of_maps in found.items():
            for name in KEYS:
                points = [self._get(name, f"{curve}/{step}") for step in range(N_STEPS + 1)]
                of_maps[name] = np.array([self._bootstrap.mean(values) for values in points]).T
        return found

    def score_parts(self, is_correct: bool, min_faces: int) -> pd.DataFrame:
        """Return predicted emotion by part: how much denser the chosen map is there than on average.

        As `Interval`; 1: as much of the map as of the image. Emotions with fewer faces are left out.
        """
        found = {}
        for index, emotion in enumerate(self._emotions):
            mask = (self._pred == index) & (self._is_correct == is_correct)
            if mask.sum() >= min_faces:
                found[emotion] = {part: self._compute_density(part, mask) for part in ALL_PARTS}
        table = pd.DataFrame.from_dict(found, orient="index", columns=list(ALL_PARTS))
        return table.rename_axis("predicted emotion")

    def score_background(self) -> dict[str, Interval]:
        """Return shares that lie outside the face, where they are defined.

        `correct`, `wrong`: of the chosen map, by whether the prediction is.   `image`: of the pixels.
        `gap`: wrong minus correct among faces with the same prediction, weighted by how many were wrong.
        """
        share = self._get(CHOSEN, f"part_{BACKGROUND}")
        found = {
            "image": self._bootstrap.mean(self._get(CHOSEN, f"area_{BACKGROUND}")),
            "correct": self._bootstrap.mean(share, self._is_correct),
            "wrong": self._bootstrap.mean(share, ~self._is_correct),
            "gap": self._bootstrap.interval(self._compute_background_gap),
        }
        return {title: interval for title, interval in found.items() if interval.is_defined}

    def _get(self, name: str, column: str) -> np.ndarray:
        return self._maps[name][column].to_numpy(float)

    def _average(self, values: np.ndarray, measure: str) -> Interval:
        return self._bootstrap.mean(values, 1.0 if measure in CURVES else self._is_active)

    def _compute_density(self, part: str, mask: np.ndarray) -> Interval:
        of_map, of_image = self._get(CHOSEN, f"part_{part}"), self._get(CHOSEN, f"area_{part}")
        return self._bootstrap.interval(lambda w: average(of_map, w * mask) / average(of_image, w * mask))

    def _compute_background_gap(self, weights: np.ndarray) -> np.ndarray:
        share = self._get(CHOSEN, f"part_{BACKGROUND}")
        gaps, sizes = [], []
        for index in np.unique(self._pred):
            of_emotion = weights * (self._pred == index)
            wrong = of_emotion * ~self._is_correct
            gaps.append(average(share, wrong) - average(share, of_emotion * self._is_correct))
            sizes.append(wrong.sum(axis=1))
        known = np.where(np.isnan(gaps), 0.0, sizes)
        total, weighted = known.sum(axis=0), (np.nan_to_num(gaps) * known).sum(axis=0)
        return np.divide(weighted, total, out=np.full_like(total, np.nan), where=total > 0)


def summarise_columns(
    table: pd.DataFrame, data: PackedDataset, n_resamples: int, seed: int
) -> dict[str, Interval]:
    """Return column to mean over faces, of tables `randomised` and `stability`; flat maps do not count."""
    bootstrap = Bootstrap(len(table), n_resamples, seed, data.persons[table["row"]])
    columns = table.drop(columns="row").dropna(axis="columns", how="all")
    return {
        str(name): bootstrap.mean(values.fillna(0).to_numpy(float), values.notna().to_numpy())
        for name, values in columns.items()
    }
