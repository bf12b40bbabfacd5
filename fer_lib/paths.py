"""Where things are. Nothing here ever changes the working directory."""

import os
from dataclasses import dataclass
from pathlib import Path

PACKAGE_DIR = Path(__file__).resolve().parent


def find_root() -> Path:
    """Return the project folder: `$FER_ROOT`, else the checkout that holds this package.

    An empty variable is none, and a relative one starts at the checkout: where a process was started must not
    matter. A package that was installed without a checkout takes the current folder in its place.
    """
    is_checkout = (PACKAGE_DIR.parent / "params.yaml").is_file()
    return ((PACKAGE_DIR.parent if is_checkout else Path.cwd()) / os.environ.get("FER_ROOT", "")).resolve()


ROOT = find_root()
PARAMS_FILE = ROOT / "params.yaml"
NOTEBOOKS_DIR = ROOT / "notebooks"
PACKED_DIR = ROOT / "data" / "packed"
MODELS_DIR = ROOT / "models"
PACKAGED_MODELS_DIR = PACKAGE_DIR / "release"
"""Where a wheel, which has no `models/release/`, holds the default model."""
SCRATCH_DIR = ROOT / "scratch"
"""Where a notebook run by hand writes; the pipeline passes `ROOT` instead."""


def get_raw_dir(dataset: str) -> Path:
    """Return the folder with the downloaded files: `$FER_DATA_ROOT/<dataset>` or `data/raw/<dataset>`.

    An empty variable is none, and a relative one starts at `ROOT`.
    """
    return ROOT / (os.environ.get("FER_DATA_ROOT") or "data/raw") / dataset


def get_packed_dir(dataset: str) -> Path:
    """Return the folder that `prepare` writes for `dataset`."""
    return PACKED_DIR / dataset


@dataclass(frozen=True)
class OutputDirs:
    """The folders one run of the notebooks writes to."""

    reports: Path
    models: Path

    @property
    def metrics(self) -> Path:
        """Folder of the headline numbers, `<stage>.json`."""
        return self.reports / "metrics"

    def get_table(self, name: str) -> Path:
        """Return the tidy table of every number of stage `name`."""
        return self.reports / "tables" / f"{name}.csv"

    def get_provenance(self, name: str) -> Path:
        """Return the file that says what the numbers of stage `name` depend on."""
        return self.reports / "provenance" / f"{name}.json"

    @property
    def ledger(self) -> Path:
        """The paper's claims with their verdicts, of the notebook on claims."""
        return self.reports / "claims.json"

    @property
    def figures(self) -> Path:
        """Folder of the figures, `<stage>/<name>.webp`: each stage owns its folder."""
        return self.reports / "figures"

    @property
    def compressed(self) -> Path:
        """Folder of the networks' int8 and sparse variants."""
        return self.models.parent / "compressed" / self.models.name

    @property
    def training_state(self) -> Path:
        """Folder where an interrupted training finds itself again; no output of the pipeline."""
        return self.models.parent / ".state" / self.models.name


def get_output_dirs(dataset: str, out_dir: str | Path | None = None) -> OutputDirs:
    """Return the output folders for `dataset` under `out_dir` (default: `scratch/`)."""
    base = Path(out_dir) if out_dir else SCRATCH_DIR
    return OutputDirs(reports=base / "reports" / dataset, models=base / "models" / dataset)
