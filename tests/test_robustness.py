"""Perturbed and varied faces through whole stages, on a packed set of a few faces and untrained networks."""

import shutil
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score, precision_score

from demo_faces.counterfactuals import draw_counterfactuals, list_counterfactuals
from fer_lib.analysis import explain_scores, explain_study, robustness, robustness_scores, variants
from fer_lib.analysis.variant_scores import VariantScores, flatten_groups, tabulate_changes
from fer_lib.data.packed import load_packed
from fer_lib.errors import DataError
from fer_lib.evaluation import perturbations
from fer_lib.evaluation.metrics import summarise
from fer_lib.evaluation.perturbations import PERTURBATIONS
from fer_lib.evaluation.predictions import read_table, write_table
from fer_lib.labels import EMOTIONS_7
from fer_lib.models.build import create_model, load_checkpoint, save_checkpoint
from fer_lib.params import load_params
from fer_lib.paths import get_output_dirs

NETWORKS = ("student", "augmented")
MIN_FACES = 2


@pytest.fixture(scope="module")
def study(tiny_project):
    """Return data, folders and settings after every stage has run on two untrained networks."""
    data = load_packed("demo", tiny_project / "data" / "packed" / "demo")
    params = load_params("demo", path=tiny_project / "params.yaml")
    few = {
        "networks": (*NETWORKS, robustness.ENSEMBLE),
        "members": NETWORKS,
        "audited": NETWORKS,
        "mitigations": {"augmented": "student"},
        "n_faces": 12,
        "n_heatmaps": 3,
    }
    settings = params.robustness.model_copy(update={**few, "n_variants": 8})
    maps = params.gradcam.model_copy(
        update={"n_chosen": 3, "n_faces": 8, "n_randomised": 3, "shifts": (1,), "min_faces": MIN_FACES}
    )
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


@pytest.mark.parametrize("changed", ["config.json", "model.safetensors"])
def test_state_of_another_network_is_void(study, monkeypatch, tmp_path, changed):
    data, dirs, settings = study
    there = get_output_dirs("demo", tmp_path)
    shutil.copytree(dirs.models, there.models)
    before = robustness._describe_run(there, data, settings)
    assert before == robustness._describe_run(dirs, data, settings)
    with open(there.models / "augmented" / changed, "ab") as file:
        file.write(b" ")
    assert robustness._describe_run(there, data, settings) != before


def test_missing_answers_say_what_to_run(study):
    data, dirs, _ = study
    with pytest.raises(DataError, match="fer_lib perturb --dataset demo"):
        robustness.read_perturbed(dirs, "nobody", data)


def test_answers_to_other_data_are_refused(study, tmp_path):
    data, dirs, _ = study
    table = robustness.read_perturbed(dirs, "student", data)
    path = tmp_path / "other.parquet"
    write_table(path, table, SimpleNamespace(data_hash="of other data"))
    with pytest.raises(DataError, match="expected predictions on data hash"):
        read_table(path, data, "perturb")
    path.write_bytes(b"no parquet")
    with pytest.raises(DataError, match="expected a parquet file"):
        read_table(path, data, "perturb")


def test_heat_maps_are_followed(study):
    data, dirs, settings = study
    table = robustness.read_perturbed(dirs, robustness.HEATMAPS, data)
    assert len(table) == settings.n_heatmaps
    correlations = table.drop(columns="row").to_numpy()
    assert correlations.shape[1] == 5 * len(PERTURBATIONS)
    assert -1 <= correlations.min() <= correlations.max() <= 1 + 1e-6
    first, last = (table.filter(regex=f"/{severity}$").to_numpy().mean() for severity in (1, 5))
    assert first > last
    scores = robustness_scores.score_following(table, data.persons[table["row"]], 30, 0)
    value, low, high = scores["blur/5"]
    assert value == pytest.approx(table["blur/5"].mean())
    assert low <= value <= high


def test_earlier_map_moves_along_with_the_face(study, monkeypatch):
    """A network whose map is the picture itself follows every turn, but for what comes in at the border."""
    data, dirs, _ = study
    rows = data.get_rows("test")[:4]
    faces = [data.faces[row].mean(axis=2).astype(np.uint8) for row in rows]
    monkeypatch.setattr(
        robustness, "compute_saliency", lambda model, images, *_: (images.mean(dim=1).numpy() + 1) / 2
    )
    samples = robustness.build_samples(data, rows, 0)
    follower = robustness.Follower(load_checkpoint(dirs.models / "student"), faces, samples)
    for name in ("rotation", "yaw", "wider", "shift"):
        turned = [perturbations.perturb(face, name, 4, one) for face, one in zip(faces, samples, strict=True)]
        assert follower.follow(turned, name, 4).min() > 0.9
        assert follower.follow(turned, "noise", 4).max() < 0.9


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


def build_falls():
    """Return answers in which fear is lost to sad at severity 2 of blur, angry at 4, nothing else."""
    table = build_table(140)
    for name in PERTURBATIONS:
        for severity in range(1, 6):
            table[f"{name}/{severity}/said"] = table["label"]
    for emotion, start, into in ((2, 2, 4), (0, 4, 6)):
        for severity in range(start, 6):
            said = table[f"blur/{severity}/said"].to_numpy().copy()
            said[table["label"] == emotion] = into
            table[f"blur/{severity}/said"] = said
    return table


def find_falls(table, min_faces=5):
    curves = robustness_scores.score_conditions(table, EMOTIONS_7, np.arange(len(table)), 20, 0)
    return robustness_scores.find_first_fallen(table, curves, EMOTIONS_7, min_faces)


def test_first_emotion_to_fall_is_told_from_later_ones():
    fallen = find_falls(build_falls())
    blur = fallen.set_index("perturbation").loc["blur"]
    assert (blur["emotion"], blur["severity"], blur["into"]) == ("fear", 2, "sad")
    assert (fallen["severity"] > 0).sum() == 1
    assert robustness_scores.count_first_fallen(fallen) == ("fear", 1, "sad", 1)


def test_emotion_that_is_never_found_or_rare_does_not_fall():
    table = build_falls()
    table.loc[table["label"] == 2, "clean/0/said"] = 4  # fear is not found on clean faces either
    blur = find_falls(table).set_index("perturbation").loc["blur"]
    assert (blur["emotion"], blur["severity"]) == ("angry", 4)
    none = find_falls(table, min_faces=1000)
    assert none.empty
    assert robustness_scores.count_first_fallen(none) == ("", 0, "", 0)


def test_emotion_that_no_face_shows_has_no_recall_and_no_metric():
    table = build_table(140)
    table = table[table["label"] != 1].reset_index(drop=True)
    curves = robustness_scores.score_conditions(table, EMOTIONS_7, np.arange(len(table)), 20, 0)
    gain = robustness_scores.compare_curves(curves, curves, ["blur"], "recall_disgust")
    assert np.isnan(gain).all()
    assert np.isfinite(robustness_scores.compare_curves(curves, curves, ["blur"], "macro_recall")).all()
    fallen = robustness_scores.find_first_fallen(table, curves, EMOTIONS_7, 5)
    assert "disgust" not in set(fallen["emotion"])


def test_calibration_error_is_that_of_evaluation():
    rng = np.random.default_rng(0)
    table = build_table(200)
    probabilities = rng.dirichlet(np.ones(7), 200)
    table["clean/0/said"], table["clean/0/confidence"] = (
        probabilities.argmax(axis=1),
        probabilities.max(axis=1),
    )
    curves = robustness_scores.score_conditions(table, EMOTIONS_7, np.arange(200), 20, 0)
    scores = summarise("x", table["label"].to_numpy(), probabilities, EMOTIONS_7, 20, 0)
    assert curves.values["ece"][0] == pytest.approx(scores["x.ece"])
    flat = robustness_scores.flatten_curves(curves, "curve")
    assert flat["curve.low_resolution.3.accuracy"] == curves.trace("low resolution")["value"][3]
    assert len(flat) == 21 * 5 * 3 * 3


def test_variants_change_one_factor_of_the_same_faces(study):
    data, dirs, settings = study
    table = variants.read_variants(dirs, data, "student", "skin_tone")
    faces = table[["row", "label"]].drop_duplicates()
    assert len(table) == 10 * len(faces)
    assert faces["label"].value_counts().max() == settings.n_variants // 7
    assert set(faces["label"]) == set(data.labels[data.get_rows("test")])
    assert table["confidence"].between(1 / 7 - 1e-3, 1).all()


def test_value_that_a_face_has_draws_it_again_and_others_do_not(study):
    data, _, _ = study
    row = data.get_rows("test")[0]
    source, mask = data.index["source"].iloc[row], data.index["mask"].iloc[row]
    drawn = draw_counterfactuals([source], data.meta["size"], workers=1)[0]
    of_mask = {c["mask"]: drawn[i] for i, c in enumerate(list_counterfactuals()) if list(c) == ["mask"]}
    np.testing.assert_array_equal(of_mask[bool(mask)], data.faces[row])
    assert not np.array_equal(of_mask[not mask], data.faces[row])
    both = list_counterfactuals().index({"glasses": "sunglasses", "mask": True})
    assert not any(np.array_equal(drawn[both], other) for other in np.delete(drawn, both, axis=0))


def test_maps_are_tested_on_faces_that_did_not_choose_them(study):
    data, dirs, _ = study
    faces = explain_scores.read_results(dirs, data, "faces")
    assert set(faces["row"]) <= set(data.get_rows("test"))
    assert set(faces["map"]) == set(explain_scores.MAPS)
    parts = faces[[name for name in faces if name.startswith("part_")]].sum(axis=1)
    assert parts[faces["map"] == explain_scores.RANDOM].to_numpy() == pytest.approx(1, abs=1e-3)
    scores = explain_scores.score_maps(faces, data, 20, 0)
    gains = explain_scores.compare_maps(faces, data, 20, 0)
    for (name, rival), gain in gains.items():
        assert gain["deletion"][0] == pytest.approx(
            scores[rival]["deletion"][0] - scores[name]["deletion"][0]
        )
        assert gain["insertion"][0] == pytest.approx(
            scores[name]["insertion"][0] - scores[rival]["insertion"][0]
        )
    assert set(gains) >= {(explain_scores.LAST, explain_scores.RANDOM)}
    curves = explain_scores.average_curves(faces, data, 20, 0)
    areas = faces[faces["map"] == explain_scores.CHOSEN]["deletion"]
    assert np.trapezoid(curves["deletion"][explain_scores.CHOSEN][0], dx=0.1) == pytest.approx(areas.mean())


def test_parts_and_background_are_shares_of_the_map(study):
    data, dirs, _ = study
    faces = explain_scores.read_results(dirs, data, "faces")
    chosen = faces[faces["map"] == explain_scores.CHOSEN]
    index = int(chosen["said"].mode()[0])
    named = {right: explain_scores.score_parts(faces, data, right, 1, 20, 0) for right in (True, False)}
    for is_right, found in named.items():
        part = chosen[(chosen["said"] == index) & ((chosen["label"] == chosen["said"]) == is_right)]
        if len(part):
            density = part["part_mouth"].mean() / part["area_mouth"].mean()
            assert found[data.emotions[index]]["mouth"][0] == pytest.approx(density)
    assert explain_scores.score_parts(faces, data, True, 1000, 20, 0) == {}
    background = explain_scores.summarise_background(faces, data, 20, 0)
    wrong = chosen[chosen["label"] != chosen["said"]]
    assert background["wrong"][0] == pytest.approx(wrong["part_background"].mean())
    assert background["area"][0] == pytest.approx(chosen["area_background"].mean())


def test_background_is_compared_among_faces_given_the_same_emotion(study):
    data = study[0]
    rows = data.get_rows("test")[:6]
    # Emotion 0 looks at the background much, 1 little; errors look there 0.1 more; most errors are 0's.
    table = pd.DataFrame(
        {
            "row": rows,
            "map": explain_scores.CHOSEN,
            "said": [0, 0, 0, 1, 1, 1],
            "label": [0, 2, 2, 1, 1, 2],
            "part_background": [0.5, 0.6, 0.6, 0.1, 0.1, 0.2],
        }
    )
    others = [f"part_{part}" for part in explain_scores.list_parts()] + list(explain_scores.MEASURES)
    table = table.reindex(columns=[*table, *(name for name in others if name not in table)], fill_value=0.0)
    table["area_background"] = 0.4
    found = explain_scores.summarise_background(table, data, 20, 0)
    assert found["gap"][0] == pytest.approx(0.1)
    assert found["wrong"][0] - found["right"][0] > 0.2
    right = table.assign(label=table["said"])
    assert set(explain_scores.summarise_background(right, data, 20, 0)) == {"right", "area"}


def test_maps_of_few_faces_are_not_averaged_and_single_ones_are_of_drawn_faces(study, tmp_path):
    data, dirs, _ = study
    maps = explain_scores.read_maps(dirs, "maps")
    total = sum(int(value) for name, value in maps.items() if name.endswith("/n"))
    assert total == explain_scores.read_results(dirs, data, "faces")["row"].nunique()
    for name in (name for name in maps if not name.endswith("/n")):
        assert maps[f"{name}/n"] >= MIN_FACES
    examples = explain_scores.read_maps(dirs, "examples")
    assert all(examples[name].ndim == 2 for name in examples if not name.endswith("/row"))
    faces = SimpleNamespace(rows=[], labels=[], said=[])
    assert explain_study.pick_examples(SimpleNamespace(packed_regions=None), faces, []) == {}


def test_drawn_faces_are_scored_by_factor_pair_and_remedy(study):
    data, dirs, settings = study
    varied = VariantScores(dirs, data, settings)
    groups = varied.score_factors()
    assert groups["skin_tone"].index.tolist() == [str(tone) for tone in range(1, 11)]
    answers = variants.read_variants(dirs, data, "student", "mask")
    bare = answers[answers["value"] == "False"]
    assert groups["mask"].loc["False", "accuracy"] == pytest.approx((bare["said"] == bare["label"]).mean())
    gaps = varied.find_gaps(groups)
    accuracy = groups["pitch"]["accuracy"]
    assert gaps.loc["pitch", "gap"] == pytest.approx(accuracy.max() - accuracy.min())
    flat = flatten_groups(groups, gaps)
    assert flat["group.pitch.gap"] == gaps.loc["pitch", "gap"]
    assert flat["group.mask.False.accuracy"] == groups["mask"].loc["False", "accuracy"]
    assert set(varied.score_networks().index) == set(NETWORKS)
    assert {"first", "second", "excess", "p"} <= set(varied.list_pairs())
    changes = varied.compare_remedies()
    of_tones = [variants.read_variants(dirs, data, name, "skin_tone") for name in NETWORKS]
    right = [(part["said"] == part["label"]).mean() for part in of_tones]
    assert changes["augmented", "skin_tone"]["accuracy"][0] == pytest.approx(right[1] - right[0])
    assert "augmented – student, skin tone" in tabulate_changes(changes, settings.mitigations).index
