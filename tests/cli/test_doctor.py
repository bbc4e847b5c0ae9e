"""`posterhall doctor` finds what is wrong with a machine, made wrong for the purpose."""

from __future__ import annotations

import json
import sys
import types
from importlib import metadata

import pytest

from posterhall.cli import doctor
from posterhall.devices import THREAD_VARIABLES


@pytest.fixture(scope="module")
def report():
    """All checks of this machine as it is, but for torch, which would take seconds to load."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "torch", None)
        return list(doctor._all_checks())


def only(checks, status):
    return [check for check in checks if check.status == status]


def test_this_machine_is_usable_and_advice_goes_with_every_complaint(report):
    assert only(report, "fail") == []
    assert all(bool(check.advice) == (check.status != "ok") for check in report)
    names = [check.name for check in report]
    for expected in ("python", "packages", "kernels", "cores", "memory", "disk", "torch", "terminal"):
        assert expected in names


def test_every_extra_is_reported_with_the_command_that_installs_it(report):
    extras = {check.name.removeprefix("extra "): check for check in report if check.name.startswith("extra ")}
    assert set(extras) == set(metadata.metadata("posterhall").get_all("Provides-Extra"))
    for name, check in extras.items():
        assert check.status == "ok" or check.advice == f"pip install 'posterhall[{name}]'"


def test_text_is_aligned_and_json_says_the_same(posterhall, monkeypatch, report):
    monkeypatch.setattr(doctor, "_all_checks", lambda: iter(report))
    lines = posterhall("doctor").out.splitlines()
    assert len(lines) == len(report)
    assert {line.split()[0] for line in lines} <= {"ok", "warn"}
    column = lines[0].index(report[0].found)
    assert all(line[column - 2 : column] == "  " and line[column] != " " for line in lines)
    shown = json.loads(posterhall("doctor", "--json").out)
    assert shown["usable"] is True
    assert [check["name"] for check in shown["checks"]] == [check.name for check in report]
    assert shown["machine"]["cores"] >= 1


def test_something_required_that_is_missing_fails(posterhall, monkeypatch):
    checks = [doctor.Check("fail", "kernels", "numba cannot compile", "pip install")]
    monkeypatch.setattr(doctor, "_all_checks", lambda: iter(checks))
    assert posterhall("doctor", code=1).out == "fail  kernels  numba cannot compile; pip install\n"
    assert json.loads(posterhall("doctor", "--json", code=1).out)["usable"] is False


def pretend_installed(monkeypatch, versions):
    """Let the packages of `versions` have those versions, or none."""
    real = metadata.version

    def version(name):
        if name not in versions:
            return real(name)
        if versions[name] is None:
            raise metadata.PackageNotFoundError(name)
        return versions[name]

    monkeypatch.setattr(metadata, "version", version)


def test_a_core_package_that_is_missing_or_too_old_fails(monkeypatch):
    pretend_installed(monkeypatch, {"scipy": None, "numpy": "1.26.4"})
    check = doctor._requirements()
    assert check.status == "fail"
    assert "scipy" in check.found
    assert "numpy 1.26.4 (>=2.0 needed)" in check.found


def test_an_extra_that_is_missing_or_too_old_warns(monkeypatch):
    pretend_installed(monkeypatch, {"torch": "2.1.0", "ray": None})
    extras = {check.name: check for check in doctor._extras()}
    assert extras["extra train"].status == extras["extra cluster"].status == "warn"
    assert "torch 2.1.0" in extras["extra train"].found


@pytest.mark.parametrize(
    ("name", "value", "status"),
    [
        ("OMP_NUM_THREADS", "64", "warn"),
        ("MKL_NUM_THREADS", "many", "warn"),
        ("OPENBLAS_NUM_THREADS", "0", "warn"),
        ("OMP_NUM_THREADS", "2,1", "ok"),
        ("OMP_NUM_THREADS", "1", "ok"),
        ("OMP_NUM_THREADS", "", None),
    ],
)
def test_thread_settings_that_would_fight_are_told(monkeypatch, name, value, status):
    monkeypatch.setattr("posterhall.devices.cores", lambda: 4)
    for other in (*THREAD_VARIABLES, "NUMBA_NUM_THREADS"):
        monkeypatch.delenv(other, raising=False)
    monkeypatch.setenv(name, value)
    statuses = [check.status for check in doctor._threads() if check.name == "threads"]
    assert statuses == ([status] if status else [])


def test_kernels_switched_off_are_told(monkeypatch):
    import numba

    monkeypatch.setattr(numba.config, "DISABLE_JIT", 1)
    assert doctor._numba().status == "warn"
    monkeypatch.setattr(numba, "njit", lambda function: 1 / 0)
    assert doctor._numba().status == "fail"


def test_little_memory_and_little_disk_are_told(monkeypatch):
    import shutil

    monkeypatch.setattr("posterhall.devices.memory", lambda: 10**8)
    assert doctor._memory().status == "warn"
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 9, 1))
    assert doctor._disk().status == "warn"


@pytest.mark.parametrize(
    ("version", "cuda", "devices", "found"),
    [
        ("2.13.0+cpu", None, [], "2.13.0+cpu, for the CPU"),
        ("2.13.0", "12.8", [], "2.13.0, built for CUDA 12.8, no device found"),
        ("2.13.0", "12.8", ["A", "B"], "2.13.0, CUDA 12.8: A, B"),
    ],
)
def test_the_build_of_torch_is_told(monkeypatch, version, cuda, devices, found):
    torch = types.ModuleType("torch")
    torch.__version__ = version
    torch.version = types.SimpleNamespace(cuda=cuda)
    torch.cuda = types.SimpleNamespace(
        is_available=lambda: bool(devices),
        device_count=lambda: len(devices),
        get_device_name=devices.__getitem__,
    )
    monkeypatch.setitem(sys.modules, "torch", torch)
    assert doctor._torch() == doctor.Check("ok", "torch", found)


def test_torch_that_is_not_there_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    assert "pip install 'posterhall[train]'" in doctor._torch().advice


def test_places_that_cannot_be_written_are_told(monkeypatch, tmp_path):
    file = tmp_path / "file"
    file.write_text("in the way")
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(file / "cache"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(file / "cache"))
    monkeypatch.setenv("TMPDIR", str(file))
    checks = {check.name: check for check in doctor._places()}
    assert checks["kernel cache"].status == checks["cache"].status == "warn"
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "new" / "cache"))
    checks = {check.name: check for check in doctor._places()}
    assert checks["kernel cache"].status == "ok"
    assert not (tmp_path / "new").exists()


def test_a_terminal_without_unicode_is_told(monkeypatch):
    class Latin:
        encoding = "iso-8859-1"

    monkeypatch.setattr(sys, "stdout", Latin())
    assert "PYTHONUTF8=1" in doctor._terminal().advice
