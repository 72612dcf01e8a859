from __future__ import annotations

import os
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


def test_a_process_that_needs_longer_may_have_it(monkeypatch, caplog):
    monkeypatch.setattr(processes, "GRACE_S", 0.0)
    slow = start(
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: (time.sleep(0.5), sys.exit(7)))\n"
        f"print(1, flush=True); {SLEEP}"
    )
    slow.stdout.readline()
    processes.end(slow, "the backend", 30)
    assert slow.returncode == 7
    assert caplog.text == ""


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


@pytest.mark.skipif(sys.version_info < (3, 11), reason="Python 3.10 has no safe path")
@pytest.mark.parametrize("arguments", [["-m", "tabnanny", "--help"], ["-c", "import tabnanny"]])
def test_children_run_no_code_of_the_folder_they_are_in(tmp_path, monkeypatch, arguments):
    (tmp_path / "tabnanny.py").write_text("open('planted', 'w')")
    monkeypatch.setattr(os, "environ", os.environ.copy())
    os.environ.pop("PYTHONSAFEPATH", None)
    processes.distrust_working_folder()
    subprocess.run([sys.executable, *arguments], cwd=tmp_path, env=os.environ, check=False)
    assert not (tmp_path / "planted").exists()


def test_numba_reads_no_folder_of_compiled_code_from_the_folder_it_is_in(tmp_path, monkeypatch):
    (tmp_path / ".numba_config.yaml").write_text("cache_dir: /planted\n")
    monkeypatch.setattr(os, "environ", os.environ.copy())
    os.environ.pop("NUMBA_CACHE_DIR", None)
    processes.distrust_working_folder()
    done = subprocess.run(
        [sys.executable, "-c", "from numba import config; print(repr(config.CACHE_DIR))"],
        cwd=tmp_path, env=os.environ, capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout == "''\n", done.stderr
