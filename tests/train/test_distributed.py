"""Two processes are one: the same weights, losses and checkpoints, replicated or sharded."""

from __future__ import annotations

import importlib.util
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from posterhall.errors import DataError
from posterhall.train.distributed import World, world

torch = pytest.importorskip("torch")
SCRIPT = Path(__file__).with_name("together.py")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def together(out, mode, *, dies=False):
    """Run the script in two processes; returns weights and what was told."""
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "GLOO_SOCKET_IFNAME": "lo"}
    crew = [
        subprocess.Popen(
            [sys.executable, SCRIPT, out, mode],
            env={
                **os.environ,
                "OMP_NUM_THREADS": "1",
                **meeting,
                "RANK": str(rank),
                "WORLD_SIZE": "2",
            },
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    said = [process.communicate(timeout=120)[1] for process in crew]
    if dies:
        assert 7 in [process.returncode for process in crew], said
        return None
    assert [process.returncode for process in crew] == [0, 0], said
    return left(out)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The script in this process."""
    specification = importlib.util.spec_from_file_location("together", SCRIPT)
    script = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(script)
    out = tmp_path_factory.mktemp("alone") / "run"
    script.main(out, "plain")
    return left(out)


def left(out):
    from safetensors.torch import load_file

    return load_file(f"{out}.safetensors"), json.loads(Path(f"{out}.json").read_text())


def check_same(one, other, tolerance):
    for name, tensor in one[0].items():
        assert float((tensor - other[0][name]).abs().max()) < tolerance, name
    assert one[1]["tokens"] == other[1]["tokens"]
    assert one[1]["loss"] == pytest.approx(other[1]["loss"], abs=tolerance)
    for a, b in zip(one[1]["history"], other[1]["history"], strict=True):
        drop = ("elapsed",)
        assert {k: v for k, v in a.items() if k not in drop} == pytest.approx(
            {k: v for k, v in b.items() if k not in drop}, abs=1e-4
        )


@pytest.mark.slow
def test_two_processes_with_sharded_weights_train_as_one(alone, tmp_path):
    check_same(alone, together(tmp_path / "run", "shard"), 1e-5)


@pytest.mark.slow
def test_two_killed_processes_go_on_to_the_same_end(alone, tmp_path):
    """Killed while sharded, gone on as replicas: a checkpoint holds whole tensors."""
    together(tmp_path / "run", "die", dies=True)
    assert (tmp_path / "run" / "checkpoints" / "state.safetensors").exists()
    check_same(alone, together(tmp_path / "run", "plain"), 1e-5)


def test_each_row_belongs_to_one_process():
    for size in (1, 2, 3, 5):
        for count in (1, 2, 7, 12):
            parts = [World(rank, size).share(100, count) for rank in range(size)]
            rows = [row for first, n in parts for row in range(first, first + n)]
            assert rows == list(range(100, 100 + count))


def test_a_lone_process_with_a_world_size_is_told_what_is_missing(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(DataError, match="RANK, MASTER_ADDR, MASTER_PORT is not set"), world():
        pass
