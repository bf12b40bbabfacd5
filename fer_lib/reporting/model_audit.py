"""The robustness and subgroup report of any model, on any faces: `python -m fer_lib audit --model M`."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup
from tqdm import tqdm

from fer_lib.analysis.external import OutsideFaces, locate_in_crops
from fer_lib.analysis.fairness import adjust_for_many, measure_gap, score_groups
from fer_lib.analysis.proxies import cut_quintiles, measure_proxies
from fer_lib.analysis.robustness import CLEAN
from fer_lib.analysis.robustness_scores import (
    CURVES,
    Curves,
    find_first_fallen,
    flatten_curves,
    score_conditions,
    tabulate_areas,
)
from fer_lib.errors import DataError
from fer_lib.evaluation.bootstrap import draw_rows
from fer_lib.evaluation.metrics import summarise
from fer_lib.evaluation.perturbations import PERTURBATIONS, SEVERITIES, Sample, perturb
from fer_lib.files import write_atomically
from fer_lib.inference.recognizer import Recognizer
from fer_lib.models.checkpoints import read_config
from fer_lib.provenance import get_code_commit
from fer_lib.reporting.figures.robustness import plot_curves, plot_groups
from fer_lib.reporting.index_page import TEMPLATE_DIR
from fer_lib.reporting.stage import build_figure_html, build_table

MIN_GROUP = 20
MIN_FACES = 5 * MIN_GROUP
"""The groups are fifths."""

N_RESAMPLES, N_PERMUTATIONS = 1000, 1000


def audit_model(
    recognizer: Recognizer, faces: OutsideFaces, folder: Path, n_faces: int, seed: int = 0
) -> Path:
    """Write `audit.html` and `audit.json` to `folder`; return the page.

    At most `n_faces` of the faces, drawn by the seed, are perturbed in every way and severity; all count for
    the groups: fifths of what the pictures show of themselves and, of drawn faces, of their factors. Raises
    DataError for fewer than `MIN_FACES` faces.
    """
    if len(faces.labels) < MIN_FACES:
        raise DataError(
            f"{faces.name}: expected at least {MIN_FACES} faces to audit a model, found {len(faces.labels)}; "
            "give more, or score them with `evaluate`"
        )
    probabilities = recognizer.compute_probabilities(faces.crops)
    landmarks, is_found = locate_in_crops(recognizer, faces.crops)
    scores = summarise(
        "clean", faces.labels, probabilities, recognizer.emotions, N_RESAMPLES, seed, faces.persons
    )
    table = predict_conditions(
        recognizer, faces, landmarks, draw_rows(np.arange(len(faces.labels)), n_faces, seed)
    )
    curves = score_conditions(table, recognizer.emotions, faces.persons[table["row"]], N_RESAMPLES, seed)
    proxies = measure_proxies(faces.crops, landmarks, is_found)
    groups = {name: cut_quintiles(values, seed) for name, values in proxies.items()} | group_factors(
        faces, seed
    )
    rates, gaps = judge_groups(faces, probabilities, groups, seed)
    about = {
        "model": recognizer.folder.name,
        "form": recognizer.form,
        "trained_on": read_config(recognizer.folder).get("data_hash", "unknown"),
        "data": faces.name,
        "data_hash": faces.data_hash,
        "n_faces": len(faces.labels),
        "n_perturbed": len(table),
        "n_perturbations": len(PERTURBATIONS),
        "seed": seed,
        "git_commit": get_code_commit(),
    }
    metrics = scores | flatten_curves(curves, "curve")
    for row in gaps.itertuples():
        metrics |= {f"group.{row.Index}.gap": row.gap, f"group.{row.Index}.p_value": row.p}
    content = json.dumps({**about, **metrics}, indent=2, sort_keys=True)
    write_atomically(folder / "audit.json", f"{content}\n".encode())
    fallen = find_first_fallen(table, curves, recognizer.emotions, MIN_GROUP)
    page = folder / "audit.html"
    write_atomically(
        page, _render(about, scores, _build_parts(about, faces, curves, fallen, rates, gaps)).encode()
    )
    return page


def predict_conditions(
    recognizer: Recognizer, faces: OutsideFaces, landmarks: np.ndarray, chosen: np.ndarray
) -> pd.DataFrame:
    """Return a table as `robustness.predict_perturbed` writes it, of the model's own crops.

    landmarks: of all faces.   chosen: int (N,), the faces to perturb, which are the column row.
    """
    samples = [Sample(landmarks[i] * recognizer.framing.size, int(i)) for i in chosen]
    columns: dict[str, np.ndarray] = {"row": chosen, "label": faces.labels[chosen]}
    for name in tqdm((CLEAN, *PERTURBATIONS), desc="perturb", unit="perturbation", disable=None, leave=False):
        for severity in (0,) if name == CLEAN else SEVERITIES[1:]:
            changed = [
                faces.crops[i] if name == CLEAN else perturb(faces.crops[i], name, severity, sample)
                for i, sample in zip(chosen, samples, strict=True)
            ]
            probabilities = recognizer.compute_probabilities(changed)
            columns[f"{name}/{severity}/said"] = probabilities.argmax(axis=1)
            columns[f"{name}/{severity}/confidence"] = probabilities.max(axis=1)
    return pd.DataFrame(columns)


def group_factors(faces: OutsideFaces, seed: int) -> dict[str, np.ndarray]:
    """Return drawn faces' groups by each factor that is known of them: its values, or fifths of them."""
    return {
        name: values.astype(str).to_numpy() if values.nunique() <= 10 else cut_quintiles(values, seed)
        for name, values in faces.factors.items()
    }


def judge_groups(
    faces: OutsideFaces, probabilities: np.ndarray, groups: Mapping[str, np.ndarray], seed: int
) -> tuple[dict[str, pd.DataFrame], pd.DataFrame]:
    """Return the rates of every grouping; and its largest gap in accuracy, with Holm's p-value."""
    said, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
    rates, gaps = {}, []
    for name, group in groups.items():
        table = score_groups(faces.labels, said, confidence, group, faces.persons, N_RESAMPLES, seed)
        table = table.loc[sorted(table.index, key=lambda value: (len(value), value))]
        rates[name] = table[table["n"] >= MIN_GROUP]
        gap, p_value = measure_gap(faces.labels, said, group, faces.persons, N_PERMUTATIONS, seed, MIN_GROUP)
        gaps.append({"grouping": name, "gap": gap, "p": p_value})
    table = pd.DataFrame(gaps).set_index("grouping")
    return rates, table.assign(p=adjust_for_many(table["p"]))


def _build_parts(
    about: Mapping[str, Any],
    faces: OutsideFaces,
    curves: Curves,
    fallen: pd.DataFrame,
    rates: Mapping[str, pd.DataFrame],
    gaps: pd.DataFrame,
) -> dict[str, str]:
    """Return heading to HTML, in the order of the page."""
    perturbed = [
        build_figure_html(
            plot_curves({about["model"]: curves}, measure),
            f"curves-{measure}",
            f"{title} by perturbation and severity, with 95 % intervals.",
        )
        for measure, title in CURVES.items()
    ]
    perturbed.append(
        build_table(
            tabulate_areas({"area": curves}),
            "Area under the accuracy curve, relative to the faces as they are.",
        )
    )
    if len(fallen):
        title = "The emotion whose recall halves first, at which severity (0: none does), taken for what."
        perturbed.append(build_table(fallen.set_index("perturbation"), title))
    pictured = build_figure_html(plot_groups(rates), "groups", "Accuracy by group, with 95 % intervals.")
    table = build_table(
        gaps,
        "Largest gap in accuracy among the groups; p adjusted for the number of groupings.",
        {"p": ".2g"},
    )
    mapping = build_table(faces.mapping.set_index("class"), "Classes of the source.")
    return {
        "How the classes were read": mapping,
        "Under perturbation": "".join(perturbed),
        "By group": pictured + table,
    }


def _render(about: Mapping[str, Any], scores: Mapping[str, float], parts: Mapping[str, str]) -> str:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATE_DIR), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    titles = {"Accuracy": "clean.accuracy", "Macro recall": "clean.macro.recall", "ECE": "clean.ece"}
    shown = {
        label: (f"{scores[key]:.1%}", f"{scores[f'{key}_lo']:.1%}, {scores[f'{key}_hi']:.1%}")
        for label, key in titles.items()
    }
    return environment.get_template("audit.html.j2").render(
        about=about, scores=shown, parts={title: Markup(part) for title, part in parts.items()}
    )
