"""The `posterhall` command: noun, then verb. Here is nothing but wiring and exit codes."""

from __future__ import annotations

import errno
import io
import os
import select
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import Annotated

import typer

from posterhall import __version__
from posterhall.cli.commands import COMMANDS, Commands
from posterhall.errors import Interrupted, PosterhallError

app = typer.Typer(
    name="posterhall",
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"posterhall {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit."),
    ] = False,
) -> None:
    """The landmark systems of NeurIPS 2023, on your data, with a verdict on every claim.

    Exit codes: 0 done (also when a claim is refuted), 1 failed, 2 usage, 3 a missing extra, 4 bad
    input, 130 interrupted.
    """


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit; a mistake of the user's becomes one line on stderr."""
    _treat_termination_as_interrupt()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # words that the terminal's encoding lacks are no failure
            stream.reconfigure(errors="backslashreplace")
    sys.exit(run(list(sys.argv[1:] if arguments is None else arguments)))


def run(arguments: list[str]) -> int:
    """Run a command line and return its exit code; what is a fault of ours is raised."""
    try:
        # Not app(): its own handling would give Ctrl-C and closed pipes other codes.
        command = typer.main.get_command(app)
        with command.make_context("posterhall", arguments, default_map=_NO_HELP) as context:
            command.invoke(context)
        sys.stdout.flush()  # here, where a full disk or a closed pipe can still be told
        return 0
    except typer.Exit as stop:
        return stop.exit_code
    except PosterhallError as error:
        print(error if isinstance(error, Interrupted) else f"error: {error}", file=sys.stderr)
        return error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        print("interrupted", file=sys.stderr)
        return 130
    except OSError as error:
        if isinstance(error, BrokenPipeError) and _nobody_listens():
            return 0  # `posterhall ... | head` is no failure
        if error.errno not in _INPUT_ERRORS + _DISK_ERRORS:
            raise
        print(f"error: {error.strerror}{f': {error.filename}' if error.filename else ''}", file=sys.stderr)
        return 4 if error.errno in _INPUT_ERRORS else 1
    except Exception as error:
        # typer's usage errors have no public base class, and come from click in older versions.
        if not hasattr(error, "show") or not hasattr(error, "exit_code"):
            raise
        error.show()
        return int(error.exit_code)


_NO_HELP = {"help": False, **{name: {"help": False} for name in COMMANDS}}
"""Defaults for the groups' own --help: typer loads pydantic (0.1 s) to make something of their absence."""
_INPUT_ERRORS = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EACCES, errno.EPERM)
_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)


def _nobody_listens() -> bool:
    """Whether stdout or stderr is a closed pipe; it is replaced then, or Python complains at its exit."""
    closed = False
    for stream in (sys.stdout, sys.stderr):
        poll = select.poll()
        poll.register(stream, 0)  # errors are told unasked
        if any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0)):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
            closed = True
    return closed


def _treat_termination_as_interrupt() -> None:
    """Let SIGTERM do what Ctrl-C does: write a checkpoint, close the run, exit with 130."""
    here = os.getpid()

    def stop(number: int, frame: FrameType | None) -> None:
        if os.getpid() == here:
            raise KeyboardInterrupt
        signal.signal(number, signal.SIG_DFL)  # a forked worker just ends
        os.kill(os.getpid(), number)

    signal.signal(signal.SIGTERM, stop)
