"""What `posterhall eval planning --analyse` prints."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from posterhall.cli.output import emit_json, emit_table


def tell(sources: Sequence[Path], terms: Sequence[str] | None, page: Path | None, as_json: bool) -> None:
    """Analyse runs, print what was found, and write their page if wanted."""
    from posterhall.evals.planning import analysis

    found = analysis.analyse(analysis.load(sources), terms=terms)
    found["runs"] = [str(source) for source in sources]
    if page is not None:
        from posterhall.report import planning_page

        found["page"] = str(planning_page.write(sources, page, terms=terms))
    if as_json:
        emit_json(found)
        return
    for by in ("by_model", "by_category"):
        name = by.removeprefix("by_")
        emit_table(
            [
                (
                    str(cell[name]),
                    f"{cell['n']:,}",
                    f"{100 * cell['accuracy']:.1f} %",
                    f"{100 * cell['low']:.1f} to {100 * cell['high']:.1f} %",
                )
                for cell in found[by]
            ],
            header=(name, "n", "right", "95 %"),
            right=(1, 2, 3),
        )
        print()
    _tests(found["terms"])
    if found["bridges"]:
        print("\non graphs with clusters:")
        _tests(found["bridges"])
    if page is not None:
        print(f"\npage: {found['page']}")


def _tests(steps: Sequence[Mapping[str, Any]]) -> None:
    if not steps:
        print("nothing was varied, so there is nothing to be tested")
        return
    emit_table(
        [
            (
                step["term"],
                str(step["df"]),
                f"{step['chi2']:,.2f}",
                _probability(step["log10_p"]),
                "" if step["p_holm"] is None else _probability(math.log10(max(step["p_holm"], 1e-300))),
                "Firth" if step["firth"] else "",
            )
            for step in steps
        ],
        header=("term", "df", "chi2", "p", "p, Holm", ""),
        right=(1, 2, 3, 4),
    )


def _probability(log10_p: float) -> str:
    if log10_p > -4:
        return f"{10**log10_p:.4f}"
    power = math.floor(log10_p)
    return f"{10 ** (log10_p - power):.1f}e{power}"
