from __future__ import annotations

import pytest

from alc_backend.errors import LabelStudioError
from alc_backend.labelstudio import label_configs
from alc_backend.labelstudio.dataset_config import dataset_config, read_dataset_config

CONFIG = dataset_config(["cat", "dog"])


def test_a_label_config_is_read():
    assert [tag.tag for tag in label_configs.parse(CONFIG)] == ["Image", "BrushLabels"]
    assert label_configs.parse(f'<?xml version="1.0"?><!-- ours -->{CONFIG}').tag == "View"


@pytest.mark.parametrize(
    "doctype",
    [
        "<!DOCTYPE View>",
        '<!DOCTYPE View SYSTEM "http://127.0.0.1/a.dtd">',
        '<!DOCTYPE View [<!ENTITY a "cat">]>',
        '<!DOCTYPE View [<!ENTITY a SYSTEM "file:///etc/passwd">]>',
        '<!DOCTYPE View [<!ENTITY % a SYSTEM "http://127.0.0.1/"> %a;]>',
    ],
)
def test_a_document_type_is_refused(doctype):
    with pytest.raises(LabelStudioError, match="DOCTYPE"):
        read_dataset_config(doctype + CONFIG)


@pytest.mark.parametrize("config", ["", "<View>", "<View>&a;</View>", "\ud800", "\x00"])
def test_what_is_not_xml_is_refused(config):
    with pytest.raises(LabelStudioError, match="not XML"):
        read_dataset_config(config)


def test_a_very_long_one_is_refused():
    with pytest.raises(ValueError, match="longer than"):
        label_configs.parse(f"<View>{'<a/>' * label_configs.MAX_LENGTH}</View>")
