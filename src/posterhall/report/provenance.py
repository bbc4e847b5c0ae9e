"""Where a run's result came from, as pairs of a name and what is said: for the foot of every page."""

from __future__ import annotations

import datetime
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from posterhall.progress import duration, size


def provenance(manifest: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Command, time, machine, packages, code, inputs and settings, as the manifest of a run has them."""
    machine, git = manifest["machine"], manifest.get("git")
    cores = "1 core" if machine["cores"] == 1 else f"{machine['cores']} cores"
    facts = [
        ("command", shlex.join(Path(w).name if i == 0 else w for i, w in enumerate(manifest["argv"]))),
        ("started", date(manifest["start"])),
        ("took", f"{duration(manifest['wall_seconds'])}, {size(manifest['peak_bytes'])} at the peak"),
        ("machine", f"{machine['cpu']}, {cores}, {size(machine['memory_bytes'])}"),
        ("system", f"{machine['os']}, Python {machine['python']}"),
        ("packages", ", ".join(f"{name} {version}" for name, version in manifest["packages"].items())),
    ]
    if git:
        facts.append(("code", f"commit {git['commit'][:12]}{', with changes' if git['dirty'] else ''}"))
    facts += [
        ("input", f"{each['path']}, {size(each['bytes'])}, sha256 {each['sha256'][:12]}…")
        for each in manifest["inputs"]
    ]
    return [*facts, ("settings", f"sha256 {manifest['config_digest'][:12]}…")]


def date(iso: str) -> str:
    """A time of a manifest in words; as it is where it is none."""
    try:
        moment = datetime.datetime.fromisoformat(iso)
    except ValueError:
        return iso
    return f"{moment.day} {moment:%B %Y, %H:%M} UTC"
