"""Corrupted and counterfactual faces through whole stages, on a few packed faces and untrained networks."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score, precision_score

from demo_faces.counterfactuals import draw_counterfactuals, list_counterfactuals
from fer_lib import jobs
from fer_lib.analysis import counterfactuals, explain_scores, explain_study, robustness, severity_curves
from fer_lib.analysis.counterfactuals import CounterfactualScores, add_groups, tabulate_changes
from fer_lib.analysis.explain_scores import SaliencyScores
from fer_lib.analysis.severity_curves import trace_curves
from fer_lib.data.packed import load_packed
from fer_lib.errors import DataError
from fer_lib.evaluation import perturbations
from fer_lib.evaluation.bootstrap import Bootstrap
from fer_lib.evaluation.metrics import compute_metrics
from fer_lib.evaluation.perturbations import CORRUPTIONS
from fer_lib.evaluation.predictions import read_table, write_table
from fer_lib.intervals import Interval
from fer_lib.labels import EMOTIONS_7
from fer_lib.metrics_file import Metrics
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
        "n_saliency": 3,
    }
    settings = params.robustness.model_copy(update={**few, "n_counterfactuals": 8})
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
        for module in (robustness, counterfactuals, explain_study):
            patch.setattr(module, "load_params", lambda _: changed)
            patch.setattr(module, "load_packed", lambda _: data)
        patch.setattr(jobs, "_start_pool", lambda *_: ThreadPoolExecutor(1))
        out = tiny_project / "robust"
        robustness.predict_perturbed("demo", out)
        counterfactuals.predict_counterfactuals("demo", out)
        explain_study.evaluate_saliency("demo", out)
    return data, dirs, settings


def test_every_condition_of_every_face_is_predicted(study):
    data, dirs, settings = study
    table = robustness.read_perturbed(dirs, "student", data)
    assert len(table) == settings.n_faces
    assert sum(name.endswith("/pred") for name in table) == 1 + 5 * len(CORRUPTIONS)
    assert set(table["row"]) <= set(data.get_rows("test"))


def test_clean_column_is_the_networks_prediction(study):
    data, dirs, _ = study
    table = robustness.read_perturbed(dirs, "student", data)
    network = robustness.open_network("student", dirs, data)
    probabilities = network([data.faces[row] for row in table["row"]])
    np.testing.assert_array_equal(table["clean/0/pred"], probabilities.argmax(axis=1))


def test_ensemble_is_the_mean_of_its_members(study):
    data, dirs, _ = study
    table = robustness.read_perturbed(dirs, robustness.ENSEMBLE, data)
    faces = [data.faces[row] for row in table["row"]]
    mean = np.mean([robustness.open_network(name, dirs, data)(faces) for name in NETWORKS], axis=0)
    np.testing.assert_array_equal(table["clean/0/pred"], mean.argmax(axis=1))
    np.testing.assert_allclose(table["clean/0/confidence"], mean.max(axis=1), atol=6e-4)


def test_killed_run_goes_on_with_the_next_perturbation(study, monkeypatch, tmp_path):
    data, dirs, settings = study
    shutil.copytree(dirs.models, get_output_dirs("demo", tmp_path).models)
    params = load_params("demo").model_copy(update={"robustness": settings})
    monkeypatch.setattr(robustness, "load_params", lambda _: params)
    monkeypatch.setattr(robustness, "load_packed", lambda _: data)
    monkeypatch.setattr(jobs, "_start_pool", lambda *_: ThreadPoolExecutor(1))
    seen = []

    def perturb(face, name, severity, sample):
        if name == "blur" and len(set(seen)) < len(CORRUPTIONS):
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
    for name in (*NETWORKS, robustness.ENSEMBLE, robustness.SALIENCY):
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


def test_missing_predictions_say_what_to_run(study):
    data, dirs, _ = study
    with pytest.raises(DataError, match="fer_lib perturb --dataset demo"):
        robustness.read_perturbed(dirs, "nobody", data)


def test_predictions_on_other_data_are_refused(study, tmp_path):
    data, dirs, _ = study
    table = robustness.read_perturbed(dirs, "student", data)
    path = tmp_path / "other.parquet"
    write_table(path, table, SimpleNamespace(data_hash="of other data"))
    with pytest.raises(DataError, match="expected predictions on data hash"):
        read_table(path, data, "perturb")
    path.write_bytes(b"no parquet")
    with pytest.raises(DataError, match="expected a parquet file"):
        read_table(path, data, "perturb")


def test_saliency_maps_are_followed(study):
    data, dirs, settings = study
    table = robustness.read_perturbed(dirs, robustness.SALIENCY, data)
    assert len(table) == settings.n_saliency
    correlations = table.drop(columns="row").to_numpy()
    assert correlations.shape[1] == 5 * len(CORRUPTIONS)
    assert -1 <= correlations.min() <= correlations.max() <= 1 + 1e-6
    first, last = (table.filter(regex=f"/{severity}$").to_numpy().mean() for severity in (1, 5))
    assert first > last
    scores = severity_curves.score_following(table, Bootstrap(len(table), 30, 0, data.persons[table["row"]]))
    value, low, high = scores["blur/5"]
    assert value == pytest.approx(table["blur/5"].mean())
    assert low <= value <= high


def test_earlier_map_moves_along_with_the_face(study, monkeypatch):
    """A network whose map is the image itself follows every turn, but for what comes in at the border."""
    data, dirs, _ = study
    rows = data.get_rows("test")[:4]
    faces = [data.faces[row].mean(axis=2).astype(np.uint8) for row in rows]
    monkeypatch.setattr(
        robustness, "compute_saliency", lambda model, images, *_: (images.mean(dim=1).numpy() + 1) / 2
    )
    samples = robustness.build_samples([data.faces[row] for row in rows], rows, 0)
    follower = robustness.SaliencyFollower(load_checkpoint(dirs.models / "student"), faces, samples)
    for name in ("rotation", "yaw", "wider", "shift"):
        turned = [perturbations.perturb(face, name, 4, one) for face, one in zip(faces, samples, strict=True)]
        assert follower.follow(turned, name, 4).min() > 0.9
        assert follower.follow(turned, "noise", 4).max() < 0.9


def test_scores_are_those_of_scikit_learn(study):
    data, dirs, _ = study
    table = robustness.read_perturbed(dirs, "student", data)
    curves = trace_curves(table, data.emotions, Bootstrap(len(table), 30, 0, data.persons[table["row"]]))
    labels = table["label"].to_numpy()
    for name, severity in (("blur", 3), ("mask", 5)):
        pred = table[f"{name}/{severity}/pred"].to_numpy()
        assert curves.trace(name)[severity].value == pytest.approx(np.mean(pred == labels))
        recall = curves.trace(name, "macro_recall")[severity].value
        assert recall == pytest.approx(balanced_accuracy_score(labels, pred))
        present = sorted(set(labels))
        precision = curves.trace(name, "macro_precision")[severity].value
        expected = precision_score(labels, pred, labels=present, average="macro", zero_division=0)
        assert precision == pytest.approx(expected)


def build_table(n=40):
    """Return predictions that are correct at severities 0 to 2 and wrong after."""
    labels = np.arange(n) % 7
    columns = {"row": np.arange(n), "label": labels, "clean/0/pred": labels, "clean/0/confidence": 0.9}
    for name in CORRUPTIONS:
        for severity in range(1, 6):
            columns[f"{name}/{severity}/pred"] = labels if severity < 3 else (labels + 1) % 7
            columns[f"{name}/{severity}/confidence"] = 0.9
    return pd.DataFrame(columns)


def test_area_is_that_under_the_curve_and_the_first_to_fall_is_found():
    table = build_table()
    curves = trace(table)
    # 1, 1, 1, 0, 0, 0 over five steps: 2 whole ones and half of the third.
    assert curves.measure_area("blur") == pytest.approx((0.5, 0.5, 0.5))
    assert curves.average(["blur"])[0] == pytest.approx(0.4)
    assert curves.measure_loss(["blur"]) == pytest.approx((0.6, 0.6, 0.6))
    fallen = severity_curves.find_first_fallen(table, curves, EMOTIONS_7, 1)
    assert (fallen["severity"] == 3).all()
    first = fallen.iloc[0]
    assert EMOTIONS_7[(EMOTIONS_7.index(first["emotion"]) + 1) % 7] == first["into"]
    assert curves.compare(curves, ["blur", "noise"]) == (0, 0, 0)


def trace(table):
    return trace_curves(table, EMOTIONS_7, Bootstrap(len(table), 20, 0))


def build_falls():
    """Return predictions in which fear is lost to sad at severity 2 of blur, angry at 4, nothing else."""
    table = build_table(140)
    for name in CORRUPTIONS:
        for severity in range(1, 6):
            table[f"{name}/{severity}/pred"] = table["label"]
    for emotion, start, into in ((2, 2, 4), (0, 4, 6)):
        for severity in range(start, 6):
            pred = table[f"blur/{severity}/pred"].to_numpy().copy()
            pred[table["label"] == emotion] = into
            table[f"blur/{severity}/pred"] = pred
    return table


def find_falls(table, min_faces=5):
    curves = trace(table)
    return severity_curves.find_first_fallen(table, curves, EMOTIONS_7, min_faces)


def test_first_emotion_to_fall_is_told_from_later_ones():
    fallen = find_falls(build_falls())
    blur = fallen.set_index("perturbation").loc["blur"]
    assert (blur["emotion"], blur["severity"], blur["into"]) == ("fear", 2, "sad")
    assert (fallen["severity"] > 0).sum() == 1
    assert severity_curves.count_first_fallen(fallen) == ("fear", 1, "sad", 1)


def test_emotion_that_is_never_found_or_rare_does_not_fall():
    table = build_falls()
    table.loc[table["label"] == 2, "clean/0/pred"] = 4  # fear is not found on clean faces either
    blur = find_falls(table).set_index("perturbation").loc["blur"]
    assert (blur["emotion"], blur["severity"]) == ("angry", 4)
    none = find_falls(table, min_faces=1000)
    assert none.empty
    assert severity_curves.count_first_fallen(none) == ("", 0, "", 0)


def test_emotion_that_no_face_shows_has_no_recall_and_no_metric():
    table = build_table(140)
    table = table[table["label"] != 1].reset_index(drop=True)
    curves = trace(table)
    assert not curves.compare(curves, ["blur"], "recall.disgust").is_defined
    assert curves.compare(curves, ["blur"], "macro_recall").is_defined
    fallen = severity_curves.find_first_fallen(table, curves, EMOTIONS_7, 5)
    assert "disgust" not in set(fallen["emotion"])


def test_calibration_error_is_that_of_evaluation():
    rng = np.random.default_rng(0)
    table = build_table(200)
    probabilities = rng.dirichlet(np.ones(7), 200)
    table["clean/0/pred"], table["clean/0/confidence"] = (
        probabilities.argmax(axis=1),
        probabilities.max(axis=1),
    )
    curves = trace(table)
    scores = compute_metrics(table["label"].to_numpy(), probabilities, EMOTIONS_7)
    assert curves.scores["ece"][0, 0] == pytest.approx(scores["ece"])
    metrics = Metrics("robustness")
    severity_curves.add_curves(metrics, curves, len(table))
    assert metrics.interval("low_resolution.3.accuracy") == curves.trace("low resolution")[3]
    assert metrics["noise.accuracy"] == curves.average(["noise"]).value
    errors = metrics.select(metric="ece")
    assert len(errors) == 21 * 5
    assert errors["value"].between(errors["lo"], errors["hi"]).all()  # although resamples have larger ones


def test_counterfactuals_change_one_factor_of_the_same_faces(study):
    data, dirs, settings = study
    table = CounterfactualScores(dirs, data, settings).read("student", "skin_tone")
    faces = table[["row", "label"]].drop_duplicates()
    assert len(table) == 10 * len(faces)
    assert faces["label"].value_counts().max() == settings.n_counterfactuals // 7
    assert set(faces["label"]) == set(data.labels[data.get_rows("test")])
    assert table["confidence"].between(1 / 7 - 1e-3, 1).all()


def test_value_that_a_face_has_draws_it_again_and_others_do_not(study):
    data, _, _ = study
    row = data.get_rows("test")[0]
    source, mask = data.index["source"].iloc[row], data.index["mask"].iloc[row]
    drawn = draw_counterfactuals(source, data.meta["size"])
    of_mask = {c["mask"]: drawn[i] for i, c in enumerate(list_counterfactuals()) if list(c) == ["mask"]}
    np.testing.assert_array_equal(of_mask[bool(mask)], data.faces[row])
    assert not np.array_equal(of_mask[not mask], data.faces[row])
    both = list_counterfactuals().index({"glasses": "sunglasses", "mask": True})
    assert not any(np.array_equal(drawn[both], other) for other in np.delete(drawn, both, axis=0))


def test_maps_are_tested_on_faces_that_did_not_choose_them(study):
    data, dirs, _ = study
    faces = explain_scores.read_results(dirs, data, "faces")
    assert set(faces["row"]) <= set(data.get_rows("test"))
    assert set(faces["map"]) == set(explain_scores.KEYS)
    parts = faces[[name for name in faces if name.startswith("part_")]].sum(axis=1)
    assert parts[faces["map"] == explain_scores.RANDOM].to_numpy() == pytest.approx(1, abs=1e-3)
    saliency = SaliencyScores(faces, data, 20, 0)
    scores, gains = saliency.score(), saliency.compare()
    for (name, rival), gain in gains.items():
        for measure, sign in (("deletion", -1), ("insertion", 1)):
            difference = scores[name][measure].value - scores[rival][measure].value
            assert gain[measure].value == pytest.approx(sign * difference)
    assert set(gains) >= {(explain_scores.LAST, explain_scores.RANDOM)}
    mean, low, high = saliency.average_curves()["deletion"][explain_scores.CHOSEN]
    areas = faces[faces["map"] == explain_scores.CHOSEN]["deletion"]
    assert np.trapezoid(mean, dx=0.1) == pytest.approx(areas.mean())
    assert (low <= high).all()


def test_parts_and_background_are_shares_of_the_map(study):
    data, dirs, _ = study
    faces = explain_scores.read_results(dirs, data, "faces")
    chosen, saliency = faces[faces["map"] == explain_scores.CHOSEN], SaliencyScores(faces, data, 20, 0)
    index = int(chosen["pred"].mode()[0])
    for is_correct in (True, False):
        part = chosen[(chosen["pred"] == index) & ((chosen["label"] == chosen["pred"]) == is_correct)]
        if len(part):
            density = part["part_mouth"].mean() / part["area_mouth"].mean()
            found = saliency.score_parts(is_correct, 1).loc[data.emotions[index], "mouth"]
            assert found.value == pytest.approx(density)
    assert saliency.score_parts(True, 1000).empty
    background = saliency.score_background()
    wrong = chosen[chosen["label"] != chosen["pred"]]
    assert background["wrong"].value == pytest.approx(wrong["part_background"].mean())
    assert background["image"].value == pytest.approx(chosen["area_background"].mean())


def test_densest_part_stands_with_the_parts_that_its_interval_does_not_exclude():
    densities = pd.DataFrame(
        {
            "eyes": [Interval(2.0, 1.5, 2.5)],
            "mouth": [Interval(1.4, 1.1, 1.6)],
            "nose": [Interval(1.0, 0.9, 1.1)],
        },
        index=["happy"],
    )
    row = explain_scores.tabulate_densest(densities).loc["happy"]
    assert row.tolist() == ["eyes", f"{Interval(2.0, 1.5, 2.5):.1f}", "mouth"]


def test_background_is_compared_among_faces_with_the_same_prediction(study):
    data = study[0]
    rows = data.get_rows("test")[:6]
    # Emotion 0 looks at the background much, 1 little; errors look there 0.1 more; most errors are 0's.
    table = pd.DataFrame(
        {
            "row": rows,
            "map": explain_scores.CHOSEN,
            "pred": [0, 0, 0, 1, 1, 1],
            "label": [0, 2, 2, 1, 1, 2],
            "part_background": [0.5, 0.6, 0.6, 0.1, 0.1, 0.2],
            "area_background": 0.4,
        }
    )
    found = SaliencyScores(table, data, 20, 0).score_background()
    assert found["gap"].value == pytest.approx(0.1)
    assert found["wrong"].value - found["correct"].value > 0.2
    all_correct = table.assign(label=table["pred"])
    assert set(SaliencyScores(all_correct, data, 20, 0).score_background()) == {"correct", "image"}


def test_maps_of_few_faces_are_not_averaged_and_single_ones_are_of_drawn_faces(study, tmp_path):
    data, dirs, _ = study
    maps = explain_scores.read_maps(dirs, "maps")
    total = sum(int(value) for name, value in maps.items() if name.endswith("/n"))
    assert total == explain_scores.read_results(dirs, data, "faces")["row"].nunique()
    for name in (name for name in maps if not name.endswith("/n")):
        assert maps[f"{name}/n"] >= MIN_FACES
    examples = explain_scores.read_maps(dirs, "examples")
    assert all(examples[name].ndim == 2 for name in examples if not name.endswith("/row"))
    faces = SimpleNamespace(rows=[], labels=[], pred=[])
    assert explain_study.pick_examples(SimpleNamespace(packed_regions=None), faces, []) == {}


def test_drawn_faces_are_scored_by_factor_pair_and_mitigation(study):
    data, dirs, settings = study
    varied = CounterfactualScores(dirs, data, settings)
    groups = varied.score_factors()
    assert groups["skin_tone"].index.tolist() == [str(tone) for tone in range(1, 11)]
    masks = varied.read("student", "mask")
    bare = masks[masks["value"] == "False"]
    accuracy = groups["mask"].loc["False", "accuracy"]
    assert accuracy.value == pytest.approx((bare["pred"] == bare["label"]).mean())
    gaps = varied.find_gaps(groups)
    by_pitch = [score.value for score in groups["pitch"]["accuracy"]]
    assert gaps.loc["pitch", "gap"] == pytest.approx(max(by_pitch) - min(by_pitch))
    metrics = Metrics("robustness")
    add_groups(metrics, groups, gaps)
    assert metrics["group.pitch.gap"] == gaps.loc["pitch", "gap"]
    assert metrics.interval("group.mask.False.accuracy") == accuracy
    assert set(varied.score_networks().index) == set(NETWORKS)
    assert {"first", "second", "excess", "p"} <= set(varied.list_pairs())
    changes = varied.compare_mitigations()
    of_tones = [varied.read(name, "skin_tone") for name in NETWORKS]
    rates = [(part["pred"] == part["label"]).mean() for part in of_tones]
    assert changes["augmented", "skin_tone"]["accuracy"].value == pytest.approx(rates[1] - rates[0])
    assert "augmented – student, skin tone" in tabulate_changes(changes, settings.mitigations).index
