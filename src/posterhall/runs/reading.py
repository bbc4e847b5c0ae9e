"""Looking at runs without touching them."""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path
from typing import Any

from posterhall.errors import DataError

SCHEMA_VERSION = 1
"""Of manifest.json; a reader knows this one and all before it."""
MANIFEST, CONFIG, METRICS, LOCK = "manifest.json", "config.yaml", "metrics.jsonl", ".lock"
CHECKPOINTS, ARTIFACTS = "checkpoints", "artifacts"


def is_run(path: Path) -> bool:
    """Whether a run is in this directory."""
    return (path / MANIFEST).is_file()


def find(root: Path, *, depth: int = 3) -> list[Path]:
    """Runs in a directory and up to `depth` levels below it, by name; not those inside other runs."""
    if is_run(root):
        return [root]
    try:
        below = sorted(each for each in root.iterdir() if each.is_dir() and not each.is_symlink())
    except OSError:
        return []
    return [run for each in below for run in find(each, depth=depth - 1)] if depth > 0 else []


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest of the run in `path`; the status of one whose process is gone reads "killed".

    Raises:
        DataError: if there is no run, or its manifest cannot be understood.
    """
    file = path / MANIFEST
    try:
        manifest: dict[str, Any] = json.loads(file.read_bytes())
    except FileNotFoundError:
        raise DataError(f"{path} holds no run (no {MANIFEST})") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{file}: cannot be read: {error}") from error
    version = manifest.get("schema_version") if isinstance(manifest, dict) else None
    if not isinstance(version, int) or not 1 <= version <= SCHEMA_VERSION:
        raise DataError(
            f"{file}: schema_version is {version!r}; this posterhall reads 1 to {SCHEMA_VERSION}. "
            "Was it written by a newer one?"
        )
    if manifest["status"] == "running" and not _is_locked(path):
        manifest["status"] = "killed"
    return manifest


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The metric lines of the run in `path`; a last line torn by a kill is left out.

    Raises:
        DataError: for a whole line that is not JSON, naming it.
    """
    file = path / METRICS
    metrics = []
    # A line is written at once with its end, so what has no end is torn.
    for number, line in enumerate(file.read_bytes().split(b"\n")[:-1] if file.exists() else (), 1):
        try:
            metrics.append(json.loads(line))
        except ValueError as error:
            raise DataError(f"{file}:{number}: not a JSON object: {error}") from None
    return metrics


def _is_locked(path: Path) -> bool:
    try:
        descriptor = os.open(path / LOCK, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False
    except OSError:
        return True
    finally:
        os.close(descriptor)
