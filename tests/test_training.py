import ast
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import REPO

from fer_lib.data.packed import PackedDataset
from fer_lib.errors import ModelError
from fer_lib.models.build import create_model
from fer_lib.params import Params, load_params
from fer_lib.training import fit as training
from fer_lib.training.fit import CODE, PACKAGE, _Run, fit
from fer_lib.training.loading import select_train_rows
from fer_lib.training.optim import build_optimizer, compute_image_size, compute_lr
from fer_lib.training.state import TrainingState
from fer_lib.training.steps import choose_precision

CPU = torch.device("cpu")


@dataclass
class Faces:
    """Stands in for a packed store: two kinds of noise image, bright above or bright below."""

    data_hash: str = "0" * 64
    emotions: tuple[str, ...] = ("happy", "sad")
    meta: dict = field(default_factory=lambda: {"dataset": "noise"})

    def __post_init__(self):
        rng = np.random.default_rng(0)
        self.labels = rng.integers(0, 2, 160)
        self.faces = rng.integers(0, 100, (160, 32, 32), dtype=np.uint8)
        for face, label in zip(self.faces, self.labels, strict=True):
            face[16 * label : 16 * label + 16] += 120

    def get_rows(self, split: str) -> np.ndarray:
        return {"train": np.arange(128), "val": np.arange(128, 160)}[split]


@pytest.fixture
def data() -> Faces:
    return Faces()


def make_params(**changes) -> Params:
    params = load_params("demo")
    small = {
        "architecture": "test_efficientnet",
        "weights": "none",
        "image_size": 32,
        "batch_size": 16,
        "epochs": 2,
        "warmup_steps": 2,
        "ema_decay": 0.9,
    }
    changed = params.training.model_copy(update=small | changes)
    return params.model_copy(update={"training": changed})


def get_weights(result) -> list[torch.Tensor]:
    return list(result.model.state_dict().values())


def are_equal(a, b) -> bool:
    return all(x.equal(y) for x, y in zip(get_weights(a), get_weights(b), strict=True))


def test_learns_what_is_easy(data, tmp_path):
    result = fit(data, make_params(epochs=4, lr=0.01), tmp_path)
    assert result.history["val_accuracy"].max() > 0.9
    assert result.config["metrics"]["val.accuracy"] == result.history["val_accuracy"].max()
    assert result.history["epoch"].tolist() == [1, 2, 3, 4]


def test_same_seed_same_weights_other_seed_others(data, tmp_path):
    first, again = (fit(data, make_params(seed=1), tmp_path / name) for name in "ab")
    other = fit(data, make_params(seed=2), tmp_path / "c")
    assert are_equal(first, again)
    assert not are_equal(first, other)


def fit_broken_off(data, params, folder, killed_at, monkeypatch):
    """Train until `killed_at` steps are done, then again in a process with another random state."""
    steps, train_on_batch = [], training.train_on_batch

    def train_until_killed(*arguments):
        if len(steps) == killed_at:
            raise KeyboardInterrupt
        steps.append(1)
        return train_on_batch(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(training, "SAVE_EVERY_SECONDS", 0.0)
        patch.setattr(training, "train_on_batch", train_until_killed)
        with pytest.raises(KeyboardInterrupt):
            fit(data, params, folder)
    torch.manual_seed(99)
    return fit(data, params, folder)


@pytest.mark.parametrize("killed_at", [1, 5, 8, 13])
@pytest.mark.parametrize("ema_decay", [0.0, 0.9])
def test_killed_at_any_step_it_resumes_to_the_same_result(data, tmp_path, monkeypatch, killed_at, ema_decay):
    # Eight steps an epoch: in the first epoch, at its last step, in the second.
    params = make_params(ema_decay=ema_decay)
    unbroken = fit(data, params, tmp_path / "unbroken")
    resumed = fit_broken_off(data, params, tmp_path / "broken", killed_at, monkeypatch)
    assert are_equal(resumed, unbroken)
    assert resumed.history.drop(columns="seconds").equals(unbroken.history.drop(columns="seconds"))


def test_a_finished_training_is_not_repeated_but_a_changed_one_is(data, tmp_path, monkeypatch):
    finished = fit(data, make_params(), tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(training, "train_on_batch", lambda *_: pytest.fail("trained again"))
        assert are_equal(fit(data, make_params(), tmp_path), finished)
    changed = fit(data, make_params(lr=0.002), tmp_path)
    assert not are_equal(changed, finished)


def test_fingerprint_covers_what_decides_the_weights_and_nothing_of_other_stages(data):
    params = make_params()
    scoring = params.model_copy(update={"evaluation": params.evaluation.model_copy(update={"seed": 9})})
    run = _Run(data, params, CPU)
    before = run.compute_fingerprint()
    run.params = scoring
    assert run.compute_fingerprint() == before
    changes = {
        "data": Faces(data_hash="1" * 64),
        "targets": run.targets[::-1],
        "params": make_params(seed=5),
        "initial": replace(run.initial, sha256="b" * 64),
        "precision": "bfloat16",
    }
    for part, other in changes.items():
        changed = _Run(data, params, CPU)
        setattr(changed, part, other)
        assert changed.compute_fingerprint() != before, part


def find_imports(file):
    """Return the files of the package that a module imports, anywhere in it."""
    for node in ast.walk(ast.parse(file.read_text())):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        for name in names:
            path = PACKAGE.parent / f"{name.replace('.', '/')}.py"
            if name.startswith("fer_lib.") and path.is_file():
                yield path


def test_all_code_that_a_training_imports_is_in_its_fingerprint():
    found, waiting = set(), [PACKAGE / "training" / "fit.py"]
    while waiting:
        file = waiting.pop()
        if file not in found:
            found.add(file)
            waiting += find_imports(file)
    assert PACKAGE / "models" / "preprocessing.py" in found
    outside = {file for file in found if not any(file.is_relative_to(path) for path in CODE)}
    # Errors, files, speed and what is written beside the weights; the parameters enter by their values.
    allowed = ("errors", "files", "intervals", "jobs", "metrics_file", "paths", "provenance")
    allowed += ("params", "param_sections", "params_file", "study_sections")
    assert outside <= {PACKAGE / f"{name}.py" for name in allowed}


TRAIN_TWO_KINDS = """
import sys
from pathlib import Path
sys.path.insert(0, "tests")
import fer_lib
assert Path(fer_lib.__file__).is_relative_to(Path.cwd())
from test_training import Faces, make_params, training
steps, train_on_batch = [], training.train_on_batch
training.train_on_batch = lambda *given: steps.append(1) or train_on_batch(*given)
for _ in range(2):
    training.fit(Faces(), make_params(epochs=1), Path("state"))
    print(len(steps))
"""


def run_python(root, script) -> str:
    """Return what `script` prints in `root`, with the copy of the library that lies there."""
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    environment.pop("FER_ROOT", None)
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=root, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_an_edit_of_the_code_that_made_a_network_trains_it_again(tmp_path):
    for name in ("fer_lib", "tests"):
        shutil.copytree(REPO / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(REPO / "params.yaml", tmp_path)
    assert run_python(tmp_path, TRAIN_TWO_KINDS) == "8\n8"  # once for both
    module = tmp_path / "fer_lib" / "models" / "preprocessing.py"
    module.write_text(module.read_text().replace("np.moveaxis(images,", "np.moveaxis(255 - images,"))
    assert run_python(tmp_path, TRAIN_TWO_KINDS) == "8\n8"


def test_stops_early_and_keeps_the_best_epoch(data, tmp_path, monkeypatch):
    params = make_params(epochs=9, patience=2)
    # Validation logits that are all right in epoch 2 and all wrong otherwise.
    right = np.eye(2, dtype=np.float32)[data.labels[data.get_rows("val")]]
    epochs = []

    def pretend(*_):
        epochs.append(1)
        return right if len(epochs) == 2 else -right

    monkeypatch.setattr(training, "run_batches", pretend)
    result = fit(data, params, tmp_path)
    assert result.best_epoch == 2
    assert len(result.history) == 4  # the best, and two more without a better one


def test_divergence_is_said_in_one_line(data, tmp_path):
    with pytest.raises(ModelError, match=r"training diverged.*lower training\.lr"):
        fit(data, make_params(lr=1e30, warmup_steps=0), tmp_path)


def test_state_of_another_run_is_ignored(tmp_path):
    state = TrainingState.load_or_create(tmp_path, "one")
    state.epoch = 3
    state.save()
    assert TrainingState.load_or_create(tmp_path, "one").epoch == 3
    assert TrainingState.load_or_create(tmp_path, "two").epoch == 0
    assert [p.name for p in tmp_path.iterdir()] == ["state.pt"]


def test_learning_rate_by_hand():
    constant = make_params(lr=0.1, warmup_steps=4, epochs=2).training
    assert [compute_lr(constant, s, 6) for s in (0, 3, 4, 11)] == pytest.approx([0.025, 0.1, 0.1, 0.1])
    cosine = constant.model_copy(update={"schedule": "cosine"})
    # Eight steps after the warm-up: whole, half, and nearly nothing.
    assert [compute_lr(cosine, s, 6) for s in (4, 8, 12)] == pytest.approx([0.1, 0.05, 0.0])


def test_image_size_grows_in_sixteens_and_is_whole_for_the_last_third():
    growing = make_params(first_image_size=48, image_size=96, epochs=9).training
    # 48 pixels to gain over six epochs, eight each, rounded down to a multiple of 16.
    assert [compute_image_size(growing, epoch) for epoch in range(9)] == [48, 48, 64, 64, 80, 80, 96, 96, 96]
    constant = make_params(image_size=40, epochs=3).training
    assert [compute_image_size(constant, epoch) for epoch in range(3)] == [40, 40, 40]


def test_head_alone_moves_nothing_else_and_then_everything(data, tmp_path):
    start = _Run(data, make_params(seed=3, ema_decay=0.0), CPU).model.state_dict()
    frozen = fit(data, make_params(seed=3, ema_decay=0.0, head_epochs=2), tmp_path / "a").model.state_dict()
    moved = {name for name, value in frozen.items() if not value.equal(start[name])}
    assert moved == {"classifier.weight", "classifier.bias"}
    later = fit(data, make_params(seed=3, ema_decay=0.0, head_epochs=1), tmp_path / "b").model.state_dict()
    assert not later["conv_stem.weight"].equal(start["conv_stem.weight"])


def test_early_layers_learn_slower(data):
    groups = build_optimizer(create_model("resnet18", 2), make_params(layer_decay=0.5).training).param_groups
    scales = [group["lr_scale"] for group in groups]
    assert scales == sorted(scales)
    assert scales[-1] == 1.0
    assert scales[0] < 0.1


def test_all_that_a_recipe_may_ask_for_resumes_to_the_same_result(data, tmp_path, monkeypatch):
    recipe = {"mixup": 0.2, "layer_decay": 0.7, "head_epochs": 1, "first_image_size": 32, "image_size": 48}
    params = make_params(epochs=3, head="hierarchical", **recipe)
    unbroken = fit(data, params, tmp_path / "unbroken")
    assert are_equal(fit_broken_off(data, params, tmp_path / "broken", 11, monkeypatch), unbroken)


def test_copies_of_faces_can_be_left_out():
    index = pd.DataFrame({"split": ["train"] * 5 + ["val", "test"], "duplicate_group": [1, 1, 2, 3, 4, 3, 4]})
    store = PackedDataset(np.zeros((7, 2, 2), np.uint8), index, {})
    assert select_train_rows(store, make_params().training).tolist() == [0, 1, 2, 3, 4]
    assert select_train_rows(store, make_params(drop_duplicates=True).training).tolist() == [0, 2]


def test_a_share_of_each_class_is_drawn_by_the_seed():
    index = pd.DataFrame({"split": "train", "label": np.repeat([0, 1], [900, 100])})
    store = PackedDataset(np.zeros((1000, 2, 2), np.uint8), index, {})
    drawn = [select_train_rows(store, make_params(train_fraction=0.2, seed=s).training) for s in (0, 0, 1)]
    for rows in drawn:
        assert np.bincount(store.labels[rows]).tolist() == [180, 20]
        assert (np.diff(rows) > 0).all()
    assert drawn[0].tolist() == drawn[1].tolist()
    assert drawn[0].tolist() != drawn[2].tolist()


def test_precision_is_float32_for_efficientnets_on_a_cpu():
    assert choose_precision("auto", "tf_efficientnet_b0", CPU) is None
    assert choose_precision("float32", "resnet18", CPU) is None
    assert choose_precision("bfloat16", "resnet18", CPU) is torch.bfloat16
    assert choose_precision("auto", "resnet18", torch.device("cuda")) is torch.bfloat16


@pytest.mark.parametrize(("supported", "expected"), [(True, torch.bfloat16), (False, None)])
def test_precision_of_resnets_is_bfloat16_on_a_cpu_that_multiplies_it(supported, expected, monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: supported)
    assert choose_precision("auto", "resnet18", CPU) is expected
