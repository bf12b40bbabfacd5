"""Small projects for the tests that run whole commands. Nothing here needs the network."""

import json
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

REPO = Path(__file__).resolve().parent.parent

RECIPES = ("reports/fer2013/tables/recipes", "reports/fer2013/provenance/recipes")
MEASURED = ("reports/scale/measurements", *RECIPES)
"""What notebook 10 is about, which no copy of the project measures itself."""

# Before torch, numpy and OpenCV are loaded. Workers share the cores, and threads that wait for each other on
# a busy one take the tests of trainings and saliency maps four times as long.
for _name in ("OMP_NUM_THREADS", "OPENCV_FOR_THREADS_NUM"):
    os.environ.setdefault(_name, "1")

LONGEST = (
    *("test_pipeline", "test_notebooks", "test_browser", "test_distributed", "test_pages", "test_ablations"),
    *("test_release", "test_commands", "test_web", "test_external", "test_training", "test_cli"),
)
"""Files that start first, or one worker would still be busy with them when the others are done."""

NEEDS = {"scale": "ray", "phone": "litert_torch"}
"""Folders with an environment of their own, and what only that has: `make scale`, and the extra `phone`."""

collect_ignore = [folder for folder, module in NEEDS.items() if not find_spec(module)]

TINY_RECIPE = {"image_size": 32, "first_image_size": None, "epochs": 1, "warmup_steps": 2, "batch_size": 16}

TINY = {
    # The smallest numbers that leave every emotion in every split and train for more than one step.
    "prepare": {"size": 48, "n_faces": 160, "seed": 2},  # other seeds need several hundred faces
    "data_audit": {"n_resamples": 20},
    "training": {
        "architecture": "test_efficientnet",  # timm's own miniature, 0.4 million parameters
        "weights": "none",
        "image_size": 32,
        "batch_size": 16,
        "epochs": 4,
        "patience": 4,
        "warmup_steps": 2,
    },
    "recipes": {
        "b0": {"training": TINY_RECIPE},
        "lite0": {"training": {**TINY_RECIPE, "architecture": "test_efficientnet_ln"}},
        "resnet18": {"training": {**TINY_RECIPE, "architecture": "test_resnet"}},
        "student": {"training": TINY_RECIPE},
        "tiny": {"training": {**TINY_RECIPE, "architecture": "test_resnet"}},
        "pruned_80": {"training": {**TINY_RECIPE, "architecture": "test_efficientnet"}},
        "pruned_65": None,
        "pruned_50": {"start": "pruned_80", "training": {**TINY_RECIPE, "architecture": "test_efficientnet"}},
        **dict.fromkeys(("augmented", "unaugmented", "reweighted", "lite", "compact")),
    },
    "compression": {
        "networks": ["student", "tiny", "pruned_50"],
        "sparsities": [0.7],
        "n_resamples": 20,
        "rounds": 2,
        "calibration_faces": 8,
    },
    "gradcam": {"n_chosen": 3, "n_faces": 12, "n_randomised": 3, "shifts": [1], "n_resamples": 20},
    "robustness": {
        "networks": ["student.float32", "student.int8", "tiny", "ensemble"],
        "members": ["student.float32", "tiny"],
        "audited": ["student.float32", "tiny"],
        "n_faces": 12,
        "n_saliency": 3,
        "n_counterfactuals": 8,
        "n_members": 16,
        "n_permutations": 20,
        "n_resamples": 20,
        "min_faces": 1,
    },
    "evaluation": {"networks": ["baseline", "b0", "student"], "n_resamples": 20},
    "ablations": {
        "seeds": [1, 0],  # out of order, so that nothing may rely on their order
        "n_resamples": 20,
        "paper_reference": {"training": TINY_RECIPE},
        "paper_studies": {
            "ensemble": {
                "lite0": {"training": {"architecture": "test_efficientnet_ln"}},
                "resnet18": {"training": {"architecture": "test_resnet"}},
                "three_times": {"training": {"epochs": 3}},
            },
        },
        "reference": {"training": {**TINY_RECIPE, "train_fraction": 1.0}},
        "studies": {
            "duplicates": {"reference": {"training": {"epochs": 1}}},  # that of all, which is trained once
        },
    },
}


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: LONGEST.index(item.path.stem) if item.path.stem in LONGEST else len(LONGEST))


def merge(values, changes):
    """Return `values` with `changes` put in, mapping by mapping."""
    if not (isinstance(values, dict) and isinstance(changes, dict)):
        return changes
    both = {key: merge(values[key], changes[key]) for key in values.keys() & changes.keys()}
    return {**values, **changes, **both}


def write_tiny_params(path, **changes):
    """Write the project's parameters with `TINY`, and `changes` after it, over those of demo."""
    params = yaml.safe_load((REPO / "params.yaml").read_text())
    # Two arms of a study do all that the others do; the ensemble needs its members.
    left_out = {
        kind: {
            study: dict.fromkeys(list(arms)[1:-1])
            for study, arms in params["ablations"][kind].items()
            if study != "ensemble"
        }
        for kind in ("paper_studies", "studies")
    }
    tiny = merge(TINY, {"ablations": left_out})
    # Demo leaves out networks and arms, and so do these; both together would leave none.
    params["datasets"]["demo"] |= {section: {} for section in {*TINY, "ensemble"} - {"prepare"}}
    # Networks that are trained only to be compared here take as long as any other.
    params["robustness"]["comparisons"] = {
        "augmentation": ["tiny", "student.float32"],
        "int8": ["student.int8", "student.float32"],
        "ensemble": ["ensemble", "student.float32"],
    }
    params["robustness"]["mitigations"] = {"tiny": "student.float32"}
    params["datasets"]["demo"] = merge(merge(params["datasets"]["demo"], tiny), changes)
    params["datasets"]["scale"] = params["datasets"]["demo"]  # has the same networks
    for section in TINY:
        params["smoke"].pop(section, None)
    path.write_text(yaml.safe_dump(params, sort_keys=False))


def build_command_environment(root):
    """Return the environment in which this checkout's code works on the project in `root`."""
    return {
        **{name: value for name, value in os.environ.items() if name != "FER_DATA_ROOT"},
        "FER_ROOT": str(root),
        "OMP_NUM_THREADS": "1",  # threads that wait for each other starve on a shared machine
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "PYTHONPATH": str(REPO),
    }


def run_fer_lib(root, *arguments, **environment):
    """Run `python -m fer_lib` on the project in `root` and return the finished process."""
    return subprocess.run(
        [sys.executable, "-m", "fer_lib", *map(str, arguments)],
        cwd=root,
        env={**build_command_environment(root), **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def run_command(root, *command, **environment):
    """Run a command in a project to its end without an error; return what it prints."""
    done = subprocess.run(
        command,
        cwd=root,
        env={**build_command_environment(root), **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def run_dvc(root, *arguments, **environment):
    return run_command(root, sys.executable, "-m", "dvc", *arguments, **environment)


def run_git(root, *arguments):
    return run_command(root, "git", "-c", "user.name=test", "-c", "user.email=test@example.com", *arguments)


def commit(root):
    run_git(root, "add", "--all")
    run_git(root, "commit", "--quiet", "--message", "change")


def read_files(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def forge_numbers(dirs, stage, keys):
    """Write 0.99 for numbers of a stage in its table and headline, and the hash of that table."""
    # Here, or tests that need no numbers would wait for pandas.
    import pandas as pd

    from fer_lib.metrics_file import COLUMNS
    from fer_lib.provenance import hash_file

    table, provenance = dirs.get_table(stage), dirs.get_provenance(stage)
    frame = pd.read_csv(table, dtype=str, keep_default_na=False)
    found = [".".join(filter(None, parts)) for parts in frame[COLUMNS[1:5]].itertuples(index=False)]
    assert {*keys} <= {*found}
    frame.loc[[key in keys for key in found], "value"] = "0.99"
    frame.to_csv(table, index=False, lineterminator="\n")
    changes = {provenance: {"table_sha256": hash_file(table)}}
    headline = dirs.metrics / f"{stage}.json"
    changes[headline] = {key: 0.99 for key in keys if key in json.loads(headline.read_text())}
    for path, values in changes.items():
        path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.fixture(scope="session")
def tiny_project(tmp_path_factory):
    """Return a project folder with the real notebooks, tiny parameters and a packed demo set."""
    root = tmp_path_factory.mktemp("project")
    shutil.copytree(REPO / "notebooks", root / "notebooks", ignore=shutil.ignore_patterns(".ipynb*"))
    shutil.copytree(REPO / "models" / "release", root / "models" / "release")
    for name in ("claims.yaml", "demo_faces", "dvc.yaml", "fer_lib"):  # provenance hashes code and graph
        (root / name).symlink_to(REPO / name)
    for name in MEASURED:
        shutil.copytree(REPO / name, root / name)
    write_tiny_params(root / "params.yaml")
    done = run_fer_lib(root, "prepare", "--dataset", "demo")
    assert done.returncode == 0, done.stderr
    return root


@pytest.fixture
def enter_project(monkeypatch):
    """Return a function that makes a module of fer_lib work on a project folder, in this process."""
    import torch  # here, or tests that need no network would wait for it

    from fer_lib import metrics_file
    from fer_lib.data.packed import load_packed
    from fer_lib.params import load_params

    def enter(module, root):
        params_file, packed = root / "params.yaml", root / "data" / "packed"
        monkeypatch.setattr(
            module,
            "load_params",
            lambda dataset, **options: load_params(dataset, path=params_file, **options),
        )
        monkeypatch.setattr(module, "load_packed", lambda dataset: load_packed(dataset, packed / dataset))
        # As where a command runs: the code's commit is unknown there, and each network has one thread.
        monkeypatch.setattr(metrics_file, "get_commit", lambda: "unknown")
        torch.set_num_threads(1)

    before = torch.get_num_threads()
    yield enter
    torch.set_num_threads(before)
