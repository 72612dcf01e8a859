from __future__ import annotations

import signal
import subprocess
import sys
import time

import psutil
import pytest

from alc_backend.common import processes

PARENT = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", {child!r}])
print(child.pid, flush=True)
{then}
"""

SLEEP = "import time; time.sleep(60)"
STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True)"
)


def start(code: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, start_new_session=True
    )


def has_ended(pid: int) -> bool:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.02)
    return False


def test_a_process_ends_with_what_it_started():
    parent = start(PARENT.format(child=SLEEP, then=SLEEP))
    child = int(parent.stdout.readline())
    processes.end(parent, "parent")
    assert parent.returncode == -signal.SIGTERM
    assert has_ended(child)


def test_a_process_that_does_not_stop_is_killed(monkeypatch, caplog):
    monkeypatch.setattr(processes, "GRACE_S", 0.2)
    stubborn = start(f"{STUBBORN}; time.sleep(60)")
    stubborn.stdout.readline()
    processes.end(stubborn, "the worker")
    assert stubborn.returncode == -signal.SIGKILL
    assert "the worker does not stop, killing it" in caplog.text


def test_ending_what_has_ended_does_nothing():
    ended = start("pass")
    ended.wait(30)
    processes.end(ended, "the worker")
    assert ended.returncode == 0


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can")
def test_a_process_dies_with_its_parent():
    child = (
        "from alc_backend.common.processes import die_with_parent; import time\n"
        "die_with_parent(); print(1, flush=True); time.sleep(60)"
    )
    parent = start(PARENT.format(child=child, then=SLEEP))
    pid = int(parent.stdout.readline())
    parent.stdout.readline()  # the child is ready
    parent.kill()
    parent.wait()
    assert has_ended(pid)
