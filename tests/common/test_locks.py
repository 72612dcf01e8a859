from __future__ import annotations

import subprocess
import sys

import pytest

from alc_backend.common.locks import only_one

HOLD = """
import sys, time
from pathlib import Path
from alc_backend.common.locks import only_one
with only_one(Path(sys.argv[1])):
    print(1, flush=True)
    time.sleep(60)
"""


def test_one_holder_at_a_time_and_a_killed_one_holds_nothing(tmp_path):
    path = tmp_path / "new/folder/name.lock"
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE)
    holder.stdout.readline()
    waited = []

    def wait():
        waited.append(holder.poll())
        holder.kill()
        holder.wait()

    with only_one(path, wait):
        assert waited == [None]
    with only_one(path, wait):
        assert len(waited) == 1


def test_who_waits_may_give_up(tmp_path):
    def give_up():
        raise TimeoutError

    with (
        only_one(tmp_path / "lock"),
        pytest.raises(TimeoutError),
        only_one(tmp_path / "lock", give_up),
    ):
        pytest.fail("two have the lock")
