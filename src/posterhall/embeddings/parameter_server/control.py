"""Running a fleet to the end: progress, deaths, restarts, snapshots, interruption."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posterhall.embeddings.parameter_server.fleet import Fleet, Plan, Standing
from posterhall.embeddings.parameter_server.settings import Death, DistributedReport
from posterhall.embeddings.parameter_server.shards import Matrix
from posterhall.errors import DataError, Interrupted, PosterhallError
from posterhall.runs import atomic_file

SNAPSHOT_FORMAT = 1

MUSTER_SECONDS = 30.0
"""How long the first workers wait for the last one before they begin."""


@dataclass(frozen=True)
class Checkpoints:
    """Where and how often to take snapshots.

    Attributes:
        path: of the .npz file.
        identity: digest of all that a resumption must agree with.
        seconds: between snapshots.
    """

    path: Path
    identity: str
    seconds: float = 60.0


@dataclass(frozen=True)
class Outcome:
    """Final parameters, one matrix a table, and the report."""

    values: list[Matrix]
    report: DistributedReport


def conduct(
    fleet: Fleet,
    plan: Plan,
    initial: Sequence[Matrix] | None,
    *,
    checkpoints: Checkpoints | None = None,
    observe: Callable[[Standing], None] | None = None,
    imbalance: Mapping[str, float] | None = None,
) -> Outcome:
    """Run a fleet until every chunk of every epoch is trained.

    Args:
        fleet: new; closed in the end whatever happens.
        plan: what the fleet was made for.
        initial: initial parameters; None leaves those of the snapshot that must then exist.
        checkpoints: take snapshots, and go on from the one found.
        observe: called several times a second.
        imbalance: goes into the report.

    Raises:
        PosterhallError: if all workers died, with their reasons.
        Interrupted: on Ctrl-C, after a snapshot if there are checkpoints.
    """
    deaths: list[Death] = []
    before = 0.0
    try:
        if checkpoints is not None and checkpoints.path.exists():
            before = _restore(fleet, checkpoints)
        elif initial is not None:
            fleet.shards.assign(initial)
        started = time.monotonic()
        launched = _muster(fleet, plan, deaths)
        began = due = time.monotonic()
        try:
            while not (standing := fleet.office.standing()).finished:
                fleet.wait(0.02)
                launched = _bury(fleet, plan, deaths, standing, launched)
                if observe is not None:
                    observe(standing)
                if checkpoints is not None and time.monotonic() - due > checkpoints.seconds:
                    launched = _settle(fleet, plan, deaths, launched)
                    _save(fleet, checkpoints, before + time.monotonic() - began)
                    fleet.office.pause(False)
                    due = time.monotonic()
        except KeyboardInterrupt:
            if checkpoints is None:
                raise Interrupted("stopped; nothing was saved, since no run directory was given") from None
            _settle(fleet, plan, deaths, launched)
            _save(fleet, checkpoints, before + time.monotonic() - began)
            share = fleet.office.standing().words / max(int(plan.chunks.sum()) * plan.epochs, 1)
            raise Interrupted(
                f"stopped at {100 * share:.1f} %; the same command with --resume goes on from there"
            ) from None
        seconds = before + time.monotonic() - began
        if observe is not None:
            observe(standing)
        if checkpoints is not None:
            _save(fleet, checkpoints, seconds)
        return _outcome(fleet, plan, deaths, (began - started, seconds), imbalance or {})
    finally:
        fleet.close()


def _muster(fleet: Fleet, plan: Plan, deaths: list[Death]) -> int:
    """Start the workers and give out work once all are there; returns the last slot used.

    So they begin together, and what starting costs is not counted as training. Whoever takes longer
    than `MUSTER_SECONDS` comes later.
    """
    launched = 0
    fleet.office.pause(True)
    for launched in range(plan.options.workers):
        fleet.launch(launched)
    deadline = time.monotonic() + MUSTER_SECONDS
    while (standing := fleet.office.standing()).present < plan.options.workers:
        if time.monotonic() > deadline:
            break
        fleet.wait(0.01)
        launched = _bury(fleet, plan, deaths, standing, launched)
    fleet.office.pause(False)
    return launched


def _bury(fleet: Fleet, plan: Plan, deaths: list[Death], standing: Standing, launched: int) -> int:
    """Note who died, hand on what they held, start others while restarts are left."""
    for slot, reason in fleet.fallen():
        held = fleet.office.release(slot)
        lost = plan.options.n_push * plan.options.batch_words
        if held is None:
            deaths.append(Death(slot, reason, standing.words, None, None, 0, 0))
        else:
            lost = min(lost, int(plan.chunks[held.chunk]))
            deaths.append(Death(slot, reason, standing.words, held.epoch, held.chunk, held.step, lost))
        if launched + 1 < plan.options.slots:
            launched += 1
            fleet.launch(launched)
    if not fleet.working() and not fleet.office.standing().finished:
        # A worker may have ended between the two questions above.
        if fresh := fleet.fallen():
            reasons = [f"worker {slot}: {reason}" for slot, reason in fresh]
        else:
            reasons = [f"worker {death.worker}: {death.reason}" for death in deaths]
        raise PosterhallError(
            f"all workers died with {standing.words:,} words trained; "
            f"{'; '.join(reasons) or 'no reason known'}"
        )
    return launched


def _settle(fleet: Fleet, plan: Plan, deaths: list[Death], launched: int) -> int:
    """Pause, and wait until no worker holds a lease: then parameters and leases agree."""
    fleet.office.pause(True)
    while not (standing := fleet.office.standing()).quiet:
        fleet.wait(0.005)
        launched = _bury(fleet, plan, deaths, standing, launched)
    return launched


def _save(fleet: Fleet, checkpoints: Checkpoints, seconds: float) -> None:
    arrays = {f"shards/{name}": array for name, array in fleet.shards.state().items()}
    arrays |= {f"office/{name}": array for name, array in fleet.office.state().items()}
    arrays["identity"] = np.array(checkpoints.identity)
    arrays["format"] = np.array(SNAPSHOT_FORMAT)
    arrays["seconds"] = np.array(seconds)
    with atomic_file(checkpoints.path) as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]  # it cannot tell names from options


def _restore(fleet: Fleet, checkpoints: Checkpoints) -> float:
    """Load the snapshot into the fleet; returns the seconds spent before it."""
    path = checkpoints.path
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays: dict[str, NDArray[Any]] = {name: stored[name] for name in stored.files}
        if int(arrays["format"]) != SNAPSHOT_FORMAT:
            raise DataError(
                f"{path}: a snapshot of format {int(arrays['format'])}; this is {SNAPSHOT_FORMAT}"
            )
        if str(arrays["identity"]) != checkpoints.identity:
            raise DataError(
                f"{path}: the snapshot belongs to other settings, words, corpus or shards; "
                "resume with the same ones, or start anew elsewhere"
            )
        fleet.shards.restore(_under(arrays, "shards/"))
        fleet.office.restore(_under(arrays, "office/"))
        return float(arrays["seconds"])
    except (OSError, KeyError, ValueError, EOFError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path}: not a readable snapshot ({error}); start anew elsewhere") from error


def _under(arrays: Mapping[str, NDArray[Any]], prefix: str) -> dict[str, NDArray[Any]]:
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


def _outcome(
    fleet: Fleet,
    plan: Plan,
    deaths: list[Death],
    seconds: tuple[float, float],
    imbalance: Mapping[str, float],
) -> Outcome:
    """Parameters and report; `seconds` are those of starting up and of training."""
    standing, counts = fleet.office.standing(), fleet.shards.counts()
    pulled, pushed = fleet.office.traffic()
    report = DistributedReport(
        backend=plan.options.backend,
        workers=plan.options.workers,
        shards=plan.job.placements[0].shards,
        words=standing.words,
        seconds=seconds[1],
        startup_seconds=seconds[0],
        losses=fleet.office.losses(),
        pulled=pulled,
        pushed=pushed,
        staleness=fleet.shards.staleness(),
        pushes=counts["pushes"],
        repeats=counts["repeats"],
        refused=counts["refused"],
        words_by_worker=fleet.office.words_by_slot(),
        imbalance=dict(imbalance),
        deaths=deaths,
    )
    return Outcome(fleet.shards.values(), report)
