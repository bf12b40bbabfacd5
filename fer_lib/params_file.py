"""Read `params.yaml` and put its layers over one another; `params` gives the values their types."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from fer_lib.errors import ParamsError
from fer_lib.paths import PARAMS_FILE

Values = dict[str, Any]


def read_params_file(path: Path = PARAMS_FILE) -> Values:
    """Return the parsed file. Raises ParamsError when it is missing or is not a mapping."""
    # PyYAML's C loader, where it has one, takes an eighth of the time, and parameters are read often.
    try:
        content = yaml.load(path.read_text(), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except FileNotFoundError:
        raise ParamsError(
            f"{path}: expected the parameters file, found none; run this in a clone of the repository, or "
            "name one in FER_ROOT"
        ) from None
    except yaml.YAMLError as error:
        raise ParamsError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise ParamsError(f"{path}: expected a mapping of sections, found {type(content).__name__}")
    return content


def read_sections(names: Iterable[str], dataset: str | None, smoke: bool, path: Path) -> dict[str, Values]:
    """Return the sections `names` with the overrides of `dataset`, if any, then with `smoke`'s if asked for.

    Raises ParamsError for an unknown section or data set.
    """
    content = read_params_file(path)
    sections = {name: _check_mapping(content.pop(name, None), f"{path}: {name}") for name in names}
    overrides = _check_mapping(content.pop("datasets", None), f"{path}: datasets")
    smoke_overrides = content.pop("smoke", None)
    content.pop("pipeline", None)
    if content:
        raise ParamsError(f"{path}: unknown section {next(iter(content))!r}; known: {', '.join(sections)}")
    if dataset is not None and dataset not in overrides:
        raise ParamsError(f"{path}: no data set {dataset!r} under `datasets`; known: {', '.join(overrides)}")
    if dataset is not None:
        _merge(sections, overrides[dataset], f"{path}: datasets.{dataset}")
    if smoke:
        _merge(sections, smoke_overrides, f"{path}: smoke")
    return sections


def _merge(sections: dict[str, Values], overrides: dict[str, Values] | None, where: str) -> None:
    for name, values in _check_mapping(overrides, where).items():
        if name not in sections:
            raise ParamsError(f"{where}: unknown section {name!r}; known: {', '.join(sections)}")
        sections[name] = _update(sections[name], _check_mapping(values, f"{where}.{name}"))


def _update(values: Values, changes: Values) -> Values:
    """Return `values` with `changes`, mapping by mapping: a recipe keeps what its override does not name."""
    updated = dict(values)
    for key, change in changes.items():
        if isinstance(change, dict) and isinstance(values.get(key), dict):
            change = _update(values[key], change)
        updated[key] = change
    return updated


def _check_mapping(values: Any, where: str) -> Values:
    if values is not None and not isinstance(values, dict):
        raise ParamsError(f"{where}: expected `key: value` lines, found {values!r}")
    return values or {}
