"""The documents keep their word: every command that they show is run, and must print what they show.

The convention, for whoever writes a document:

- In a fenced block marked `console` or `bash`, a line that starts with ``$ `` is a command; the lines
  below it, to the next command or the end of the block, are what it prints (on stdout or stderr). They
  must come in this order; what else is printed does not matter. ``...`` stands for any text within a line,
  and, alone on a line, for any lines. Runs of spaces count as one. With nothing below it, a command may
  print anything.
- A command goes on in the next line after a backslash, or to the end of a here-document (``<<EOF``); such
  lines may start with ``> `` as they do in a shell.
- A block in which a command starts with ``$ posterhall`` or ``$ python`` is run as a whole; others (how to
  install) are not. In a block that calls posterhall without ``$ `` nothing would be run, so that fails.
- A fenced block marked `python` is run as a script.
- All blocks of a document run in their order in one temporary directory, which is empty at first: a
  document makes its own inputs. ``cd`` and ``export`` last for one command.
- Every command must succeed, unless ``$ echo $?`` follows it and shows another exit code.
- ``<!-- not run: reason -->`` on the line above a block leaves it out. ``<!-- run`` ... ``-->`` holds
  commands that the reader need not see, such as making a small input in place of the reader's own.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DOCUMENTS = [ROOT / "README.md", *sorted(ROOT.glob("docs/tutorial*.md"))]
SECONDS = 120
"""Longest time a single command of a document may take."""

FENCE = re.compile(r"^(?P<indent>\s*)(?P<fence>```+|~~~+)\s*(?P<language>\w*)")
RUNS = re.compile(r"^\$ (posterhall|python3?)\b", re.MULTILINE)


class BrokenWord(Exception):
    """A document shows what does not hold; names the line."""


@dataclass
class Step:
    """One command, or one script, with what it is said to print."""

    line: int
    language: str
    text: str
    shown: list[str] = field(default_factory=list)


def steps(markdown: str) -> list[Step]:
    """The commands of a document that are to be run, in their order."""
    found: list[Step] = []
    lines = markdown.splitlines()
    at = 0
    while at < len(lines):
        start, above = at, lines[at - 1].strip() if at else ""
        at += 1
        if lines[start].strip() == "<!-- run":
            end = next(i for i in range(at, len(lines)) if lines[i].strip() == "-->")
            found += commands(lines[at:end], at + 1)
        elif opened := FENCE.match(lines[start]):
            closing = re.compile(rf"^\s*{opened['fence']}\s*$")
            end = next(i for i in range(at, len(lines)) if closing.match(lines[i]))
            if not re.fullmatch(r"<!-- not run: .+ -->", above):
                block = textwrap.dedent("\n".join(lines[at:end])).splitlines()
                found += of_block(opened["language"], block, at + 1)
        else:
            continue
        at = end + 1
    return found


def of_block(language: str, block: list[str], line: int) -> list[Step]:
    text = "\n".join(block)
    if language == "python":
        return [Step(line, "python", text)]
    if language not in ("console", "bash", "sh", "shell"):
        return []
    if RUNS.search(text):
        return commands(block, line)
    if re.search(r"^posterhall\b", text, re.MULTILINE):
        raise BrokenWord(f"line {line}: write '$ posterhall ...' to have it run")
    return []


def commands(block: list[str], line: int) -> list[Step]:
    """The commands of a block, each with the lines shown below it."""
    found: list[Step] = []
    rest = list(enumerate(block, line))
    while rest:
        number, text = rest.pop(0)
        if not text.startswith("$ "):
            if found:
                found[-1].shown.append(text)
            continue
        command = text[2:]
        while command.endswith("\\") and rest:
            command += "\n" + rest.pop(0)[1].removeprefix("> ")
        if here := re.search(r"<<-?\s*['\"]?(\w+)", command):
            while rest:
                body = rest.pop(0)[1].removeprefix("> ")
                command += "\n" + body
                if body == here[1]:
                    break
        found.append(Step(number, "bash", command))
    return found


def missing(shown: list[str], printed: str) -> str | None:
    """The first line shown that was not printed after those before it; None if all were."""
    lines = [" ".join(line.split()) for line in printed.splitlines()]
    at = 0
    for line in shown:
        wanted = " ".join(line.split())
        if wanted in ("", "...", "…"):
            continue
        pattern = re.compile(".*".join(map(re.escape, re.split(r"\.\.\.|…", wanted))))
        match = next((i for i in range(at, len(lines)) if pattern.fullmatch(lines[i])), None)
        if match is None:
            return line
        at = match + 1
    return None


def run(markdown: str, directory: Path) -> None:
    """Run a document's commands in a directory; BrokenWord names the line that does not hold."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("POSTERHALL_", "COV_", "PYTEST"))
    }
    environment |= {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONUTF8": "1",
        "TERM": "dumb",
        "NO_COLOR": "1",
        "COLUMNS": "100",
        "OMP_NUM_THREADS": "1",
    }
    code = 0
    todo = steps(markdown)
    for i, step in enumerate(todo):
        # `$ echo $?` asks about the command before it, which ran in a shell of its own.
        script = f"(exit {code})\n{step.text}"
        command = ["bash", "-c", script] if step.language == "bash" else [sys.executable, "-c", step.text]
        result = subprocess.run(
            command,
            cwd=directory,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        code = result.returncode
        what = f"line {step.line}: {step.text}"
        asked = i + 1 < len(todo) and todo[i + 1].text == "echo $?" and todo[i + 1].shown
        if code != 0 and not asked:
            raise BrokenWord(f"{what}\nexit code {code}\n{result.stdout}")
        absent = missing(step.shown, result.stdout)
        if absent is not None:
            raise BrokenWord(f"{what}\nshown but not printed: {absent}\nprinted:\n{result.stdout}")


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_the_document_keeps_its_word(path, tmp_path):
    run(path.read_text(encoding="utf-8"), tmp_path)


# -- the harness itself -----------------------------------------------------------------------------

SAMPLE = """
# A document

```console
$ pip install something-that-does-not-exist
```

<!-- run
$ printf 'a\\nb\\n' > hidden.txt
-->

```console
$ cat > made.txt <<EOF
> one   two
> $ three
> EOF
$ posterhall --version
posterhall ...
$ cat made.txt \\
>     hidden.txt
one two
...
b
$ posterhall runs show nowhere
error: nowhere holds no run ...
$ echo $?
4
```

<!-- not run: it would never end -->
```bash
$ posterhall ui
```

1. In a list:

   ```bash
   $ python -c 'print(open("made.txt").read().split()[-1])'
   three
   ```

```python
import pathlib
pathlib.Path("by_python.txt").write_text("x")
```

```text
$ posterhall is only talked about
```

~~~sh
$ python -c 'import os; print(sorted(os.listdir()))'
['by_python.txt', 'hidden.txt', 'made.txt']
~~~
"""


def test_a_document_that_keeps_its_word_passes(tmp_path):
    run(SAMPLE, tmp_path)
    assert [step.line for step in steps(SAMPLE)] == [9, 13, 17, 19, 24, 26, 38, 43, 52]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            "posterhall ...",
            "posterhall 9.9",
            "line 17: posterhall --version\nshown but not printed: posterhall 9.9",
        ),
        ("\nb\n$", "\nc\n$", "shown but not printed: c"),
        ("one two\n...\nb", "b\n...\none two", "shown but not printed: one two"),
        ("\n4\n", "\n3\n", "line 26: echo $?\nshown but not printed: 3"),
        ("$ echo $?\n4\n", "", "line 24: posterhall runs show nowhere\nexit code 4"),
        ("$ posterhall --version", "$ posterhall --versoin", "line 17: posterhall --versoin\nexit code 2"),
        ("pathlib.Path", "pathlib.Paht", "exit code 1"),
        ("printf 'a", "false 'a", "line 9: false"),
        ("<!-- not run: it would never end -->", "", "line 32: posterhall ui\nexit code 2"),
        ("$ posterhall ui", "posterhall ui", None),
        ("<!-- not run: it would never end -->\n```bash\n$ ", "```bash\n", "to have it run"),
    ],
)
def test_a_document_that_breaks_its_word_fails_by_line(tmp_path, old, new, said):
    assert SAMPLE.count(old) == 1
    if said is None:  # in a block that is left out it does not matter
        run(SAMPLE.replace(old, new), tmp_path)
        return
    with pytest.raises(BrokenWord) as caught:
        run(SAMPLE.replace(old, new), tmp_path)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("shown", "printed", "holds"),
    [
        ([], "anything", True),
        (["a  b"], "a   b\n", True),
        (["a", "b"], "a\nx\nb", True),
        (["b", "a"], "a\nb", False),
        (["a", "a"], "a", False),
        (["a.b"], "axb", False),
        (["took ... s"], "took 1.2 s", True),
        (["took ... s"], "took 1.2 min", False),
        (["took … s"], "took 1.2 s", True),
        (["...", "b"], "a\nb", True),
        ([""], "", True),
        (["a"], "ab", False),
    ],
)
def test_what_counts_as_printed(shown, printed, holds):
    assert (missing(shown, printed) is None) == holds
