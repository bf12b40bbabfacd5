"""The stages whose outputs may be shared, with commands that write a line in place of a result."""

import shutil

import yaml
from conftest import REPO, commit, run_dvc, run_git

from fer_lib.provenance import list_outs, list_stages

FACE = "a licensed face"
MODEL = "a model"
DATASETS = [
    name for name, given in yaml.safe_load((REPO / "params.yaml").read_text())["datasets"].items() if given
]
"""All that can be added to `pipeline.datasets`; a name without a section is of no faces."""


def list_cached(stage):
    """Return the outputs of a stage that DVC caches and pushes: those without `cache: false`."""
    outs = [out for kind in ("outs", "metrics", "plots") for out in stage.get(kind, [])]
    named = [(out, {}) if isinstance(out, str) else next(iter(out.items())) for out in outs]
    return [path for path, settings in named if settings.get("cache", True)]


def write_line(path, line):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{line}\n")


def build_study(root):
    """Build a repository in which every data set of `params.yaml` was packed, and its models were made."""
    for name in (".dvc/.gitignore", ".dvc/config", ".dvcignore", ".gitignore", "dvc.yaml", "params.yaml"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(REPO / name, root / name)
    params = yaml.safe_load((root / "params.yaml").read_text())
    sources = {dataset: f"data/raw/{dataset}" for dataset in DATASETS}
    params["pipeline"]["datasets"] = {**sources, **params["pipeline"]["datasets"]}
    (root / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))

    graph = yaml.safe_load((root / "dvc.yaml").read_text())
    graph["stages"] = {
        name: stage
        for name, stage in graph["stages"].items()
        if name == "prepare" or list_cached(stage.get("do", stage))
    }
    for stage in (stage["do"] for stage in graph["stages"].values()):
        del stage["params"]  # DVC takes half a second for those of one stage
        lines = {f"{out}/student": FACE if out.startswith("data/") else MODEL for out in list_outs(stage)}
        stage["cmd"] = [f"mkdir -p {path} && echo '{line}' > {path}/file" for path, line in lines.items()]
    (root / "dvc.yaml").write_text(yaml.safe_dump(graph, sort_keys=False))

    stages = [stage for dataset in DATASETS for stage in list_stages(dataset, root).values()]
    written = {out for stage in stages for out in list_outs(stage)}
    for dep in {dep for stage in stages for dep in stage["deps"]} - written:
        path = root / dep if dep.endswith(".py") else root / dep / "file"
        write_line(path, FACE if dep.startswith("data/") else "code")
    run_git(root, "init", "--quiet")
    run_dvc(root, "repro", "--quiet")
    commit(root)
