from __future__ import annotations

import json
from dataclasses import fields, replace

import pytest

from alc_backend.segmentation.config import training_config
from alc_backend.store.round_config import BATCH_OPTIONS, RoundConfig

CONFIG = RoundConfig(
    size=7,
    per_image=None,
    min_area=3,
    folds=2,
    acquisition="sim",
    epsilon=0.25,
    share_iterations=True,
    flip=True,
    holdout=0.1,
    training=training_config("sample", seed=5, encoder_weights="none"),
    given={"size": 7},
    overlap=2,
)


@pytest.mark.parametrize(
    "config", [CONFIG, replace(CONFIG, per_image=1, given={}, overlap=None)], ids=["full", "bare"]
)
def test_what_is_written_as_json_is_read_back(config):
    text = json.dumps(config.as_json())
    assert RoundConfig.of_json(json.loads(text)) == config


@pytest.mark.parametrize("name", [option.name for option in fields(RoundConfig)])
def test_a_missing_value_is_named(name):
    values = CONFIG.as_json()
    del values[name]
    with pytest.raises(KeyError, match=name):
        RoundConfig.of_json(values)


def test_batch_options_are_options():
    assert set(BATCH_OPTIONS) <= {option.name for option in fields(RoundConfig)}
