"""What the fuzzers draw: any JSON, and real payloads with parts of them replaced by it."""

from __future__ import annotations

import copy
import json
import os
import time
from contextlib import contextmanager

from hypothesis import settings
from hypothesis import strategies as st

FACTOR = 30 if os.environ.get("FUZZ") == "long" else 1
"""`make fuzz` tries thirty times as many inputs."""

LIMIT_S = 5.0
"""No input may keep the program computing for longer."""

SECRET = {"Authorization": "Bearer s3cret"}
JSON = {"Content-Type": "application/json"}
"""Without it the service parses nothing."""

tried = {"inputs": 0, "slowest_s": 0.0, "peak_mib": 0.0}
"""What this process tried; ``tests.fuzz.report`` tells it in the end."""


def examples(count: int) -> settings:
    """So many inputs, or thirty times as many; always the same ones."""
    return settings(settings.get_profile("tests"), max_examples=count * FACTOR)


@contextmanager
def promptly():
    """Count an input and see that it is not computed on for long (however busy the machine is)."""
    tried["inputs"] += 1
    began = time.process_time()
    yield
    took = time.process_time() - began
    tried["slowest_s"] = max(tried["slowest_s"], took)
    assert took < LIMIT_S


text = st.text(max_size=40) | st.sampled_from(
    ["", "\x00", "\ud800", "../../etc/passwd", "%s%n", "é" * 300, "1e999", "-1", "١٢"]
)
numbers = (
    st.integers(-(2**80), 2**80)
    | st.sampled_from([0, -1, 2**31, 2**63, 2**64, 10**400])
    | st.floats(allow_nan=True, allow_infinity=True)
)
anything = st.recursive(
    st.none() | st.booleans() | numbers | text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4),
    max_leaves=12,
)


def paths(value, path=()):
    """Where something can be replaced in a JSON value."""
    yield path
    if isinstance(value, dict | list):
        inner = value.items() if isinstance(value, dict) else enumerate(value)
        for key, entry in inner:
            yield from paths(entry, (*path, key))


@st.composite
def changed(draw, template):
    """``template`` with one to three parts replaced by anything, or left out."""
    value = copy.deepcopy(template)
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from(list(paths(value))))
        if not path:
            if draw(st.booleans()):
                return draw(anything)
            continue
        parent = value
        for key in path[:-1]:
            parent = parent[key]
        if isinstance(parent, dict) and draw(st.booleans()):
            del parent[path[-1]]
        else:
            parent[path[-1]] = draw(anything)
    return value


def body(value) -> bytes:
    """JSON as a careless program writes it: NaN and lone surrogates included."""
    return json.dumps(value).encode()
