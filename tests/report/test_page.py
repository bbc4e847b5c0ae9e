"""The report: whole in one file, honest in its numbers, readable in its colours."""

from __future__ import annotations

import json
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from posterhall import claims, report
from posterhall.errors import DataError

TOYS = str(Path(__file__).parent.parent / "claims")
STYLE = Path(report.__file__).with_name("templates") / "style.css"


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The toys that work, and one that fails, at two scales."""
    sys.path.insert(0, TOYS)
    folder = tmp_path_factory.mktemp("report")
    options = {"modules": ["toy_claims"], "quiet": True, "workers": 1}
    smoke = claims.run(
        ["coins", "dice", "raises"],
        out=folder / "smoke",
        params={"note": "<script>alert(1)</script>"},
        **options,
    )
    laptop = claims.run(["loaded-coin"], out=folder / "laptop", scale="laptop", seeds=6, **options)
    sys.path.remove(TOYS)
    return smoke, laptop


@pytest.fixture(scope="module")
def page(runs):
    return report.render([results.run for results in runs])


class Reader(HTMLParser):
    """Text by element, ids, links, and whether every element is closed."""

    VOID = frozenset(["meta", "br", "hr", "img", "link", "input"])

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.hrefs: list[str] = []
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.cells: list[list[str]] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.ids += [v for k, v in attrs if k == "id"]
        self.hrefs += [v for k, v in attrs if k in ("href", "src", "xlink:href")]
        if tag == "tr":
            self.cells.append([])
        if tag in ("td", "th") and self.cells:
            self.cells[-1].append("")
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        last = self.open.pop()
        assert last == tag, f"</{tag}> closes <{last}>"

    def handle_data(self, data):
        if "td" in self.open and self.cells and self.cells[-1]:
            self.cells[-1][-1] = " ".join((self.cells[-1][-1] + " " + data).split())


def test_it_is_whole_in_itself_and_runs_nothing(page):
    reader = Reader(page)
    assert reader.open == []
    assert not {"script", "link", "img", "iframe", "object"} & reader.tags
    assert not {a for a in reader.attributes if a.startswith("on")}
    assert all(href.startswith("#") for href in reader.hrefs)
    assert "url(" not in STYLE.read_text().replace("url(#", "")
    assert "@import" not in page
    assert not re.search(r"https?://(?!www\.w3\.org)", page)


def test_every_id_is_one_and_every_reference_has_its_id(page):
    reader = Reader(page)
    assert len(reader.ids) == len(set(reader.ids))
    assert {h[1:] for h in reader.hrefs} <= set(reader.ids)
    assert set(re.findall(r"url\(#([^)]+)\)", page)) <= set(reader.ids)


def test_what_a_user_gave_is_text_and_not_markup(page):
    assert "<script>" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page


def test_the_table_keeps_the_papers_number_apart_from_ours(page):
    rows = [cells for cells in Reader(page).cells if len(cells) == 5]
    head, coin = rows[0], next(cells for cells in rows if "loaded coin shows" in cells[1])
    assert len(head) == 5
    assert coin[0] == "supported"
    assert "coins, §1" in coin[1]
    assert re.match(r"\+0\.\d+ \[\+0\.\d+, \+0\.\d+\] smoke scale, 5 seeds", coin[2])
    assert coin[3] == "+0.30"
    assert coin[4].startswith("holds")
    fooled = next(cells for cells in rows if "always six" in cells[1])
    assert fooled[0] == "inconclusive"
    assert fooled[4] == "fails came out supported"


def test_each_verdict_has_a_word_and_a_symbol(page):
    for word in ("supported", "refuted", "inconclusive", "failed"):
        assert f'class="verdict {word}"><svg' in page
        assert f'id="icon-{word}"' in page


def test_two_runs_stand_side_by_side_with_their_scales(page, runs):
    assert "7 claims" in page
    assert "laptop scale, 6 seeds" in page
    for results in runs:
        assert str(results.run) in page
    family = re.search(r"Among the (\d+) claims", page)
    assert int(family[1]) == 6  # Holm over both runs; the claim that failed was not tested


def test_a_section_says_all_that_was_fixed_before(page):
    for text in (
        "Would be refuted by",
        "heads as often as the fair coin, or less",
        "a second fair coin must not show heads more often",
        "a generator of random numbers instead of a coin",
        "heads of loaded is higher than of fair by more than 0.05",
        "tosses 400",
        "posterhall claims run loaded-coin --scale smoke",
        "More bias, more heads.",
        "line 7 holds no number",
        "infinite (1 diverged)",
    ):
        assert text in page


def test_every_row_is_there_with_its_divergence(page):
    rows = [cells for cells in Reader(page).cells if cells and cells[0] == "infinite"]
    assert [cells[2] for cells in rows] == ["6", "6", "diverged", "6", "6"]


def test_the_same_runs_give_the_same_page(page, runs):
    assert report.render([results.run for results in runs]) == page


def test_it_is_made_without_the_claims_code(runs, tmp_path, monkeypatch):
    monkeypatch.setattr("posterhall.claims.base._DECLARED", {})
    assert report.write([runs[0].run], tmp_path / "page.html").read_text().endswith("</html>\n")


def test_no_run_and_no_finished_run_are_refused(tmp_path):
    with pytest.raises(DataError, match="at least one"):
        report.render([])
    with pytest.raises(DataError, match="no run of claims"):
        report.render([tmp_path])


def test_a_verdict_that_stands_only_alone_is_marked(runs, tmp_path):
    results = runs[1]
    file = results.run / "artifacts" / "claims.json"
    saved = file.read_text()
    data = json.loads(saved)
    coin = data["claims"][0]
    weak = [{**coin, "p_supported": 0.04}, *({**coin, "verdict": "inconclusive", "p_supported": 0.9},) * 3]
    file.write_text(json.dumps({**data, "claims": weak}))
    try:
        text = report.render([results.run])
    finally:
        file.write_text(saved)
    assert "not after Holm" in text
    assert "does not stand" in text


def luminance(colour: str) -> float:
    """Relative luminance, WCAG 2.2."""
    colour = colour.lstrip("#")
    colour = "".join(c * 2 for c in colour) if len(colour) == 3 else colour
    parts = [int(colour[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return sum(w * p for w, p in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(a: str, b: str) -> float:
    high, low = sorted((luminance(a), luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def schemes() -> list[dict[str, str]]:
    blocks = re.findall(r":root \{([^}]*)\}", STYLE.read_text())
    return [dict(re.findall(r"(--[\w-]+): (#[0-9a-f]+)", block)) for block in blocks]


@pytest.mark.parametrize("scheme", schemes(), ids=["light", "dark", "print"])
def test_colours_can_be_read(scheme):
    for word in ("supported", "refuted", "inconclusive", "failed"):
        assert contrast(scheme[f"--{word}"], scheme[f"--{word}-tint"]) >= 4.5
    for name in ("--ink", "--soft", "--link"):
        for ground in ("--paper", "--card"):
            assert contrast(scheme[name], scheme[ground]) >= 4.5
    for i in range(1, 8):
        assert contrast(scheme[f"--c{i}"], scheme["--card"]) >= 3.0  # graphics need 3; WCAG 1.4.11
