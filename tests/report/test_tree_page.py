"""The page of a search: whole in one file, every state on it, model text only ever text."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import pytest

from posterhall import lm, search
from posterhall.errors import DataError
from posterhall.lm.protocol import LM, Sample
from posterhall.report import tree_page
from posterhall.runs import Run
from posterhall.search.tasks import Crosswords, DeclaredTask
from posterhall.search.tasks.crosswords import examples
from posterhall.search.tasks.declared import Declaration

EVIL = "<script>alert(1)</script><img src=x onerror=alert(2)></details> & {{ 7*7 }}"
TASK = DeclaredTask(
    Declaration("toy", depth=2, propose="{problem} {thoughts} {step}", value="{problem} {last}?")
)


class Babbler(LM):
    """Proposes twelve thoughts and the same one twice; those that end in an even number are sure."""

    name = "babbler"

    async def agenerate(self, requests):
        return [[Sample(self._say(each.prompt), "stop", 5, 7)] * each.n for each in requests]

    def _say(self, prompt):
        if prompt.endswith("?"):
            return "sure" if re.search(r"[02468]\?$", prompt) else "impossible"
        return "\n".join([f"thought {EVIL} {i}" for i in range(12)] + ["Thought  " + f"{EVIL} 3"])


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "search"
    search.solve_all(TASK, ["first " + EVIL, "second"], Babbler(), breadth=2, votes=2, out=path)
    return path


class Page(HTMLParser):
    """Tags, texts and how deep they lie."""

    VOID = frozenset({"meta", "br", "img", "path", "link", "use"})

    def __init__(self, html):
        super().__init__()
        self.tags, self.texts, self.open = [], [], []
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.texts.append(data)


def test_every_state_is_on_the_page(run):
    html = tree_page.render(run)
    shown = [int(n) for n in re.findall(r'<span class="id">(\d+)</span></div>', html)]
    solutions = search.jobs.read_solutions(run)
    assert len(shown) == sum(len(each.tree.nodes) - 1 for each in solutions)
    for status in ("kept", "dropped", "duplicate"):
        count = sum(node.status == status for each in solutions for node in each.tree.nodes[1:])
        assert count
        assert len(re.findall(rf'<li class="{status}(?: chosen)?"><div class="state">', html)) == count


def test_the_path_chosen_is_marked_and_no_other(run):
    html = tree_page.render(run)
    solutions = search.jobs.read_solutions(run)
    paths = sum(len(each.tree.path(each.tree.nodes[each.tree.chosen])) for each in solutions)
    assert paths == 4
    assert len(re.findall(r'<li class="\w+ chosen">', html)) == paths


def test_what_a_model_said_is_text_and_nothing_else(run):
    page = Page(tree_page.render(run))
    assert page.open == []
    assert not {"script", "img"} & {tag for tag, _ in page.tags}
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
    assert any(EVIL in text for text in page.texts)
    assert sum(text.count("{{ 7*7 }}") for text in page.texts) > 50


def test_the_page_needs_nothing_from_elsewhere(run):
    html = tree_page.render(run)
    assert not re.findall(r'(?:src|href)="(?!#)', html)
    assert "url(" not in html.replace("url(#", "")


def test_values_votes_usage_and_settings_are_shown(run):
    text = " ".join(" ".join(Page(tree_page.render(run)).texts).split())
    assert "sure × 2" in text
    assert "bfs, breadth 2, propose × 1, value × 2" in text
    assert re.search(r"0 of 2 problems solved", text)
    assert re.search(r"first by value 0/2 0.0% 0.0% to 65.8%", text)
    assert "same as" in text
    assert "config" not in text
    assert json.loads((run / "manifest.json").read_text())["config_digest"][:12] in text


def test_problems_are_folded_so_that_many_fit_on_a_page(run):
    tags = Page(tree_page.render(run)).tags
    problems = [
        attributes for tag, attributes in tags if tag == "details" and attributes.get("class") == "problem"
    ]
    assert [each.get("id") for each in problems] == ["p1", "p2"]
    assert not any("open" in each for each in problems)


def test_a_single_problem_is_open_and_gives_the_title(tmp_path):
    search.solve_all(TASK, ["only"], Babbler(), breadth=1, votes=1, out=tmp_path / "run")
    html = tree_page.write(tmp_path / "run").read_text()
    assert '<details class="problem" id="p1" open>' in html
    assert "<title>Posterhall: Not solved: only</title>" in html


def test_baselines_have_a_page_too(tmp_path):
    model = lm.ScriptedLM([{"reply": "Output:\ncat\nore\npen"}])
    search.solve_all(Crosswords(), examples()[:1], model, method="io", out=tmp_path / "run")
    text = " ".join(Page(tree_page.render(tmp_path / "run")).texts)
    assert "io, no search" in text
    assert "letters 100%" in text


def test_a_run_of_another_kind_is_refused(tmp_path):
    Run.start(tmp_path / "run", kind="embed train", config={}).finish()
    with pytest.raises(DataError, match="embed train"):
        tree_page.write(tmp_path / "run")
    with pytest.raises(DataError):
        tree_page.write(tmp_path / "nothing")
