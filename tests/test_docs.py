"""The documents agree with the code and with each other; nothing here starts a process.

What they show to be typed is run by test_readme.py. Here:

- pages written by docs/generate.py are what it would write now;
- every relative link leads somewhere, headings included;
- every `posterhall ...` exists as a command, with its options;
- every path into this repository and every dotted name of this package exists;
- every JSON example has the keys that its command prints: a block marked `json` below a comment
  ``<!-- posterhall ... -->`` is compared with what that command prints on small files, and one below
  ``<!-- fields: module:Class -->`` with the fields of that class. Where an example has null, an empty list or
  an empty object, anything goes.
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import json
import re
import shlex
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

import posterhall as posterhall_package

ROOT = Path(__file__).parent.parent
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])

FENCE = re.compile(r"^ *(```+|~~~+)(\w*).*\n(?P<body>(?:.*\n)*?) *\1 *$", re.MULTILINE)
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
CODE = re.compile(r"(?<!`)(`+)(?!`)(.+?)(?<!`)\1(?!`)", re.DOTALL)
HEADING = re.compile(r"^#+ +(.+?) *$", re.MULTILINE)


def load_generator():
    path = ROOT / "docs/generate.py"
    spec = importlib.util.spec_from_file_location("docs_generate", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look there
    spec.loader.exec_module(module)
    return module


generate = load_generator()
COMMANDS = {command.path: command for command in generate.commands()}
GROUPS = generate.groups()


@pytest.fixture(params=DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def document(request):
    return request.param


def prose(text):
    """A document without its fenced blocks and comments."""
    return re.sub(r"<!--.*?-->", "", FENCE.sub("", text), flags=re.DOTALL)


@pytest.mark.parametrize("page", generate.PAGES)
def test_a_generated_page_is_up_to_date(page):
    written = (ROOT / "docs" / page).read_text(encoding="utf-8")
    assert written == generate.PAGES[page](), "run: python docs/generate.py"


# -- links ------------------------------------------------------------------------------------------


def anchors(path):
    """What GitHub makes of the headings of a document."""
    found = set()
    for heading in HEADING.findall(FENCE.sub("", path.read_text(encoding="utf-8"))):
        plain = re.sub(r"[`*]|\]\([^)]*\)|\[", "", heading).lower()
        found.add(re.sub(r" ", "-", re.sub(r"[^\w\- ]", "", plain)))
    return found


def broken_links(path, text):
    for link in LINK.findall(prose(text)):
        if re.match(r"[a-z]+:", link):
            continue
        place, _, anchor = link.partition("#")
        target = (path.parent / place).resolve() if place else path
        if not target.exists() or (anchor and anchor not in anchors(target)):
            yield link


def test_links_lead_somewhere(document):
    assert list(broken_links(document, document.read_text(encoding="utf-8"))) == []


# -- commands ---------------------------------------------------------------------------------------


def shown_commands(text):
    """Every `posterhall ...` that stands in a block or in code within a line."""
    for block in FENCE.finditer(text):
        body = re.sub(r"\\\n(> )?", " ", block["body"])
        yield from re.findall(r"^(?:\$ )?(posterhall(?: .*)?)$", body, re.MULTILINE)
    for _, code in CODE.findall(prose(text)):
        if re.match(r"posterhall\s", code):
            yield " ".join(code.split())


def unknown(command):
    """What of a command line does not exist; None if all of it does."""
    words = shlex.split(command, comments=True)[1:]
    words = words[: next((i for i, word in enumerate(words) if re.match(r"[|<>&;]|\.\.\.$", word)), None)]
    if not words or words[0].startswith("-") or words[0].isupper() or words[0].startswith("["):
        return None  # posterhall --help, posterhall COMMAND
    if words[0] not in GROUPS:
        return words[0]
    if words[0] not in COMMANDS:
        if len(words) == 1 or words[1].startswith("-") or words[1].isupper():
            return None  # a group by itself
        words[:2] = [" ".join(words[:2])]
    if words[0] not in COMMANDS:
        # As in `posterhall embed train|nearest`.
        group, _, verbs = words[0].partition(" ")
        missing = [verb for verb in verbs.split("|") if f"{group} {verb}" not in COMMANDS]
        return " ".join(missing) or None
    allowed = COMMANDS[words[0]].options
    options = [word.partition("=")[0] for word in words[1:] if re.match(r"--?[a-zA-Z]", word)]
    return next((option for option in options if option not in allowed), None)


def test_commands_and_their_options_exist(document):
    shown = list(shown_commands(document.read_text(encoding="utf-8")))
    assert [(line, wrong) for line in shown if (wrong := unknown(line))] == []


# -- names ------------------------------------------------------------------------------------------

PATH = re.compile(r"(?:src|tests|docs|benchmarks)/[\w./*-]*\w")
DOTTED = re.compile(r"posterhall(?:\.\w+)+")


def exists(dotted):
    parts = dotted.split(".")
    for cut in range(len(parts), 0, -1):
        try:
            value = importlib.import_module(".".join(parts[:cut]))
        except ImportError:
            continue
        for name in parts[cut:]:
            if name not in dir(value) and not hasattr(value, name):
                return False
            value = getattr(value, name, None)
        return True
    return False


def missing_names(text):
    for _, code in CODE.findall(prose(text)):
        if PATH.fullmatch(code) and not list(ROOT.glob(code)):
            yield code
        if DOTTED.fullmatch(code) and not exists(code):
            yield code


def test_paths_and_names_exist(document):
    assert list(missing_names(document.read_text(encoding="utf-8"))) == []


def test_python_examples_can_be_parsed(document):
    for block in FENCE.finditer(document.read_text(encoding="utf-8")):
        if block[2] == "python":
            compile(block["body"], str(document), "exec")


def python_examples():
    return [
        pytest.param(block["body"], id=f"{path.stem}-{number}")
        for path in sorted((ROOT / "docs/how-to").glob("*.md"))
        for number, block in enumerate(FENCE.finditer(path.read_text(encoding="utf-8")))
        if block[2] == "python"
    ]


@pytest.mark.parametrize("code", python_examples())
def test_python_examples_run(code, capsys):
    names = {"__name__": "example"}  # what is guarded by "__main__" starts processes and is left out
    exec(compile(code, "example", "exec"), names)
    if "Example" in names:
        from posterhall.claims import decide

        claim = names["Example"]
        rows = [row for seed in range(5) for row in claim({}).run(claim.budget("smoke"), seed)]
        assert [verdict.verdict for verdict in decide(claim, rows)] == ["supported", "refuted"]


# -- JSON -------------------------------------------------------------------------------------------

EXAMPLE = re.compile(
    r"^<!-- (?:posterhall (?P<command>.+)|fields: (?P<fields>.+)) -->\n+```json\n(?P<json>(?:.*\n)*?)```$",
    re.MULTILINE,
)


def differences(example, printed, place=""):
    """Where two JSON values differ in their keys or kinds; lists by their first items."""
    if example in (None, [], {}) or printed in (None, [], {}):
        return
    if isinstance(example, dict) and isinstance(printed, dict):
        for key in sorted(example.keys() ^ printed.keys()):
            yield f"{place}.{key} is only {'shown' if key in example else 'printed'}"
        for key in example.keys() & printed.keys():
            yield from differences(example[key], printed[key], f"{place}.{key}")
    elif isinstance(example, list) and isinstance(printed, list):
        yield from differences(example[0], printed[0], f"{place}[0]")
    else:
        kinds = ["number" if type(v) in (int, float) else type(v).__name__ for v in (example, printed)]
        if kinds[0] != kinds[1]:
            yield f"{place} is shown as {kinds[0]}, printed as {kinds[1]}"


def json_examples(kind):
    return [
        pytest.param(found[kind], found["json"], id=found[kind])
        for path in DOCUMENTS
        for found in EXAMPLE.finditer(path.read_text(encoding="utf-8"))
        if found[kind]
    ]


@pytest.fixture(scope="module")
def small_files(tmp_path_factory):
    """What the commands of the JSON examples read."""
    from posterhall.embeddings import WordVectors

    folder = tmp_path_factory.mktemp("files")
    rng = np.random.default_rng(0)
    towns = {"france": "paris", "italy": "rome", "spain": "madrid", "egypt": "cairo"}
    lines = [
        f"the king of {land} lives in {town} near new york"
        for land, town in rng.permutation([*towns.items()] * 400).tolist()
    ]
    (folder / "text.txt").write_text("\n".join(lines) + "\n")
    words = [word for pair in towns.items() for word in pair]
    WordVectors(words, rng.normal(size=(len(words), 4)).astype(np.float32)).save(folder / "vectors.bin")
    pairs = [*towns.items()]
    questions = [f"{a} {b} {c} {d}" for a, b in pairs for c, d in pairs if a != c]
    (folder / "questions.txt").write_text(": capitals\n" + "\n".join(questions) + "\n")
    scored = [f"{a}\t{b}\t{i}" for i, (a, b) in enumerate([*pairs, ("paris", "italy"), ("rome", "spain")])]
    (folder / "pairs.tsv").write_text("\n".join(scored) + "\n")

    texts = [" ".join(rng.choice(words, 20)) for _ in range(40)]
    documents = [json.dumps({"text": text}) for text in [*texts, texts[0], "short"]]
    (folder / "pool.jsonl").write_text("\n".join(documents) + "\n")
    (folder / "more.jsonl").write_text("\n".join(documents[:20]) + "\n")
    items = [("number", 1), ("colour", 0)]
    asked = [{"question": f"Which is a {a}?", "choices": ["green", "seven"], "answer": b} for a, b in items]
    (folder / "which.jsonl").write_text("\n".join(map(json.dumps, asked)) + "\n")
    scales = np.geomspace(1e8, 3e11, 10)
    scores = [f"a,{n:.4g},add,exact_match,{np.exp(-3 * (n / 1e8) ** -0.25):.3f},1000" for n in scales]
    (folder / "scores.csv").write_text("\n".join(["family,scale,task,metric,score,n", *scores]) + "\n")
    published = ROOT / "src/posterhall/scaling/data/datablations-runs-182.csv"
    (folder / "runs.csv").write_bytes(published.read_bytes())

    from posterhall.train.lm import train_lm
    from posterhall.train.lm_settings import LmSettings

    tiny = LmSettings(dim=8, layers=1, heads=2, context=128, batch=4, steps=3)
    train_lm(tiny, [folder / "pool.jsonl"], folder / "lm", device="cpu")

    asked = [f"capital of {land}?" for land in towns]
    (folder / "prompts.txt").write_text("\n".join(asked) + "\n")
    chats = [{"prompt": a, "completion": f" {b}"} for a, b in zip(asked, towns.values(), strict=True)]
    (folder / "chats.jsonl").write_text("\n".join(map(json.dumps, chats * 3)) + "\n")
    chosen = [{"prompt": row["prompt"], "chosen": row["completion"], "rejected": " no"} for row in chats]
    (folder / "preferences.jsonl").write_text("\n".join(map(json.dumps, chosen)) + "\n")

    from posterhall.train.sft import train_sft
    from posterhall.train.sft_settings import SftSettings

    adapter = SftSettings(quantize="nf4", lora_rank=2, steps=2, lr=1e-2)
    train_sft(adapter, folder / "lm", [folder / "chats.jsonl"], folder / "sft", device="cpu")
    return folder


@pytest.mark.parametrize(("command", "example"), json_examples("command"))
def test_a_json_example_has_the_keys_that_are_printed(
    command, example, small_files, monkeypatch, tmp_path, posterhall
):
    shutil.copytree(small_files, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    if command.startswith("runs "):
        from posterhall.runs import Run

        with Run.start(
            "text.run", kind="embed train", config={"dim": 4}, inputs=["text.txt"], seeds=[1]
        ) as run:
            run.log(epoch=1, loss=2.0, terms=10)
            run.artifact("vocabulary.txt").write_text("the 5\n")
            run.finish(words=5)
    printed = json.loads(posterhall(*shlex.split(command)).out)
    assert list(differences(json.loads(example), printed)) == []


@pytest.mark.parametrize(("place", "example"), json_examples("fields"))
def test_a_json_example_has_the_fields_of_its_class(place, example):
    module, _, name = place.partition(":")
    fields = [each.name for each in dataclasses.fields(getattr(importlib.import_module(module), name))]
    assert sorted(json.loads(example)) == sorted(fields)


# -- the version --------------------------------------------------------------------------------------


def test_the_version_is_the_same_everywhere():
    import yaml

    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["cff-version"] == "1.2.0"
    assert citation["version"] == posterhall_package.__version__
    newest = re.search(r"^## (\S+?),", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert newest
    assert newest[1] == posterhall_package.__version__


# -- the checks themselves --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "wrong"),
    [
        ("posterhall", None),
        ("posterhall --help", None),
        ("posterhall COMMAND --help", None),
        ("posterhall embed", None),
        ("posterhall embed train text.txt -o v.bin --dim 5 -size 5", None),
        ("posterhall embed train text.txt --set dim=5 | head -n 3", None),
        ("posterhall embed train ... --nonsense", None),
        ("posterhall embed train|nearest", None),
        ("posterhall embed train|guess", "guess"),
        ("posterhall embed train --dimension 5", "--dimension"),
        ("posterhall embed train --dim=5 --top=3", "--top"),
        ("posterhall embed guess", "guess"),
        ("posterhall bake", "bake"),
        ("posterhall doctor --fix", "--fix"),
        ("posterhall embed nearest v.bin a --minus -3", None),
    ],
)
def test_the_check_of_commands_finds_what_does_not_exist(command, wrong):
    assert unknown(command) == wrong


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("`posterhall.embeddings.SkipGram`", []),
        ("`posterhall.embeddings.vectors.WordVectors.nearest`", []),
        ("`posterhall.embeddings.SkipGran`", ["posterhall.embeddings.SkipGran"]),
        ("`posterhall.bakery`", ["posterhall.bakery"]),
        ("`src/posterhall/errors.py` and `tests/*/test_*.py`", []),
        ("`src/posterhall/bakery.py`", ["src/posterhall/bakery.py"]),
        ("```\n`posterhall.bakery`\n```", []),
    ],
)
def test_the_check_of_names_finds_what_does_not_exist(text, found):
    assert list(missing_names(text)) == found


def test_the_check_of_links_finds_broken_ones(tmp_path):
    (tmp_path / "other.md").write_text("# A `heading`, with 2 words\n\n```\n# no heading\n```\n")
    text = (
        "[a](other.md) [b](other.md#a-heading-with-2-words) [c](#here) [d](https://example.org)\n# Here\n"
        "[e](gone.md) [f](other.md#no-heading) [g](#gone)\n```\n[h](gone.md)\n```\n"
    )
    path = tmp_path / "this.md"
    path.write_text(text)
    assert list(broken_links(path, text)) == ["gone.md", "other.md#no-heading", "#gone"]


@pytest.mark.parametrize(
    ("example", "printed", "count"),
    [
        ({"a": 1}, {"a": 2.5}, 0),
        ({"a": 1}, {"b": 1}, 2),
        ({"a": 1}, {"a": "x"}, 1),
        ({"a": True}, {"a": 1}, 1),
        ({"a": None}, {"a": {"b": 1}}, 0),
        ({"a": [{"b": 1}]}, {"a": [{"c": 1}, {"b": 1}]}, 2),
        ({"a": [{"b": 1}]}, {"a": []}, 0),
    ],
)
def test_differences_between_json_values_are_found(example, printed, count):
    assert len(list(differences(example, printed))) == count
