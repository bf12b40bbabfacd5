import json
import math

import numpy as np
import onnx
import onnxruntime
import pandas as pd
import pytest
import torch
from conftest import REPO
from huggingface_hub import ModelCard

from fer_lib.data.framing import FER2013_FRAMING
from fer_lib.data.packed import PackedDataset
from fer_lib.deployment import export, release
from fer_lib.deployment.card import build_card
from fer_lib.deployment.release_scores import choose_threshold, select_judged
from fer_lib.errors import FerError, ModelError
from fer_lib.evaluation.metrics import fit_temperature
from fer_lib.inference.recognizer import Recognizer
from fer_lib.inference.registry import DEFAULT_MODEL, describe_variant, list_variants, name_network
from fer_lib.labels import EMOTIONS_7, VOTES
from fer_lib.metrics_file import Metrics, write_metrics
from fer_lib.models.build import create_model, load_checkpoint, load_exported, save_checkpoint
from fer_lib.models.checkpoints import read_config
from fer_lib.models.preprocessing import Preprocessing, preprocess
from fer_lib.param_sections import TargetShares
from fer_lib.params import load_params
from fer_lib.paths import get_output_dirs
from fer_lib.responsible_use import RESPONSIBLE_USE
from fer_lib.study_sections import ReleaseParams
from fer_lib.training.predict import Predictor
from fer_lib.training.voting import compute_softmax

COMMITTED = REPO / "models" / "release" / DEFAULT_MODEL
PREPROCESSING = Preprocessing(32, (0.5,) * 3, (0.5,) * 3)
TEMPERATURE = 2.5
"""By how much the tiny network is too sure of itself."""

TRAINING = load_params("demo").training.model_copy(
    update={"epochs": 4, "image_size": 32, "targets": TargetShares(votes=1)}
)
CONFIG = {
    "architecture": "test_efficientnet",
    "best_epoch": 3,
    "data_hash": "d" * 64,
    "dataset": "tiny",
    "device": "cpu",
    "emotions": list(EMOTIONS_7),
    "git_commit": "c" * 40,
    "params": {"training": TRAINING.model_dump(mode="json")},
    "preprocessing": json.loads(json.dumps(PREPROCESSING.to_dict())),
}
FAMILY = ReleaseParams(
    judged_by="majority",
    adjustment_cost=0.0135,  # tau is another by labels, and on test
    default="small",
    variants={
        "vote": ("b0.float32", "dwarf.int8"),
        "float": ("b0.float32",),
        "small": ("dwarf.int8",),
    },
)


def draw_blocks(n):
    """Return n faces of 36 grey blocks each, uint8 (n, 48, 48)."""
    blocks = np.random.default_rng(0).integers(0, 256, (n, 6, 6), dtype=np.uint8)
    return blocks.repeat(8, axis=1).repeat(8, axis=2)


def build_network(faces):
    """Return a network whose logits differ from face to face by a few units, as a trained one's do."""
    torch.manual_seed(0)
    model = create_model("test_efficientnet", 7).train()
    images = torch.from_numpy(preprocess(list(faces[:200]), PREPROCESSING))
    with torch.no_grad():
        for _ in range(20):  # batch norm gets to know its inputs; else they all but vanish on the way
            model(images)
        spread = model.eval()(images).std(dim=0)
        model.get_classifier().weight.mul_(3 / spread[:, None])
        model.get_classifier().bias.sub_(model(images).mean(dim=0))
    return model


def name_seen(labels):
    """Return what annotators see in all faces: the label in most, neutral in three of ten."""
    return np.where(np.isin(np.arange(len(labels)) % 10, (1, 2, 3)), EMOTIONS_7.index("neutral"), labels)


def build_data(model):
    """Return 900 faces whose labels the network's logits over `TEMPERATURE` predict, and those logits.

    Annotators see what `name_seen` says; nobody can name the emotion of every tenth face.
    """
    faces = draw_blocks(900)
    splits = np.repeat(["train", "val", "test"], [100, 400, 400])
    index = pd.DataFrame({"row": np.arange(900), "split": splits, "duplicate_group": np.arange(900)})
    index.loc[500:503, "duplicate_group"] = [0, 1, 2, 3]  # four test faces that were trained on
    meta = {"emotions": list(EMOTIONS_7), "size": 48, "dataset": "tiny", "data_hash": CONFIG["data_hash"]}
    logits = Predictor(model, PREPROCESSING, 100).predict_logits(faces)
    chances = compute_softmax(logits / TEMPERATURE).cumsum(axis=1)
    labels = (chances < np.random.default_rng(1).random((900, 1))).sum(axis=1).clip(0, 6)
    names = {"angry": "anger", "happy": "happiness", "sad": "sadness"}
    for name in VOTES:
        index[f"votes_{name}"] = 0
    for row, seen in enumerate(name_seen(labels)):
        emotion = EMOTIONS_7[seen]
        index.loc[row, "votes_unknown" if row % 10 == 0 else f"votes_{names.get(emotion, emotion)}"] = 10
    return PackedDataset(faces, index.assign(label=labels), meta), logits


def point_at(patch, root, data, **releases):
    """Make `release_model` find the project in `root`, with these packed data and plans of releases."""
    patch.setattr(release, "ROOT", root)
    patch.setattr(release, "RELEASE_DIR", root / "models" / "release")
    patch.setattr(release, "load_packed", lambda dataset: data)
    params = load_params("demo").model_copy(update={"releases": releases})
    patch.setattr(release, "load_params", lambda dataset: params)


def write_facts(root, stage, facts, wall_seconds=1.0):
    """Write metrics of a stage of the data set `tiny` in the project `root`."""
    meta = {"dataset": "tiny", "data_hash": CONFIG["data_hash"]}
    write_metrics(
        get_output_dirs("tiny", root), Metrics(stage, facts), meta, load_params("demo"), 0, wall_seconds
    )


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """Return a project folder with a network under two names, the data, and its logits."""
    root = tmp_path_factory.mktemp("project")
    model = build_network(draw_blocks(900))
    for name in ("b0", "dwarf"):
        save_checkpoint(root / "models" / "tiny" / name, model, CONFIG)
        facts = {"trained_at_commit": CONFIG["git_commit"], "device": "cpu"}
        write_facts(root, f"recipes/{name}", facts, wall_seconds=90.0)
    write_facts(root, "evaluation", {"selected": "b0"})
    return root, *build_data(model)


@pytest.fixture(scope="module")
def released(project):
    """Return the folder of the released network that evaluation selected."""
    root, data, _ = project
    with pytest.MonkeyPatch.context() as patch:
        point_at(patch, root, data)
        return release.release_model("tiny", "tiny-b0")


@pytest.fixture(scope="module")
def family(project):
    """Return the folder of a release of two networks and their vote."""
    root, data, _ = project
    with pytest.MonkeyPatch.context() as patch:
        point_at(patch, root, data, family=FAMILY)
        return release.release_model("tiny", "family")


def compute_nll(probabilities, labels):
    return float(-np.log(probabilities[np.arange(len(labels)), labels]).mean())


def test_release_is_whole_and_nothing_is_left_over(released, family):
    names = sorted(path.name for path in released.iterdir())
    assert names == ["README.md", "config.json", "model.float.onnx", "model.int8.onnx"]
    names = sorted(path.name for path in family.iterdir())
    assert names == ["README.md", "config.json", "model.float.onnx", "model.small.onnx"]
    assert {path.name for path in released.parent.iterdir()} == {"tiny-b0", "family"}


def test_config_says_where_the_weights_come_from(released):
    config = read_config(released)
    shared = ("architecture", "data_hash", "dataset", "emotions", "preprocessing")
    assert {key: config[key] for key in shared} == {key: CONFIG[key] for key in shared}
    assert config["framing"] == FER2013_FRAMING.to_dict()  # these data say none of their own
    assert config["onnx"]["onnxruntime"] == onnxruntime.__version__
    own = config["variants"]["float"]
    assert (own["network"], own["trainings"]) == ("b0.float32", {"b0": [90.0, "cpu"]})
    assert (own["git_commit"], own["epochs"], own["targets"]) == ("c" * 40, [3, 4], {"votes": 1.0})
    assert (own["start"], own["teachers"]) == (None, [])
    assert own["bytes"] == (released / own["file"]).stat().st_size
    assert own["milliseconds"] > 0


def test_metrics_of_another_training_are_refused(project, monkeypatch):
    root, data, _ = project
    point_at(monkeypatch, root, data)
    path = get_output_dirs("tiny", root).get_provenance("recipes/b0")
    content = path.read_text()
    path.write_text(content.replace("c" * 40, "e" * 40))
    with pytest.raises(
        ModelError, match=f"b0: its metrics are of a training at {'e' * 40}; run the stage again"
    ):
        release.release_model("tiny", "other")
    path.write_text(content)


def test_temperature_is_in_the_weights(project, released):
    _, data, logits = project
    rows = data.get_rows("val")
    temperature = list_variants(read_config(released))["float"]["temperature"]
    assert temperature == pytest.approx(TEMPERATURE, rel=0.15)  # 400 labels know no more
    assert temperature == pytest.approx(fit_temperature(logits[rows].astype(float), data.labels[rows]))
    found = Recognizer(released, threads=1).compute_probabilities(data.faces[rows])
    expected = compute_softmax(logits[rows] / temperature)
    assert np.abs(found - expected).max() < 0.01  # half precision, on logits of up to ten
    nll = compute_nll(found, data.labels[rows])
    assert nll == pytest.approx(compute_nll(expected, data.labels[rows]), abs=2e-3)
    assert nll < compute_nll(compute_softmax(logits[rows]), data.labels[rows]) - 0.05


@pytest.mark.parametrize("variant", ["vote", "float", "small"])
def test_every_variant_is_calibrated_by_itself(project, family, variant):
    _, data, _ = project
    rows, labels = select_judged(data, "val", "majority")
    probabilities = Recognizer(family, variant=variant).compute_probabilities(data.faces[rows])
    assert fit_temperature(np.log(probabilities), labels) == pytest.approx(1, abs=0.02)


def test_int8_network_with_its_logits_divided_predicts_the_same(project, tmp_path):
    root, data, _ = project
    checkpoint = load_checkpoint(root / "models" / "tiny" / "dwarf")
    settings = load_params("demo").compression
    export.export_onnx(checkpoint, tmp_path / "float32.onnx", half=False)
    images = preprocess(list(data.faces[:64]), PREPROCESSING)
    release.write_int8(tmp_path, images, settings)
    path = tmp_path / "int8.onnx"

    def run():
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        return session.run(None, {"image": images})[0]

    before = run()
    export.divide_logits(path, 1.7)
    assert np.abs(run() - before / 1.7).max() < 1e-5


def test_logit_adjustment_takes_the_log_of_the_shares_off(project):
    model = load_checkpoint(project[0] / "models" / "tiny" / "b0").model
    before = model.get_classifier().bias.detach().clone()
    shares = np.array([0.5, 0.02, 0.08, 0.1, 0.1, 0.1, 0.1])
    export.adjust_logits(model, 0.5, shares)
    lifted = (model.get_classifier().bias.detach() - before).numpy()
    assert lifted == pytest.approx(-0.5 * np.log(shares), abs=1e-5)


def test_adjusted_network_predicts_rare_emotions_more_often(project, family):
    _, data, logits = project
    rows, entry = data.get_rows("test"), list_variants(read_config(family))["float"]
    shares = share_targets(data)
    expected = compute_softmax((logits[rows] - entry["tau"] * np.log(shares)) / entry["temperature"])
    found = Recognizer(family, variant="float").compute_probabilities(data.faces[rows])
    assert np.abs(found - expected).max() < 0.01


def share_targets(data):
    """Return the shares of the emotions in what the network learned: what annotators saw, else the label."""
    train = data.get_rows("train")
    learned = np.where(train % 10 == 0, data.labels[train], name_seen(data.labels)[train])
    return np.bincount(learned, minlength=7) / len(train)


def test_tau_is_the_largest_that_costs_no_more_on_validation_by_majority(project, family):
    _, data, logits = project
    log_shares, seen = np.log(share_targets(data)), name_seen(data.labels)

    def find_tau(split, labels):
        rows = data.get_rows(split)
        rows = rows[rows % 10 != 0]
        taus = np.arange(21) / 20
        right = [((logits[rows] - tau * log_shares).argmax(axis=1) == labels[rows]).mean() for tau in taus]
        kept = np.cumprod(np.array(right) >= right[0] - FAMILY.adjustment_cost)
        return taus[kept.sum() - 1]

    assert list_variants(read_config(family))["float"]["tau"] == find_tau("val", seen)
    assert find_tau("val", seen) not in (0, find_tau("val", data.labels), find_tau("test", seen))


def test_vote_is_the_mean_of_its_members_at_its_own_temperature(project, family):
    _, data, _ = project
    faces = data.faces[data.get_rows("test")[:50]]
    members = [Recognizer(family, variant=name).compute_probabilities(faces) for name in ("float", "small")]
    entry = list_variants(read_config(family))["vote"]
    assert entry["members"] == ["float", "small"]
    expected = compute_softmax(np.log(np.mean(members, axis=0)) / entry["vote_temperature"])
    found = Recognizer(family, variant="vote").compute_probabilities(faces)
    assert np.abs(found - expected).max() < 1e-6
    parts = [list_variants(read_config(family))[name] for name in entry["members"]]
    assert entry["bytes"] == sum(part["bytes"] for part in parts)
    assert entry["milliseconds"] == pytest.approx(sum(part["milliseconds"] for part in parts), abs=1e-3)


def test_the_default_variant_is_taken_unless_another_is_named(family):
    assert Recognizer(family).variant == "small"
    assert Recognizer(family, variant="float").variant == "float"


@pytest.mark.parametrize("variant", ["float", "small"])
def test_exported_networks_come_back_into_pytorch(project, family, variant):
    _, data, _ = project
    entry = list_variants(read_config(family))[variant]
    assert (family / entry["file"]).is_file()
    checkpoint = load_exported(family / entry["file"], entry)
    faces = data.faces[data.get_rows("test")]
    found = compute_softmax(Predictor(checkpoint.model, checkpoint.preprocessing).predict_logits(faces))
    expected = Recognizer(family, variant=variant).compute_probabilities(faces)
    # Of int8 the activations are not rounded.
    assert np.abs(found - expected).mean() < (1e-5 if variant == "float" else 0.02)
    assert (found.argmax(axis=1) == expected.argmax(axis=1)).mean() > 0.9


def test_damaged_export_is_one_line(tmp_path, family):
    entry = list_variants(read_config(family))["float"]
    path = tmp_path / "model.float.onnx"
    path.write_bytes(b"none")
    with pytest.raises(ModelError, match=r"model\.float\.onnx: not a network in ONNX: .*; export it again"):
        load_exported(path, entry)
    with pytest.raises(ModelError, match=r"model\.small\.onnx: does not fit test_resnet: "):
        load_exported(family / "model.small.onnx", entry | {"architecture": "test_resnet"})


def test_matrices_are_half_precision(released):
    exported = {
        tensor.name: onnx.numpy_helper.to_array(tensor)
        for tensor in onnx.load(released / "model.float.onnx").graph.initializer
    }
    halves = {name for name in exported if name.endswith(".half")}
    assert halves
    for name, values in exported.items():
        if values.ndim > 1:
            assert values.dtype == np.float16, name


def test_onnx_takes_any_number_of_faces(released):
    session = onnxruntime.InferenceSession(released / "model.float.onnx", providers=["CPUExecutionProvider"])
    for n in (1, 5):
        images = np.zeros((n, 3, 32, 32), np.float32)
        assert session.run(None, {"image": images})[0].shape == (n, 7)


def test_metrics_are_those_of_the_network_users_run(project, family):
    _, data, _ = project
    for variant, entry in list_variants(read_config(family)).items():
        metrics, rows = entry["metrics"], data.get_rows("test")
        probabilities = Recognizer(family, variant=variant).compute_probabilities(data.faces[rows])
        predicted = probabilities.argmax(axis=1)
        assert (metrics["test.n_images"], metrics["test_dedup.n_images"]) == (400, 396)
        assert metrics["test.accuracy"] == pytest.approx((predicted == data.labels[rows]).mean(), abs=1e-6)
        for key in [key for key in metrics if key.endswith("_lo")]:
            name = key.removesuffix("_lo")
            assert metrics[key] <= metrics[name] <= metrics[f"{name}_hi"], name
        named = rows % 10 != 0  # on the others the annotators do not agree
        assert metrics["test.majority.n_images"] == named.sum()
        seen = name_seen(data.labels)[rows]
        assert metrics["test.majority.label_agreement"] == pytest.approx(
            (seen == data.labels[rows])[named].mean(), abs=1e-6
        )
        correct = (predicted == seen)[named]
        assert metrics["test.majority.accuracy"] == pytest.approx(correct.mean(), abs=1e-6)
        neutral = named & (seen == EMOTIONS_7.index("neutral"))
        angry = (predicted[neutral] == EMOTIONS_7.index("angry")).mean()
        assert metrics["test.majority.neutral_as_angry"] == pytest.approx(angry, abs=1e-6)
        covered = metrics["val.coverage"]
        both = metrics.get("val.accuracy_answered", 0) * covered
        both += metrics.get("val.accuracy_abstained", 0) * (1 - covered)
        assert both == pytest.approx(metrics["val.accuracy"], abs=1e-5)
        assert all(math.isfinite(value) for value in metrics.values())


def test_threshold_has_most_faces_on_the_right_side(project, family):
    _, data, _ = project
    recognizer = Recognizer(family, variant="float")
    rows, labels = select_judged(data, "val", "majority")
    probabilities = recognizer.compute_probabilities(data.faces[rows])
    correct, confidence = probabilities.argmax(axis=1) == labels, probabilities.max(axis=1)

    def count(threshold):
        return (correct & (confidence >= threshold)).sum() + (~correct & (confidence < threshold)).sum()

    chosen = choose_threshold(recognizer, data, "majority")
    assert chosen == recognizer.abstain_below
    assert count(chosen) == max(count(threshold / 100) for threshold in range(100))
    curve = list_variants(read_config(family))["float"]["abstention"]
    assert chosen in curve["threshold"]
    for threshold, coverage, accuracy in zip(*curve.values(), strict=True):
        answered = confidence >= threshold
        assert coverage == pytest.approx(answered.mean(), abs=1e-4)
        assert accuracy == pytest.approx(correct[answered].mean(), abs=1e-4)
    assert curve["threshold"] == sorted(curve["threshold"])
    assert not (confidence >= curve["threshold"][-1] + 0.05).any() or curve["threshold"][-1] == 0.95


@pytest.mark.parametrize("folder", sorted(COMMITTED.parent.glob("[!.]*/")), ids=lambda folder: folder.name)
def test_committed_curves_agree_with_the_committed_scores(folder):
    for variant in list_variants(read_config(folder)).values():
        curve, metrics = variant["abstention"], variant["metrics"]
        own = curve["threshold"].index(variant["abstain_below"])
        assert curve["coverage"][own] == pytest.approx(metrics["val.coverage"], abs=1e-4)
        assert curve["accuracy"][own] == pytest.approx(metrics["val.accuracy_answered"], abs=1e-4)
        assert curve["accuracy"][0] == pytest.approx(metrics["val.accuracy"], abs=1e-4)


def test_voter_that_is_no_variant_of_its_own_is_refused():
    with pytest.raises(ValueError, match=r"expected 'b\.int8', which votes, as a variant of its own too"):
        ReleaseParams(
            judged_by="label",
            adjustment_cost=0,
            default="a",
            variants={"a": ("a.int8",), "vote": ("a.int8", "b.int8")},
        )
    with pytest.raises(ValueError, match="default: expected one of a, found 'b'"):
        ReleaseParams(judged_by="label", adjustment_cost=0, default="b", variants={"a": ("a.int8",)})


@pytest.mark.parametrize("kind", ["released", "family", "committed"])
def test_card_is_generated_and_names_everything(kind, request):
    folder = COMMITTED if kind == "committed" else request.getfixturevalue(kind)
    config, card = read_config(folder), (folder / "README.md").read_text()
    assert card == build_card(folder.name, config)
    assert "nan" not in card.lower().replace("finance", "")
    words = [f"# {folder.name}\n", config["data_hash"][:12], "Not for"]
    words += [f"\n| {emotion} | " for emotion in config["emotions"]]
    for variant, entry in config["variants"].items():
        metrics = entry["metrics"]
        words += [f"\n| `{variant}` | ", f"{metrics['test.accuracy']:.1%}", f"{metrics['val.coverage']:.0%}"]
        words += [f"{metrics['test.majority.accuracy']:.1%}", f"{metrics['test.majority.ece']:.3f} ["]
        words += [entry["git_commit"][:12], name_network(entry)] if "file" in entry else []
    for word in words:
        assert word in card, word
    prose = [line for line in card.splitlines() if not line.startswith(("|", "- ", "    ", "recognizer"))]
    assert max(map(len, prose)) <= 110
    assert "```python\nfrom fer_lib" in card


@pytest.mark.parametrize("kind", ["released", "family", "committed"])
def test_hub_reads_the_scores_of_the_default_variant_from_the_card(kind, request):
    folder = COMMITTED if kind == "committed" else request.getfixturevalue(kind)
    config, data = read_config(folder), ModelCard.load(folder / "README.md").data
    assert (data.model_name, data.license, data.pipeline_tag) == (
        folder.name,
        "other",
        "image-classification",
    )
    assert data.datasets == [config["dataset"], "ferplus"]  # whose votes taught all three
    metrics = config["variants"][config["default"]]["metrics"]
    read = {(result.dataset_config, result.metric_type): result.metric_value for result in data.eval_results}
    assert read == {
        ("labels", "accuracy"): metrics["test.accuracy"],
        ("labels", "recall"): metrics["test.macro.recall"],
        ("annotators", "accuracy"): metrics["test.majority.accuracy"],
        ("annotators", "recall"): metrics["test.majority.macro.recall"],
    }


def test_card_says_what_the_models_are_for_as_the_app_does(released):
    assert RESPONSIBLE_USE in " ".join((released / "README.md").read_text().split())


def test_card_leaves_out_what_was_not_measured(released):
    config = read_config(released)
    for end in ("", "_lo", "_hi"):
        del config["variants"]["float"]["metrics"][f"test.recall.disgust{end}"]
    row = next(line for line in build_card("x", config).splitlines() if line.startswith("| disgust"))
    assert row.split(" | ")[4] == "–"


def test_network_names_no_folder_of_the_machine_that_exported_it(released):
    for folder in (released, COMMITTED):
        for path in folder.glob("*.onnx"):
            assert b"site-packages" not in path.read_bytes()


def test_variants_are_described_in_a_line(family):
    variants = list_variants(read_config(family))
    assert describe_variant(variants["vote"]).startswith("soft vote of float, small, ")
    described = describe_variant(variants["small"])
    assert described.startswith("test efficientnet in int8, taught by FER+'s votes, ")
    accuracy = f"{variants['small']['metrics']['test.majority.accuracy']:.1%} by annotators"
    assert accuracy in describe_variant(variants["small"])


def test_releasing_again_replaces_the_folder_as_a_whole(project, released, monkeypatch):
    root, data, _ = project
    point_at(monkeypatch, root, data)

    def fail(*_):
        raise ModelError("cannot be scored")

    before = (released / "config.json").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(release, "score_release", fail)
        with pytest.raises(ModelError, match="cannot be scored"):
            release.release_model("tiny", "tiny-b0")
    assert (released / "config.json").read_bytes() == before
    (released / "stale").touch()
    release.release_model("tiny", "tiny-b0")
    assert not (released / "stale").exists()
    assert {path.name for path in released.parent.iterdir()} <= {"tiny-b0", "family"}


def test_other_data_than_it_was_trained_on(project, monkeypatch):
    root, data, _ = project
    other = PackedDataset(data.faces, data.index, {**data.meta, "data_hash": "e" * 64})
    point_at(monkeypatch, root, other)
    with pytest.raises(ModelError, match="checkpoint and data differ"):
        release.release_model("tiny", "other")


@pytest.mark.parametrize("name", ["..", "a/b", ""])
def test_name_that_is_no_folder_of_its_own_is_refused(name):
    with pytest.raises(ModelError, match="expected a name of letters, digits, dots and hyphens"):
        release.release_model("tiny", name)


def test_pipeline_must_have_run(project, monkeypatch, tmp_path):
    _, data, _ = project
    point_at(monkeypatch, tmp_path, data)
    with pytest.raises(FerError, match=r"evaluation\.csv: not found; run stage 'evaluation' first"):
        release.release_model("tiny", "other")
    point_at(monkeypatch, tmp_path, data, family=FAMILY)
    with pytest.raises(ModelError, match=r"config\.json is missing; train one first"):
        release.release_model("tiny", "family")


def test_unfaithful_export_is_refused(project, tmp_path, monkeypatch):
    checkpoint = load_checkpoint(project[0] / "models" / "tiny" / "b0")
    monkeypatch.setattr(export, "PARITY", -1.0)
    with pytest.raises(ModelError, match=r"logits differ by .* from PyTorch's"):
        export.export_onnx(checkpoint, tmp_path / "model.onnx")


def test_committed_release_is_small_and_holds_no_weights_twice():
    files = {path.name: path.stat().st_size for path in COMMITTED.iterdir()}
    singles = [entry for entry in read_config(COMMITTED)["variants"].values() if "file" in entry]
    assert files.keys() == {"README.md", "config.json", *(entry["file"] for entry in singles)}
    assert sum(files.values()) < 15e6  # what a clone has to fetch


def test_committed_release_scores_what_its_kind_scores():
    config = read_config(COMMITTED)
    assert config["emotions"] == list(EMOTIONS_7)
    assert len(config["data_hash"]) == 64
    for name, variant in list_variants(config).items():
        metrics = variant["metrics"]
        assert metrics["test.n_images"] == 3589  # FER2013's PrivateTest
        # Published single networks reach 0.65 to 0.75 on FER2013; 0.76 and more would be a leak.
        assert 0.6 < metrics["test.accuracy"] < 0.76, name
        assert metrics["test_dedup.accuracy"] < metrics["test.accuracy"]
        assert metrics["test.majority.ece"] < 0.03
        assert metrics["val.accuracy_abstained"] < 0.5 < metrics["val.accuracy_answered"]


def test_no_variant_beats_the_default_in_accuracy_and_speed():
    config = read_config(COMMITTED)
    variants = list_variants(config)
    default = variants[config["default"]]
    for name, variant in variants.items():
        faster = variant["milliseconds"] < default["milliseconds"]
        key = "test.majority.accuracy"
        assert not (faster and variant["metrics"][key] > default["metrics"][key]), name
