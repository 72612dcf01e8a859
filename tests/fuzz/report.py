"""The fuzzers' closing line; a plugin, so that it adds up what several processes tried (-n)."""

from __future__ import annotations

import resource

import pytest

from tests.fuzz.values import tried

_OUTPUT = "fuzzers"


def pytest_sessionfinish(session):
    """Note the memory, and in a process of ``-n`` hand over what it tried."""
    if tried["inputs"]:
        own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        tried["peak_mib"] = max(tried["peak_mib"], own)
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput[_OUTPUT] = dict(tried)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node, error):
    """Add what a process of ``-n`` tried; one that crashed tells nothing."""
    told = getattr(node, "workeroutput", {}).get(_OUTPUT, {})
    tried["inputs"] += told.get("inputs", 0)
    for name in ("slowest_s", "peak_mib"):
        tried[name] = max(tried[name], told.get(name, 0.0))


def pytest_terminal_summary(terminalreporter):
    """Say how much was tried, when anything was."""
    if tried["inputs"]:
        terminalreporter.write_line(
            f"fuzzers: {tried['inputs']} inputs, the slowest took {tried['slowest_s']:.2f} s; "
            f"{tried['peak_mib']:.0f} MiB at the peak"
        )
