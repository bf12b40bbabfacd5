import json

import pytest

from fer_lib.deployment.bench import run_bench
from fer_lib.errors import ModelError
from fer_lib.models.checkpoints import DEFAULT_MODEL, describe_form, find_checkpoint, list_forms, read_config


def test_table_has_every_form_of_the_release_with_its_accuracy():
    table = run_bench(DEFAULT_MODEL, rounds=2)
    config = read_config(find_checkpoint(DEFAULT_MODEL))
    for name, form in list_forms(config).items():
        assert name in table
        assert f"{form['metrics']['test.accuracy']:.1%}" in table
    assert "1 x 32" in table


def test_model_that_was_not_exported_is_told(tmp_path):
    config = {"architecture": "a", "emotions": ["happy"]}
    config |= {"preprocessing": {"image_size": 32, "mean": [0.5] * 3, "std": [0.5] * 3}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="expected an exported network, found none"):
        run_bench(tmp_path)


def test_form_says_what_it_costs():
    form = {"bytes": 3.8e6, "milliseconds": 0.66, "metrics": {"test.accuracy": 0.7236}}
    assert describe_form(form) == "3.8 MB, 0.7 ms a face, 72.4% right"
    assert describe_form({"metrics": {}}) == ""
