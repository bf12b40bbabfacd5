"""The robustness and subgroup report of any model, on any faces: `python -m fer_lib audit --model M`."""

import json
from pathlib import Path

import numpy as np
import pandas as pd

from fer_lib.checkpoints import read_config
from fer_lib.errors import DataError
from fer_lib.evaluation import summarise
from fer_lib.fairness import cut_quintiles, measure_gap, measure_proxies, score_groups
from fer_lib.files import write_atomically
from fer_lib.index_page import TEMPLATE_DIR
from fer_lib.outside import OutsideFaces, locate_in_crops
from fer_lib.perturbations import PERTURBATIONS, SEVERITIES, Sample, perturb
from fer_lib.plots_robustness import plot_curves, plot_groups
from fer_lib.recognizer import Recognizer
from fer_lib.reporting import build_figure_html, build_table
from fer_lib.robustness import CLEAN
from fer_lib.robustness_scores import score_conditions, summarise_families

MIN_FACES = 20
N_RESAMPLES, N_PERMUTATIONS = 1000, 1000


def audit_model(
    recognizer: Recognizer, faces: OutsideFaces, folder: Path, data: str, n_faces: int, seed: int = 0
) -> Path:
    """Write `audit.html` and `audit.json` to `folder`; return the page.

    At most `n_faces` of the faces, drawn by the seed, are perturbed in every way and severity; all count for
    the groups, which are fifths of what the pictures themselves show. Raises DataError for too few faces.
    """
    if len(faces.labels) < MIN_FACES:
        raise DataError(
            f"{data}: expected at least {MIN_FACES} faces to audit a model, found {len(faces.labels)}"
        )
    emotions = recognizer.emotions
    probabilities = recognizer.compute_probabilities(faces.crops)
    bootstrap = {"n_resamples": N_RESAMPLES, "seed": seed}
    metrics = summarise("clean", faces.labels, probabilities, emotions, **bootstrap)
    landmarks = locate_in_crops(recognizer, faces.crops)
    table = predict_conditions(recognizer, faces, landmarks, n_faces, seed)
    curves = score_conditions(table, emotions, np.arange(len(table)), **bootstrap)
    for name in PERTURBATIONS:
        metrics |= _spread(f"area.{name.replace(' ', '_')}", curves.measure_area(name))
    for family, values in summarise_families(curves).items():
        metrics |= _spread(f"{family}.accuracy", values)
    groups, gaps = {}, []
    said, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
    every = np.arange(len(faces.labels))
    for name, values in measure_proxies(faces.crops, landmarks).items():
        fifths = cut_quintiles(values)
        groups[name] = score_groups(faces.labels, said, confidence, fifths, every, **bootstrap)
        gap, p_value = measure_gap(faces.labels, said, fifths, every, N_PERMUTATIONS, seed, MIN_FACES)
        gaps.append({"proxy": name, "gap": gap, "p": p_value})
        metrics |= {f"group.{name}.gap": gap, f"group.{name}.p_value": p_value}
    about = {
        "model": recognizer.folder.name,
        "form": recognizer.form,
        "data": data,
        "n_faces": len(faces.labels),
        "n_perturbed": len(table),
        "seed": seed,
        "trained_on": read_config(recognizer.folder).get("data_hash", "unknown"),
    }
    content = json.dumps({**about, **metrics}, indent=2, sort_keys=True)
    write_atomically(folder / "audit.json", f"{content}\n".encode())
    area = pd.DataFrame(
        {
            key: [metrics[f"area.{name.replace(' ', '_')}{end}"] for name in PERTURBATIONS]
            for key, end in _ENDS.items()
        },
        index=list(PERTURBATIONS),
    ).rename_axis("perturbation")
    parts = {
        "How the classes were read": build_table(faces.mapping.set_index("class"), "Classes of the source."),
        "Under perturbation": build_figure_html(
            plot_curves({recognizer.folder.name: curves}), "curves", "Accuracy by perturbation and severity."
        )
        + build_table(area, "Area under the accuracy curve, relative to the faces as they are."),
        "By what the pictures show": build_figure_html(
            plot_groups(groups), "groups", "Accuracy by fifths of each proxy, the lowest on the left."
        )
        + build_table(
            pd.DataFrame(gaps).set_index("proxy"), "Largest gap in accuracy among the fifths.", {"p": ".2g"}
        ),
    }
    page = folder / "audit.html"
    write_atomically(page, _render(about, metrics, parts).encode())
    return page


def predict_conditions(
    recognizer: Recognizer, faces: OutsideFaces, landmarks: np.ndarray, n_faces: int, seed: int
) -> pd.DataFrame:
    """Return a table as `robustness.predict_perturbed` writes it, of the model's own crops."""
    n = len(faces.labels)
    chosen = np.sort(np.random.default_rng(seed).choice(n, min(n_faces, n), replace=False))
    samples = [Sample(landmarks[i] * recognizer.framing.size, seed + int(i)) for i in chosen]
    columns: dict[str, np.ndarray] = {"row": chosen, "label": faces.labels[chosen]}
    conditions = [(CLEAN, 0), *((name, severity) for name in PERTURBATIONS for severity in SEVERITIES[1:])]
    for name, severity in conditions:
        changed = [
            faces.crops[i] if name == CLEAN else perturb(faces.crops[i], name, severity, sample)
            for i, sample in zip(chosen, samples, strict=True)
        ]
        probabilities = np.concatenate(
            [
                recognizer.compute_probabilities(changed[start : start + 64])
                for start in range(0, len(changed), 64)
            ]
        )
        columns[f"{name}/{severity}/said"] = probabilities.argmax(axis=1)
        columns[f"{name}/{severity}/confidence"] = probabilities.max(axis=1)
    return pd.DataFrame(columns)


_ENDS = {"area": "", "from": "_lo", "to": "_hi"}


def _spread(key: str, values: tuple[float, float, float]) -> dict[str, float]:
    return {f"{key}{end}": value for end, value in zip(("", "_lo", "_hi"), values, strict=True)}


def _render(about: dict, metrics: dict, parts: dict[str, str]) -> str:
    from jinja2 import Environment, FileSystemLoader
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(TEMPLATE_DIR), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    scores = {
        label: f"{metrics[key]:.1%}|{metrics[f'{key}_lo']:.1%}, {metrics[f'{key}_hi']:.1%}".split("|")
        for label, key in {
            "Accuracy": "clean.accuracy",
            "Macro recall": "clean.macro.recall",
            "ECE": "clean.ece",
        }.items()
    }
    return environment.get_template("audit.html.j2").render(
        about=about, scores=scores, parts={title: Markup(part) for title, part in parts.items()}
    )
