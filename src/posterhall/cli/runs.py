"""`posterhall runs`: what was run here, and how it ended."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from posterhall.cli.output import Json, emit_json, emit_table
from posterhall.cli.runs_sweep import export, sweep

app = typer.Typer(help="List runs, show where a result came from, and sweep.", no_args_is_help=True)


@app.command("list")
def list_runs(
    root: Annotated[Path, typer.Argument(help="Where to look, three levels deep.")] = Path("runs"),
    json: Json = False,
) -> None:
    """List the runs below a directory: kind, status, start, time and memory taken.

    The status "killed" means that the process is gone without having said why; such a run can be
    resumed, like one that failed or was interrupted.
    """
    from posterhall import runs
    from posterhall.errors import DataError

    if not root.is_dir():
        raise DataError(f"no directory {root}; name the one given to -o, or its parent")
    found: list[dict[str, Any]] = []
    for path in runs.find(root):
        try:
            manifest = runs.read_manifest(path)
        except DataError as error:  # one damaged run must not hide the others
            found.append({"path": str(path), "status": "unreadable", "error": str(error)})
            continue
        keys = ("kind", "status", "start", "end", "wall_seconds", "peak_bytes", "resumes")
        found.append({"path": str(path), **{key: manifest.get(key) for key in keys}})
    if json:
        emit_json({"runs": found})
        return
    if not found:
        print(f"no runs in {root}")
        return
    header = ("run", "kind", "status", "started (UTC)", "time", "peak")
    emit_table([_row(run) for run in found], header=header, right=(4, 5))


@app.command()
def show(
    path: Annotated[Path, typer.Argument(help="The run's directory.")],
    json: Json = False,
) -> None:
    """Show one run: settings, inputs, code, machine, last metrics and what it left."""
    from posterhall import runs

    manifest = runs.read_manifest(path)
    metrics = runs.read_metrics(path)
    artifacts = sorted(each for each in (path / "artifacts").rglob("*") if each.is_file())
    if json:
        last = metrics[-1] if metrics else None
        files = [{"path": str(each), "bytes": each.stat().st_size} for each in artifacts]
        emit_json({"path": str(path), **manifest, "last_metrics": last, "artifacts": files})
        return
    emit_table(_lines(manifest, metrics, artifacts))


def _row(run: dict[str, Any]) -> list[str | None]:
    from posterhall.progress import duration, size

    if run["status"] == "unreadable":
        return [run["path"], None, "unreadable"]
    took = duration(run["wall_seconds"]) if run["end"] else None
    peak = size(run["peak_bytes"]) if run["peak_bytes"] else None
    return [run["path"], run["kind"], run["status"], _moment(run["start"]), took, peak]


def _moment(iso: str) -> str:
    """2026-11-23T22:56:36+00:00 as 2026-11-23 22:56."""
    return iso[:16].replace("T", " ")


def _lines(
    manifest: dict[str, Any], metrics: list[dict[str, Any]], artifacts: list[Path]
) -> list[tuple[str, str]]:
    """Two columns: what, and its value; what repeats is named once."""
    from posterhall.progress import duration, size

    resumes = manifest["resumes"]
    machine = manifest["machine"]
    git = manifest.get("git")
    lines: list[tuple[str, str]] = [
        ("kind", manifest["kind"]),
        ("status", manifest["status"] + (f" (resumes: {resumes})" if resumes else "")),
        ("command", shlex.join(manifest["argv"])),
        ("started", f"{_moment(manifest['start'])} UTC"),
    ]
    if manifest.get("error"):
        lines.append(("error", manifest["error"]))
    if manifest["end"]:
        lines.append(
            ("took", f"{duration(manifest['wall_seconds'])}, {size(manifest['peak_bytes'])} at the peak")
        )
    lines += _group("settings", [f"{key} = {value}" for key, value in manifest["config"].items()])
    lines += _group("seeds", [", ".join(map(str, manifest["seeds"]))] if manifest["seeds"] else [])
    lines += _group(
        "inputs",
        [
            f"{each['path']}  {size(each['bytes'])}  sha256 {each['sha256'][:12]}"
            for each in manifest["inputs"]
        ],
    )
    if git:
        lines.append(("code", f"commit {git['commit'][:12]}{', with changes' if git['dirty'] else ''}"))
    lines.append(
        ("packages", ", ".join(f"{name} {version}" for name, version in manifest["packages"].items()))
    )
    lines.append(
        (
            "machine",
            f"{machine['cpu']}, {machine['cores']} cores, {size(machine['memory_bytes'])}, {machine['os']}",
        )
    )
    lines += _group("facts", [f"{key} = {value}" for key, value in manifest.get("facts", {}).items()])
    if metrics:
        lines += _group(
            f"metrics ({len(metrics)})", [f"{key} = {value}" for key, value in metrics[-1].items()]
        )
    lines += _group("artifacts", [f"{each}  {size(each.stat().st_size)}" for each in artifacts])
    return lines


def _group(name: str, values: list[str]) -> list[tuple[str, str]]:
    return [(name if i == 0 else "", value) for i, value in enumerate(values)]


app.command()(sweep)
app.command()(export)
