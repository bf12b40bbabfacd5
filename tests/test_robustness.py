"""Perturbed and varied faces through whole stages, on a packed set of a few faces and untrained networks."""

import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score, precision_score

from fer_lib import explain_scores, explain_study, perturbations, robustness, robustness_scores, variants
from fer_lib.datasets.demo_variants import draw_variants, list_variants
from fer_lib.errors import DataError, FerError
from fer_lib.models import create_model, save_checkpoint
from fer_lib.packed import load_packed
from fer_lib.params import load_params
from fer_lib.paths import get_output_dirs
from fer_lib.perturbations import PERTURBATIONS

NETWORKS = ("student", "augmented")


@pytest.fixture(scope="module")
def study(tiny_project):
    """Return data, folders and settings after every stage has run on two untrained networks."""
    data = load_packed("demo", tiny_project / "data" / "packed" / "demo")
    params = load_params("demo", path=tiny_project / "params.yaml")
    few = {
        "networks": (*NETWORKS, robustness.ENSEMBLE),
        "members": NETWORKS,
        "audited": NETWORKS,
        "n_faces": 12,
        "n_heatmaps": 3,
    }
    settings = params.robustness.model_copy(update={**few, "n_variants": 3})
    maps = params.gradcam.model_copy(update={"n_chosen": 3, "n_faces": 8, "n_randomised": 3, "shifts": (1,)})
    dirs = get_output_dirs("demo", tiny_project / "robust")
    for seed, name in enumerate(NETWORKS):
        torch.manual_seed(seed)
        model = create_model("test_resnet", 7)
        torch.nn.init.normal_(model.get_classifier().weight)
        preprocessing = {"image_size": 32, "mean": [0.5] * 3, "std": [0.5] * 3}
        config = {"architecture": "test_resnet", "emotions": data.emotions, "preprocessing": preprocessing}
        save_checkpoint(dirs.models / name, model, config | {"data_hash": data.data_hash})
    changed = params.model_copy(update={"robustness": settings, "gradcam": maps})
    with pytest.MonkeyPatch.context() as patch:
        for module in (robustness, variants, explain_study):
            patch.setattr(module, "load_params", lambda _: changed)
            patch.setattr(module, "load_packed", lambda _: data)
        out = tiny_project / "robust"
        robustness.predict_perturbed("demo", out)
        variants.predict_variants("demo", out)
        explain_study.study_explanations("demo", out)
    return data, dirs, settings


def test_every_condition_of_every_face_is_answered(study):
    data, dirs, settings = study
    table = robustness.read_perturbed(dirs, "student", data)
    assert len(table) == settings.n_faces
    assert sum(name.endswith("/said") for name in table) == 1 + 5 * len(PERTURBATIONS)
    assert set(table["row"]) <= set(data.get_rows("test"))


def test_clean_column_is_what_the_network_says(study):
    data, dirs, _ = study
    table = robustness.read_perturbed(dirs, "student", data)
    network = robustness.open_network("student", dirs, data)
    probabilities = network([data.faces[row] for row in table["row"]])
    np.testing.assert_array_equal(table["clean/0/said"], probabilities.argmax(axis=1))


def test_ensemble_is_the_mean_of_its_members(study):
    data, dirs, _ = study
    table = robustness.read_perturbed(dirs, robustness.ENSEMBLE, data)
    faces = [data.faces[row] for row in table["row"]]
    mean = np.mean([robustness.open_network(name, dirs, data)(faces) for name in NETWORKS], axis=0)
    np.testing.assert_array_equal(table["clean/0/said"], mean.argmax(axis=1))
    np.testing.assert_allclose(table["clean/0/confidence"], mean.max(axis=1), atol=6e-4)


def test_killed_run_goes_on_with_the_next_perturbation(study, monkeypatch, tmp_path):
    data, dirs, settings = study
    shutil.copytree(dirs.models, get_output_dirs("demo", tmp_path).models)
    params = load_params("demo").model_copy(update={"robustness": settings})
    monkeypatch.setattr(robustness, "load_params", lambda _: params)
    monkeypatch.setattr(robustness, "load_packed", lambda _: data)
    seen = []

    def perturb(face, name, severity, sample):
        if name == "blur" and len(set(seen)) < len(PERTURBATIONS):
            raise KeyboardInterrupt
        seen.append(name)
        return perturbations.perturb(face, name, severity, sample)

    monkeypatch.setattr(robustness, "perturb", perturb)
    with pytest.raises(KeyboardInterrupt):
        robustness.predict_perturbed("demo", tmp_path)
    before = set(seen)
    assert "rotation" in before
    seen.clear()
    monkeypatch.setattr(
        robustness, "perturb", lambda *asked: (seen.append(asked[1]), perturbations.perturb(*asked))[1]
    )
    robustness.predict_perturbed("demo", tmp_path)
    assert not before & set(seen)
    for name in (*NETWORKS, robustness.ENSEMBLE, robustness.HEATMAPS):
        paths = [robustness.get_predictions_path(d, name) for d in (dirs, get_output_dirs("demo", tmp_path))]
        pd.testing.assert_frame_equal(*map(pd.read_parquet, paths))


def test_missing_answers_say_what_to_run(study):
    data, dirs, _ = study
    with pytest.raises(FerError, match="fer_lib perturb"):
        robustness.read_perturbed(dirs, "nobody", data)


def test_heat_maps_are_followed_where_the_face_stays(study):
    _, dirs, settings = study
    table = pd.read_parquet(robustness.get_predictions_path(dirs, robustness.HEATMAPS))
    assert len(table) == settings.n_heatmaps
    assert "blur/5" in table
    assert "rotation/1" not in table
    correlations = table.drop(columns="row").to_numpy()
    assert -1 <= correlations.min() <= correlations.max() <= 1 + 1e-6
    assert table["side light/1"].mean() > table["blur/5"].mean()


def test_scores_are_those_of_scikit_learn(study):
    data, dirs, _ = study
    table = robustness.read_perturbed(dirs, "student", data)
    clusters = data.persons[table["row"]]
    curves = robustness_scores.score_conditions(table, data.emotions, clusters, 30, 0)
    labels = table["label"].to_numpy()
    for name, severity in (("blur", 3), ("mask", 5)):
        said = table[f"{name}/{severity}/said"].to_numpy()
        assert curves.trace(name)["value"][severity] == pytest.approx(np.mean(said == labels))
        recall = curves.trace(name, "macro_recall")["value"][severity]
        assert recall == pytest.approx(balanced_accuracy_score(labels, said))
        present = sorted(set(labels))
        precision = curves.trace(name, "macro_precision")["value"][severity]
        expected = precision_score(labels, said, labels=present, average="macro", zero_division=0)
        assert precision == pytest.approx(expected)


def build_table(n=40):
    """Return answers that are right at severities 0 to 2 and wrong after."""
    labels = np.arange(n) % 7
    columns = {"row": np.arange(n), "label": labels, "clean/0/said": labels, "clean/0/confidence": 0.9}
    for name in PERTURBATIONS:
        for severity in range(1, 6):
            columns[f"{name}/{severity}/said"] = labels if severity < 3 else (labels + 1) % 7
            columns[f"{name}/{severity}/confidence"] = 0.9
    return pd.DataFrame(columns)


def test_area_is_that_under_the_curve_and_the_first_to_fall_is_found():
    emotions = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
    table = build_table()
    curves = robustness_scores.score_conditions(table, emotions, np.arange(len(table)), 20, 0)
    # 1, 1, 1, 0, 0, 0 over five steps: 2 whole ones and half of the third.
    assert curves.measure_area("blur") == pytest.approx((0.5, 0.5, 0.5))
    assert curves.average(["blur"])[0] == pytest.approx(0.4)
    fallen = robustness_scores.find_first_fallen(table, curves, emotions, 1)
    assert (fallen["severity"] == 3).all()
    first = fallen.iloc[0]
    assert emotions[(emotions.index(first["emotion"]) + 1) % 7] == first["into"]
    same = robustness_scores.compare_curves(curves, curves, ["blur", "noise"])
    assert same == (0, 0, 0)


def test_variants_change_one_factor_of_the_same_faces(study):
    _, dirs, settings = study
    table = variants.read_variants(dirs, "student", "skin_tone")
    assert len(table) == 10 * settings.n_variants
    assert len(table[["row", "label"]].drop_duplicates()) == settings.n_variants
    assert table["confidence"].between(1 / 7 - 1e-3, 1).all()


def test_value_that_a_face_has_draws_it_again_and_others_do_not(study):
    data, _, _ = study
    row = data.get_rows("test")[0]
    source, mask = data.index["source"].iloc[row], data.index["mask"].iloc[row]
    drawn = draw_variants([source], data.meta["size"], workers=1)[0]
    of_mask = {c["mask"]: drawn[i] for i, c in enumerate(list_variants()) if list(c) == ["mask"]}
    np.testing.assert_array_equal(of_mask[bool(mask)], data.faces[row])
    assert not np.array_equal(of_mask[not mask], data.faces[row])
    both = list_variants().index({"glasses": "sunglasses", "mask": True})
    assert not any(np.array_equal(drawn[both], other) for other in np.delete(drawn, both, axis=0))


def test_photographs_cannot_be_varied():
    with pytest.raises(DataError, match="only those can be varied"):
        draw_variants(["fer2013.parquet:7"], 48, workers=1)


def test_maps_are_tested_on_faces_that_did_not_choose_them(study):
    data, dirs, _ = study
    faces = explain_scores.read_results(dirs, "faces")
    assert set(faces["row"]) <= set(data.get_rows("test"))
    assert set(faces["map"]) == set(explain_scores.MAPS)
    parts = faces[[name for name in faces if name.startswith("part_")]].sum(axis=1)
    assert parts[faces["map"] == explain_scores.RANDOM].to_numpy() == pytest.approx(1, abs=1e-3)
    scores = explain_scores.score_maps(faces, data, 20, 0)
    gains = explain_scores.compare_maps(faces, data, 20, 0)
    expected = scores[explain_scores.RANDOM]["deletion"][0] - scores[explain_scores.CHOSEN]["deletion"][0]
    assert gains[explain_scores.RANDOM]["deletion"][0] == pytest.approx(expected)


def test_mean_maps_count_every_face_once(study):
    _, dirs, _ = study
    maps = explain_scores.read_maps(dirs)
    total = sum(int(value) for name, value in maps.items() if name.endswith("/n"))
    assert total == explain_scores.read_results(dirs, "faces")["row"].nunique()
