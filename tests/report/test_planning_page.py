"""The page of planning runs: complete, escaped, and drawn from what was said."""

import re
import xml.etree.ElementTree as ElementTree

import pyarrow as pa
import pytest

from posterhall.errors import DataError
from posterhall.evals.planning import rows
from posterhall.evals.planning.jobs import PlanningSettings, evaluate, plan
from posterhall.lm.echo import EchoLM
from posterhall.report import graph_drawing, planning_page

SETTINGS = PlanningSettings(
    graphs=("A", "D"),
    conditions=("2stepPath", "nClusters", "teleDetour"),
    domains=("ordRooms", "unordSpatial"),
    temperatures=(0.0,),
    repeats=3,
)


def logged(said, settings=SETTINGS, model="m"):
    """Scored rows: `said` gives the path or the text of each reply."""
    found = []
    for planned in plan(settings):
        conversation = planned.conversation()
        if conversation is None:
            continue
        key = conversation.item.question.key()
        path = said(planned, list(key[0]) if key else None)
        if isinstance(path, list):
            path = "Answer: " + " -> ".join(conversation.names[node] for node in path)
        found.append(
            rows.row(
                conversation,
                [path or "Answer: 3"] * len(conversation.turns),
                model=model,
                temperature=0.0,
                repetition=planned.repetition,
            )
        )
    return rows.score(pa.Table.from_pylist(found, schema=rows.SAID))


def saved(table, path):
    rows.save(table.select(rows.SAID.names), path)
    return path


def test_every_cell_leads_to_its_conversations(tmp_path):
    page = planning_page.render([saved(logged(lambda _, key: key), tmp_path / "log.parquet")])
    links = re.findall(r'href="#(c-[^"]+)"', page)
    anchors = re.findall(r'<details class="cell" id="([^"]+)"', page)
    assert sorted(links) == sorted(anchors)
    assert len(links) == len({*links}) == 10  # A has no clusters to be counted
    assert "<b>100</b>" in page


def test_what_a_model_says_is_shown_as_text(tmp_path):
    evil = '</p><script>alert("x")</script><img src=x onerror=alert(1)>\nAnswer: room 1 -> "><b>room 2'
    page = planning_page.render([saved(logged(lambda *_: evil, model="<i>m</i>"), tmp_path / "l.parquet")])
    assert "<script>alert" not in page
    assert "<img" not in page
    assert "<i>m</i>" not in page
    assert "&lt;script&gt;alert(&#34;x&#34;)&lt;/script&gt;" in page


def test_names_are_escaped_in_the_drawing():
    [row] = logged(lambda _, key: key, SETTINGS).slice(0, 1).to_pylist()
    row["names"] = [f'<b>&"{i}' for i in range(len(row["names"]))]
    row["node_form"] = "{label}"
    drawn = ElementTree.fromstring(graph_drawing.svg(row))  # well-formed, or this raises
    assert drawn.findall(".//b") == []
    assert drawn.find(".//title").text == '<b>&"0'


def classes(row):
    drawn = ElementTree.fromstring(graph_drawing.svg(row))
    return [each.get("class") for each in drawn.iter() if each.get("class")]


def test_the_drawing_has_the_path_answered_and_what_was_invented():
    def two_leaps(_, key):
        return key and [key[0], key[-1]]

    right = next(r for r in logged(lambda _, key: key).to_pylist() if r["condition"] == "2stepPath")
    wrong = next(r for r in logged(two_leaps).to_pylist() if r["condition"] == "2stepPath")
    assert classes(right).count("step") == 2
    assert "step invented" not in classes(right)
    assert classes(wrong).count("step invented") == 1
    assert classes(wrong).count("best") == 1
    assert classes(right).count("node start") == 1
    unread = next(r for r in logged(lambda *_: "hm").to_pylist() if r["condition"] == "2stepPath")
    assert not {"step", "step invented"} & set(classes(unread))


def test_teleports_are_drawn_with_their_direction():
    row = next(r for r in logged(lambda _, key: key).to_pylist() if r["condition"] == "teleDetour")
    one_way = [e for e in re.findall(r'class="edge"[^>]*>', graph_drawing.svg(row)) if "marker-end" in e]
    assert len(one_way) == 1


def test_graphs_of_ones_own_are_drawn_on_a_circle():
    row = logged(lambda _, key: key).to_pylist()[0] | {"graph": "mine.json"}
    circles = re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)"', graph_drawing.svg(row))
    assert len(set(circles)) == len(row["names"])


def test_a_run_gets_its_page_with_provenance(tmp_path):
    evaluate(EchoLM(), SETTINGS, out=tmp_path / "run")
    path = planning_page.write(tmp_path / "run")
    assert path == tmp_path / "run" / "report.html"
    page = path.read_text()
    assert "settings" in page
    assert str(tmp_path / "run") in page
    assert "http://" not in page.replace("http://www.w3.org", "")  # nothing is loaded from elsewhere


def test_several_runs_are_told_apart(tmp_path):
    one = saved(logged(lambda _, key: key, model="good"), tmp_path / "a.parquet")
    two = saved(logged(lambda *_: "no path", model="poor"), tmp_path / "b.parquet")
    with pytest.raises(DataError, match="name an HTML file"):
        planning_page.write([one, two])
    page = planning_page.write([one, two], tmp_path / "both.html").read_text()
    assert '<th scope="row">good</th>' in page
    assert "Firth" in page  # always and never right


def test_runs_of_other_kinds_are_refused(tmp_path):
    from posterhall.runs import Run

    with Run.start(tmp_path / "other", kind="eval tasks", config={}) as run:
        run.finish()
    with pytest.raises(DataError, match="run of `eval tasks`"):
        planning_page.render([tmp_path / "other"])


@pytest.mark.parametrize(
    ("log10_p", "said"),
    [
        (0.0, "1.000"),
        (-1.2676, "0.054"),
        (-7.678, "2.1 × 10⁻⁸"),
        (-1602.0, "1.0 × 10⁻¹⁶⁰²"),
        (-8.00001, "1.0 × 10⁻⁸"),
    ],
)
def test_probabilities_however_small_are_in_print(log10_p, said):
    assert planning_page.probability(log10_p) == said
