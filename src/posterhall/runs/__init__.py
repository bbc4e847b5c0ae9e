"""A run is a directory that tells what was done, with what, on what, and what came out.

::

    manifest.json   what, when, where, from which inputs, how it ended (see `Run.start`)
    config.yaml     the settings; `-c RUN/config.yaml` repeats them
    metrics.jsonl   one JSON object a line, each with the seconds elapsed
    checkpoints/    what is needed to go on after a kill
    artifacts/      what the run was for

Training, evaluation, claims and the rest all leave one. Files are replaced whole or not at all, the
directory is locked while a process works in it, and a run whose process was killed can be resumed.
"""

from __future__ import annotations

from posterhall.runs.files import atomic_file, fingerprint, write_atomic
from posterhall.runs.reading import find, is_run, read_manifest, read_metrics
from posterhall.runs.run import Run

__all__ = [
    "Run",
    "atomic_file",
    "find",
    "fingerprint",
    "is_run",
    "read_manifest",
    "read_metrics",
    "write_atomic",
]
