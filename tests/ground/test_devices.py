"""The machine, as a container shows it: made-up /proc and /sys trees, and the real ones."""

from __future__ import annotations

import math
import os
import resource
import subprocess
import sys

import pytest

from posterhall import devices
from posterhall.errors import DataError


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """Write made-up control files and let `devices` read only those."""
    monkeypatch.setattr(devices, "_CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(devices, "_PROC", tmp_path / "proc")

    def write(files):
        for name, text in {"cgroup/cgroup.controllers": "cpu memory\n", **files}.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    return write


@pytest.fixture
def sixteen_cores(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)), raising=False)


@pytest.mark.usefixtures("sixteen_cores")
@pytest.mark.parametrize(
    ("cpu_max", "expected"),
    [
        ("max 100000", 16),
        ("200000 100000", 2),
        ("150000 100000", 2),
        ("5000 100000", 1),
        ("3200000 100000", 16),
    ],
)
def test_a_quota_limits_the_cores_and_a_part_of_a_core_counts_as_one(tree, cpu_max, expected):
    tree({"cgroup/cpu.max": cpu_max})
    assert devices.cores() == expected


@pytest.mark.usefixtures("sixteen_cores")
def test_the_tightest_parent_group_counts(tree):
    tree(
        {
            "proc/self/cgroup": "0::/slice/job\n",
            "cgroup/slice/cpu.max": "300000 100000\n",
            "cgroup/slice/job/cpu.max": "max 100000\n",
            "cgroup/cpu.max": "800000 100000\n",
        }
    )
    assert devices.cores() == 3


@pytest.mark.usefixtures("sixteen_cores")
@pytest.mark.parametrize("line", ["0::/../../host/path\n", "0::/not/visible/here\n", "1:cpu:/v1\n", ""])
def test_a_group_named_from_outside_the_container_means_the_root(tree, line):
    tree({"proc/self/cgroup": line, "cgroup/cpu.max": "400000 100000"})
    assert devices.cores() == 4


@pytest.mark.usefixtures("sixteen_cores")
def test_without_control_groups_affinity_decides(tmp_path, monkeypatch):
    monkeypatch.setattr(devices, "_CGROUPS", tmp_path / "none")
    assert devices.cores() == 16


def test_memory_left_is_that_of_the_group_and_cached_pages_are_free(tree):
    tree(
        {
            "proc/meminfo": "MemTotal: 16000000 kB\nMemFree: 1 kB\nMemAvailable:    8000000 kB\n",
            "cgroup/memory.max": "3000000000\n",
            "cgroup/memory.current": "2500000000\n",
            "cgroup/memory.stat": "anon 1500000000\ninactive_file 900000000\n",
        }
    )
    assert devices.memory() == 3_000_000_000 - 2_500_000_000 + 900_000_000
    assert devices.memory_total() == 3_000_000_000


def test_an_overdrawn_group_leaves_nothing(tree):
    tree(
        {
            "proc/meminfo": "MemAvailable: 8000000 kB\n",
            "cgroup/memory.max": "1000\n",
            "cgroup/memory.current": "2000\n",
        }
    )
    assert devices.memory() == 0


def test_without_a_limit_the_machine_decides(tree):
    tree({"proc/meminfo": "MemTotal: 16 kB\nMemAvailable: 8 kB\n", "cgroup/memory.max": "max\n"})
    assert (devices.memory(), devices.memory_total()) == (8192, 16384)


def test_peak_covers_an_allocation_that_is_gone_and_agrees_with_getrusage():
    block = bytearray(64 << 20)
    block[::4096] = b"x" * len(block[::4096])
    del block
    rusage = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    assert devices.peak_bytes() > 64 << 20
    assert devices.peak_bytes() == pytest.approx(rusage, rel=0.05)


def test_description_is_plain_and_names_neither_host_nor_user():
    facts = devices.describe()
    assert facts["cores"] >= 1
    assert facts["cpu"]
    assert facts["memory_bytes"] > 1 << 20
    assert os.uname().nodename not in (facts["cpu"], facts["os"])


def test_describing_the_machine_does_not_load_torch():
    code = "import sys; from posterhall import devices; devices.describe(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_thread_limit_reaches_children_and_ends_with_its_block(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    with devices.limit_threads(3):
        code = "import os; print(os.environ['OMP_NUM_THREADS'], os.environ['MKL_NUM_THREADS'])"
        child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert child.stdout.split() == ["3", "3"]
    assert os.environ["OMP_NUM_THREADS"] == "7"
    assert "MKL_NUM_THREADS" not in os.environ


def test_a_thread_limit_reaches_loaded_libraries():
    numba = pytest.importorskip("numba")
    before = numba.get_num_threads()
    with devices.limit_threads(1):
        assert numba.get_num_threads() == 1
    assert numba.get_num_threads() == before
    with devices.limit_threads(10_000):  # numba itself refuses more than it has started
        assert numba.get_num_threads() == numba.config.NUMBA_NUM_THREADS


def test_no_threads_at_all_are_refused():
    with pytest.raises(DataError, match="threads is 0"):
        devices.limit_threads(0)


def test_the_real_machine_is_within_reason():
    assert 1 <= devices.cores() <= (os.cpu_count() or 1)
    assert 0 < devices.memory() <= devices.memory_total() < math.inf
