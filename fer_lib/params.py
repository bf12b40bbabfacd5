"""Parameters of a run. An unknown or out-of-range key fails with its name and file."""

from pathlib import Path
from textwrap import shorten
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from fer_lib.errors import ParamsError
from fer_lib.param_sections import (
    AugmentationParams,
    Changes,
    DataAuditParams,
    EnsembleParams,
    FinetuningParams,
    PrepareParams,
    Recipe,
    Section,
    TrainingParams,
)
from fer_lib.params_file import read_sections
from fer_lib.paths import PARAMS_FILE
from fer_lib.study_sections import (
    AblationsParams,
    CompressionParams,
    EvaluationParams,
    GradcamParams,
    ReleaseParams,
    RobustnessParams,
    ScaleParams,
)

Model = TypeVar("Model", bound=BaseModel)


class Params(Section):
    """Everything one data set's run needs, overrides applied."""

    prepare: PrepareParams
    data_audit: DataAuditParams
    augmentation: AugmentationParams
    training: TrainingParams
    recipes: dict[str, Recipe]
    ensemble: EnsembleParams
    evaluation: EvaluationParams
    ablations: AblationsParams
    compression: CompressionParams
    gradcam: GradcamParams
    robustness: RobustnessParams
    releases: dict[str, ReleaseParams]
    scale: ScaleParams
    finetuning: FinetuningParams


def load_params(dataset: str | None, smoke: bool = False, path: Path = PARAMS_FILE) -> Params:
    """Return the parameters of `dataset`: the sections, then its overrides, then `smoke`'s if asked for.

    None: of faces that are no data set of the file, to which the sections alone apply.

    Raises ParamsError, in one line, for an unknown data set or key and for a value out of range.
    """
    sections = read_sections(Params.model_fields, dataset, smoke, path)
    # null: this data set can have no such recipe.
    sections["recipes"] = {name: recipe for name, recipe in sections["recipes"].items() if recipe is not None}
    params = validate(Params, sections, str(path))
    for name in params.ensemble.members:
        find_recipe(params, name, f"{path}: ensemble.members")
    for name, recipe in params.recipes.items():
        shares = apply_recipe(params, recipe, f"{path}: recipes.{name}").training.targets
        if bool(recipe.teachers) != (shares.teacher > 0):
            raise ParamsError(
                f"{path}: recipes.{name}: expected `teachers` and a share `targets.teacher` above 0, or "
                f"neither; found {', '.join(recipe.teachers) or 'no teachers'} and {shares.teacher:g}"
            )
    for study in params.ablations.list_studies().values():
        plain = apply_recipe(params, study.reference, f"{path}: {study.place_of_reference}")
        for arm, changes in study.arms.items():
            apply_recipe(plain, changes or Changes(), f"{path}: {study.place}.{arm}")
    arms = params.ablations.paper_studies.get("ensemble", {})
    voters = [arm for arm, changes in arms.items() if changes is not None]
    for name in params.ablations.members:
        if name not in voters:
            known = ", ".join(voters) or "none"
            raise ParamsError(f"{path}: ablations.members: no arm {name!r} in `ensemble`; known: {known}")
    return params


def apply_recipe(params: Params, recipe: Changes, where: str = "recipe") -> Params:
    """Return `params` with the changes. Raises ParamsError for a key or value that cannot be."""
    training = params.training.model_dump() | recipe.training
    augmentation = params.augmentation.model_dump() | recipe.augmentation
    sections = {
        "training": validate(TrainingParams, training, f"{where}.training"),
        "augmentation": validate(AugmentationParams, augmentation, f"{where}.augmentation"),
    }
    return params.model_copy(update=sections)


def find_recipe(params: Params, name: str, where: str = f"{PARAMS_FILE}: recipes") -> Recipe:
    """Return a recipe by its name. Raises ParamsError that names `where` and those there are."""
    if name not in params.recipes:
        known = ", ".join(params.recipes) or "none"
        raise ParamsError(f"{where}: no {name!r}; known: {known}")
    return params.recipes[name]


def validate(kind: type[Model], values: dict[str, Any], where: str) -> Model:
    """Return `values` as a `kind`. Raises ParamsError, in one line, that names `where` and the key."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        key, found = ".".join(map(str, first["loc"])), shorten(repr(first["input"]), 60)
        message = f"{first['msg']} (found {found})"
        if first["type"] == "value_error":  # our own, which say what they found
            message = first["msg"].removeprefix("Value error, ")
        elif first["type"] == "extra_forbidden":
            message = f"expected a setting that there is, found this one with {found}; correct its name"
        raise ParamsError(f"{where}: {key}: {message}") from None
