"""The nouns of the command line, each loaded when it is used, so that help answers at once."""

from __future__ import annotations

import importlib
from typing import Any

import typer
from typer.core import TyperGroup

from posterhall.errors import did_you_mean

COMMANDS = {
    "embed": ("posterhall.cli.embed:app", "Word vectors: train, query, evaluate, convert."),
    "data": (
        "posterhall.cli.data:app",
        "Text before training: phrases, duplicates, filters, mixtures, statistics.",
    ),
    "train": ("posterhall.cli.train:app", "Train language models."),
    "model": (
        "posterhall.cli.model:app",
        "Generate text, see what a model is and costs, quantise it, merge adapters, plan memory.",
    ),
    "lm": ("posterhall.cli.lm:app", "Ask language models: one question, or the same of many documents."),
    "scale": ("posterhall.cli.scale:app", "Scaling laws: fit, allocate, and look for emergence."),
    "eval": ("posterhall.cli.eval:app", "Evaluate a model: on tasks, at planning, in a tournament."),
    "search": ("posterhall.cli.search:app", "Solve problems by searching over a model's thoughts."),
    "claims": ("posterhall.cli.claims:app", "Put headline claims of papers to the test."),
    "serve": ("posterhall.cli.serve:serve", "Serve models to any OpenAI-compatible client."),
    "runs": ("posterhall.cli.runs:app", "List runs, show where a result came from, and sweep."),
    "tour": ("posterhall.cli.tour:tour", "Run the headline claim of every paper and write the report."),
    "doctor": ("posterhall.cli.doctor:doctor", "Check this machine and say how to mend it."),
}
"""Name: where it lives (a `typer.Typer`, or a function that is the command) and what `--help` says of it."""


class Commands(TyperGroup):
    """The group of all `COMMANDS`. A dozen of them would take longer to load than to answer."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Names in the order of the table."""
        return [*COMMANDS, *self.commands.keys() - COMMANDS.keys()]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Load a command; None if there is none of that name."""
        if cmd_name in COMMANDS and cmd_name not in self.commands:
            self.commands[cmd_name] = _load(cmd_name)
        return self.commands.get(cmd_name)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the command of a command line, or name the nearest one."""
        known = self.list_commands(ctx)
        if args[0] not in known and not args[0].startswith("-"):
            ctx.fail(f"No such command '{args[0]}'.{did_you_mean(args[0], known)}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the list in `--help` without loading what it lists."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, said) for name, (_, said) in COMMANDS.items()])


def _load(name: str) -> Any:
    place, _ = COMMANDS[name]
    module, _, attribute = place.partition(":")
    found = getattr(importlib.import_module(module), attribute)
    parent = typer.Typer(rich_markup_mode=None)
    if isinstance(found, typer.Typer):
        parent.add_typer(found, name=name)
    else:
        parent.command(name)(found)
    return typer.main.get_group(parent).commands[name]
