"""The command line as a whole: exit codes, signals, closed pipes, and that help answers at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap

import pytest
import typer

from posterhall import __version__
from posterhall.cli import main as cli
from posterhall.cli.commands import COMMANDS
from posterhall.errors import DataError, Interrupted, MissingExtra, PosterhallError, UsageError

HEAVY = {
    "aiohttp", "importlib.metadata", "jinja2", "matplotlib", "numba", "numpy", "packaging", "platformdirs",
    "pyarrow", "pydantic", "rapidfuzz", "ray", "rich", "scipy", "torch", "yaml",
}  # fmt: skip
"""What must not be loaded to show help; `typer` and the standard library make up the rest."""


ALL = typer.main.get_command(cli.app)


def commands(command=ALL, path=()):
    """All commands with their paths, found in the app, so that one added later is checked as well."""
    yield path, command
    for name in getattr(command, "commands", {}) if path else COMMANDS:
        yield from commands(command.get_command(None, name), (*path, name))


GROUPS = [path for path, command in commands() if hasattr(command, "commands")]


def posterhall_process(*arguments, **options):
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **options}
    return subprocess.Popen([sys.executable, "-m", "posterhall", *arguments], **options)


def python(code, **options):
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **options}
    return subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], **options)


@pytest.fixture
def failing(monkeypatch):
    """Let `posterhall fail` do something else for a test."""

    def install(function):
        app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False)
        app.callback()(cli.root)
        app.command("fail")(function)
        monkeypatch.setattr(cli, "app", app)

    return install


# -- help -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", GROUPS, ids=lambda path: " ".join(path) or "posterhall")
def test_help_loads_nothing_heavy(path):
    # Modules are checked instead of seconds, which depend on the machine: typer alone takes 0.1 s.
    code = f"""
    import sys
    from posterhall.cli.main import run
    code = run([*{path!r}, "--help"])
    print(*sorted(sys.modules), file=sys.stderr)
    sys.exit(code)
    """
    process = python(code)
    out, err = process.communicate()
    assert process.returncode == 0
    assert out.startswith("Usage: posterhall")
    loaded = set(err.split()) & HEAVY
    assert not loaded, f"import {', '.join(loaded)} inside the command, not at the top of a module"


def test_every_command_says_what_it_is_for():
    assert [path for path, command in commands() if not command.help] == []


def test_the_list_of_commands_says_what_the_commands_say():
    for name, (_, said) in COMMANDS.items():
        assert ALL.get_command(None, name).help.startswith(said.removesuffix(".")), name


def test_the_version_is_the_packages(posterhall):
    assert posterhall("--version").out == f"posterhall {__version__}\n"


def test_alone_it_shows_help_as_a_usage_error(posterhall):
    result = posterhall(code=2)
    assert "Commands:" in result.out + result.err


# -- exit codes -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (PosterhallError("it broke"), 1, "error: it broke\n"),
        (UsageError("not both"), 2, "error: not both\n"),
        (
            MissingExtra("hf", "loading from the hub"),
            3,
            "error: loading from the hub needs the extra 'hf': pip install 'posterhall[hf]'\n",
        ),
        (DataError("a.txt:3: bad"), 4, "error: a.txt:3: bad\n"),
        (Interrupted("stopped at step 3"), 130, "stopped at step 3\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
        (typer.Abort(), 130, "interrupted\n"),
        (typer.Exit(7), 7, ""),
        (typer.BadParameter("no such thing"), 2, "no such thing"),
        (
            FileNotFoundError(2, "No such file or directory", "a.txt"),
            4,
            "error: No such file or directory: a.txt\n",
        ),
        (PermissionError(13, "Permission denied", "a.txt"), 4, "error: Permission denied: a.txt\n"),
        (OSError(28, "No space left on device"), 1, "error: No space left on device\n"),
    ],
)
def test_every_error_has_its_exit_code_and_one_line(posterhall, failing, error, code, said):
    def fail():
        """Fail."""
        raise error

    failing(fail)
    result = posterhall("fail", code=code)
    assert result.out == ""
    if code == 2 and not isinstance(error, UsageError):
        assert said in result.err  # typer adds how to use it
    else:
        assert result.err == said


@pytest.mark.parametrize(
    "error", [ZeroDivisionError("oops"), OSError(5, "Input/output error"), BrokenPipeError()]
)
def test_a_fault_of_ours_keeps_its_traceback(failing, capfd, error):  # capfd: streams with descriptors
    def fail():
        """Fail."""
        raise error

    failing(fail)
    with pytest.raises(type(error)):
        cli.run(["fail"])


def test_a_traceback_exits_with_1():
    code = """
    from posterhall.cli import main
    @main.app.command()
    def fail():
        raise ZeroDivisionError("oops")
    main.main(["fail"])
    """
    process = python(code)
    out, err = process.communicate()
    assert process.returncode == 1
    assert out == ""
    assert err.startswith("Traceback")
    assert err.endswith("ZeroDivisionError: oops\n")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["rnus"], "No such command 'rnus'. Did you mean: runs?"),
        (["runs", "list", "--jsno"], "No such option: --jsno"),
        (["runs", "show"], "Missing argument"),
    ],
)
def test_usage_errors_exit_with_2_and_leave_stdout_alone(posterhall, arguments, said):
    result = posterhall(*arguments, code=2)
    assert said in result.err
    assert result.out == ""


def test_what_a_terminal_cannot_show_is_written_out():
    code = """
    from posterhall.cli import main
    @main.app.command()
    def show():
        print("na\\u00efve \\udcff")
    main.main(["show"])
    """
    out, err = python(code, env=os.environ | {"PYTHONIOENCODING": "ascii"}).communicate()
    assert (out, err) == ("na\\xefve \\udcff\n", "")


# -- signals and pipes ------------------------------------------------------------------------------

SLEEP_IN_A_RUN = """
import sys, time
from posterhall.cli import main
from posterhall.runs import Run
@main.app.command()
def work():
    with Run.start(sys.argv[1], kind="work", config={}):
        print("ready", flush=True)
        time.sleep(60)
main.main(["work"])
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_and_termination_close_the_run_and_exit_with_130(tmp_path, number):
    from posterhall.runs import read_manifest

    path = tmp_path / "run"
    process = subprocess.Popen(
        [sys.executable, "-c", SLEEP_IN_A_RUN, path],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    assert process.communicate()[1] == "interrupted\n"
    assert process.returncode == 130
    assert read_manifest(path)["status"] == "interrupted"


def test_a_forked_worker_is_terminated_without_a_word():
    code = """
    import os, signal, sys, time
    from posterhall.cli import main
    @main.app.command()
    def work():
        worker = os.fork()
        if worker == 0:
            time.sleep(60)
        time.sleep(0.2)
        os.kill(worker, signal.SIGTERM)
        print(os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1]))
    main.main(["work"])
    """
    process = python(code)
    out, err = process.communicate()
    assert (out, err, process.returncode) == (f"{-signal.SIGTERM}\n", "", 0)


def test_a_closed_pipe_is_no_failure():
    process = posterhall_process("--help")
    process.stdout.close()  # as `head` does when it has seen enough
    assert process.stderr.read() == ""
    assert process.wait() == 0
    process.stderr.close()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
def test_output_that_does_not_fit_is_a_failure():
    with open("/dev/full", "w") as full:
        process = posterhall_process("--version", stdout=full)
        _, err = process.communicate()
    assert err == "error: No space left on device\n"
    assert process.returncode == 1
