"""`posterhall tour`: one headline claim a paper, ending in a report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from posterhall.cli.claims import Scale, params, show
from posterhall.cli.output import Json, Quiet, Resume, Sets, Threads


def tour(
    out: Annotated[
        Path, typer.Option("--out", "-o", help="The run's directory; an earlier tour in it is replaced.")
    ] = Path("runs/tour"),
    scale: Scale = "smoke",
    resume: Resume = False,
    sets: Sets = None,
    threads: Threads = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Run the headline claim of every paper and write the report; its path is the last line.

    A tour may be taken again and again: it takes the place of the earlier one in the directory, unless
    --resume continues one that was stopped.
    """
    from posterhall import claims

    results = claims.run(
        scale=scale,
        workers=threads,
        out=out,
        resume=resume,
        params=params(sets),
        quiet=quiet,
        headline=True,
        kind="tour",
        replace=not resume,
    )
    show(results, json=json)
