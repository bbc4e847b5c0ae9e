"""The `posterhall` command: noun, then verb. Here is nothing but wiring and exit codes."""

from __future__ import annotations

import sys

import typer

from posterhall.errors import PosterhallError

app = typer.Typer(
    name="posterhall",
    help="The landmark systems of NeurIPS 2023, on your data, with a verdict on every claim.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback()
def root() -> None:
    """The landmark systems of NeurIPS 2023, on your data, with a verdict on every claim."""


def main() -> None:
    """Run the command line; errors of ours become one line on stderr and their exit code."""
    try:
        app()
    except PosterhallError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # `posterhall ... | head` is not a failure
        sys.stderr.close()
        sys.exit(0)
