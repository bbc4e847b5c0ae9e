"""Optimisers: torch's numbers, with moments in memory or in a file, and memory that is short."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from pathlib import Path

import pytest

from posterhall import devices
from posterhall.errors import DataError, MissingExtra, PosterhallError
from posterhall.train import TrainSettings, fit, next_token

torch = pytest.importorskip("torch")
SETTINGS = {"steps": 12, "batch": 4, "log_every": 1, "lr": 1e-2, "warmup": 0, "schedule": "constant"}


def train(small, **more):
    model, data, _ = small()
    fit(model, data, objective=next_token, settings=TrainSettings(**{**SETTINGS, **more}))
    return {name: each.detach() for name, each in model.named_parameters()}


def reference(small, make):
    """The same training written out, with an optimiser of torch."""
    model, data, _ = small()
    decayed = [each for each in model.parameters() if each.dim() >= 2]
    others = [each for each in model.parameters() if each.dim() < 2]
    optimiser = make([{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}])
    for step in range(12):
        batch = {name: torch.as_tensor(each) for name, each in data.take(4 * step, 4).items()}
        next_token(model, batch)[0].backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()
    return {name: each.detach() for name, each in model.named_parameters()}


@pytest.mark.parametrize("paged", [False, True])
def test_adamw_is_that_of_torch_also_with_moments_in_a_file(small, paged):
    found = train(small, paged=paged)
    wanted = reference(
        small, lambda groups: torch.optim.AdamW(groups, lr=1e-2, betas=(0.9, 0.95), foreach=False)
    )
    for name in wanted:
        torch.testing.assert_close(found[name], wanted[name], rtol=2e-5, atol=2e-7)


@pytest.mark.parametrize("paged", [False, True])
def test_rmsprop_is_that_of_torch_whatever_the_size_of_its_chunks(small, paged, monkeypatch):
    monkeypatch.setattr("posterhall.train.paged.CHUNK", 100)
    found = train(small, paged=paged, optimiser="rmsprop", lr=1e-3)
    wanted = reference(small, lambda groups: torch.optim.RMSprop(groups, lr=1e-3, alpha=0.99))
    for name in wanted:
        torch.testing.assert_close(found[name], wanted[name], rtol=2e-5, atol=2e-7)


@pytest.mark.parametrize("optimiser", ["adamw", "rmsprop"])
def test_pages_change_no_bit_and_leave_no_file(small, tmp_path, optimiser):
    model, data, _ = small()
    settings = TrainSettings(**SETTINGS, paged=True, optimiser=optimiser)
    fit(model, data, objective=next_token, settings=settings, out=tmp_path / "run")
    plain = train(small, optimiser=optimiser)
    assert all(torch.equal(each, plain[name]) for name, each in model.named_parameters())
    assert not list((tmp_path / "run" / "checkpoints").iterdir())


def test_moments_come_back_into_their_pages(small, tmp_path):
    from posterhall.train import checkpoint, optimiser

    settings = TrainSettings(**SETTINGS, paged=True)
    model, data, _ = small()
    first = optimiser.build(model, settings, tmp_path)
    batch = {name: torch.as_tensor(each) for name, each in data.take(0, 4).items()}
    next_token(model, batch)[0].backward()
    first.step()
    checkpoint.save(tmp_path / "state.safetensors", model, first, {"step": 1})
    other, _, _ = small()
    second = optimiser.build(other, settings, tmp_path)
    places = {p: second.state[p]["exp_avg"].data_ptr() for p in other.parameters()}
    checkpoint.load(tmp_path / "state.safetensors", other, second)
    for mine, theirs in zip(model.parameters(), other.parameters(), strict=True):
        for key in ("exp_avg", "exp_avg_sq", "step"):
            assert torch.equal(first.state[mine][key], second.state[theirs][key])
        assert second.state[theirs]["exp_avg"].data_ptr() == places[theirs]
        assert second.state[theirs]["exp_avg"].abs().sum() > 0


def test_frozen_parameters_are_in_no_checkpoint(small, tmp_path):
    from posterhall.train import checkpoint

    model, _, _ = small()
    model.requires_grad_(False)
    model.norm.weight.requires_grad_(True)
    checkpoint.save(tmp_path / "state.safetensors", model, None, {})
    assert set(checkpoint.weights(model)) == {"norm.weight"}
    assert (tmp_path / "state.safetensors").stat().st_size < 1000
    with torch.no_grad():
        model.norm.weight.fill_(3.0)
    checkpoint.load(tmp_path / "state.safetensors", model)
    assert model.norm.weight[0] == 1.0


def test_a_budget_that_cannot_do_is_told_before_the_first_step(small):
    from posterhall.train import paged

    gc.collect()
    held = paged.anonymous_bytes()
    if held is None:
        pytest.skip("this system does not tell what a process holds")
    model, data, _ = small()
    with pytest.raises(DataError, match=r"memory_budget is 1,000 bytes.*paged=true"):
        train(small, memory_budget=1000)
    with pytest.raises(DataError, match="Lower batch"):
        train(small, memory_budget=1000, paged=True)
    budget = paged.Budget(TrainSettings(memory_budget=held + (64 << 20)), model)
    budget.check()
    grown = torch.ones(40 << 20)
    with pytest.raises(PosterhallError, match="paged=true"):
        budget.check()
    del grown, data


def test_settings_out_of_range_and_devices_without_pages_are_refused(small):
    for given, said in (
        ({"optimiser": "adam"}, "adamw, rmsprop"),
        ({"memory_budget": 0}, "at least 1 byte"),
        ({"rms_decay": 1.0}, "below 1"),
    ):
        with pytest.raises(DataError, match=said):
            TrainSettings(**given)
    from posterhall.train import optimiser

    model, _, _ = small()
    with pytest.raises(DataError, match="on meta"):
        optimiser.build(model.to("meta"), TrainSettings(paged=True))
    half, _, _ = small()
    with pytest.raises(DataError, match="float32"):
        optimiser.build(half.bfloat16(), TrainSettings(paged=True))
    ours, _, _ = small()
    with pytest.raises(DataError, match="cannot keep the optimiser's pages"):
        optimiser.build(ours, TrainSettings(paged=True), Path(os.devnull) / "x")


def test_short_memory_is_told_with_what_to_do():
    from posterhall.train import paged

    for error in (RuntimeError("DefaultCPUAllocator: can't allocate memory"), MemoryError()):
        with (
            pytest.raises(PosterhallError, match="paged=true"),
            devices.memory_told(paged.advice(TrainSettings())),
        ):
            raise error
    with (
        pytest.raises(PosterhallError, match=r"memory\. Lower batch"),
        devices.memory_told(paged.advice(TrainSettings(paged=True))),
    ):
        raise RuntimeError("CUDA out of memory")
    with pytest.raises(RuntimeError, match="shapes"), devices.memory_told(paged.advice(TrainSettings())):
        raise RuntimeError("shapes do not fit")


SCRIPT = """
import resource, sys
from posterhall.cli.main import run
import torch
from pathlib import Path
torch.set_num_threads(1)
import posterhall.train.lm, posterhall.models.decoder, numba  # what is loaded is not what is measured
limit, *arguments = sys.argv[1:]
small = ["--dim", "16", "--layers", "1", "--heads", "1", "--steps", "1", "-o", "before-" + arguments[-1]]
assert run(["train", "lm", "tiny.txt", *arguments[:-1], *small]) == 0
status = Path("/proc/self/status").read_text()
now = next(int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith("VmData"))
resource.setrlimit(resource.RLIMIT_DATA, (now + int(limit), resource.RLIM_INFINITY))
sys.exit(run(["train", "lm", "tiny.txt", *arguments[:-1], "-o", arguments[-1]]))
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="RLIMIT_DATA counts the heap on Linux alone")
def test_a_training_that_does_not_fit_into_memory_finishes_with_paging(tmp_path):
    (tmp_path / "tiny.txt").write_text("the cat sat on the mat. " * 40)
    params = 12_000_000  # 48 MB each: weights, gradients, and two moments
    arguments = ["--dim", "640", "--layers", "2", "--heads", "4", "--context", "8", "--batch", "1", "--quiet",
                 "--eval-fraction", "0", "--steps", "3", "--threads", "1", "--device", "cpu", "--json",
                 "--set", "log_every=1"]  # fmt: skip

    def attempt(limit, name, *more):
        return subprocess.run(
            [sys.executable, "-c", SCRIPT, str(limit), *arguments, *more, name],
            cwd=tmp_path, capture_output=True, text=True, timeout=200,
            env={**os.environ, "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"},
        )  # fmt: skip

    limit = 4 * params * 3  # weights and gradients fit, the moments beside them do not
    short = attempt(limit, "short")
    assert short.returncode == 1, short.stderr[-800:]
    assert "paged=true" in short.stderr
    assert "Traceback" not in short.stderr
    paged = attempt(limit, "paged", "--set", "paged=true")
    assert paged.returncode == 0, paged.stderr[-800:]
    free = attempt(1 << 40, "free")
    assert free.returncode == 0, free.stderr[-800:]

    from posterhall.runs import read_metrics

    told = [
        [line["loss"] for line in read_metrics(tmp_path / name) if "loss" in line]
        for name in ("paged", "free")
    ]
    assert told[0] == told[1]
    assert len(told[0]) == 3


def test_pages_on_cuda_are_those_of_bitsandbytes(monkeypatch):
    from posterhall.train import paged

    class Parameter:
        class device:
            type = "cuda"

    asked = {}

    class Paged:
        def __init__(self, groups, **given):
            asked.update(groups=groups, **given)

    bitsandbytes = type("bitsandbytes", (), {"optim": type("optim", (), {"PagedAdamW32bit": Paged})})
    groups = [{"params": [Parameter()], "weight_decay": 0.1}]
    monkeypatch.setitem(sys.modules, "bitsandbytes", bitsandbytes)
    paged.on_device(groups, TrainSettings(paged=True, lr=1e-3))
    assert asked == {"groups": groups, "lr": 1e-3, "betas": (0.9, 0.95), "eps": 1e-8}
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(MissingExtra):
        paged.on_device(groups, TrainSettings(paged=True))
    with pytest.raises(DataError, match="rmsprop on cuda"):
        paged.on_device(groups, TrainSettings(paged=True, optimiser="rmsprop"))
