"""An item of a condition as a conversation in the words of a domain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np

from posterhall.errors import DataError
from posterhall.evals.planning.conditions import Edit, Item, Question, hub
from posterhall.evals.planning.domains import Domain
from posterhall.evals.planning.graphs import Edge, Graph
from posterhall.lm.protocol import Message, Prompt

Intervention = Literal["none", "bfs", "dfs", "hub"]
Wording = Literal["pairs", "groups"]
Turns = Literal["auto", "1", "2"]


@dataclass(frozen=True)
class Turn:
    """What the user says, and what is asked in it."""

    text: str
    question: Question
    part: Literal["hub", "first", "final"]
    """hub: which node lies between the others; first: before the change; final: the one that counts."""
    ask: str = ""
    """The question alone, without what is told and how to answer."""


@dataclass(frozen=True)
class Conversation:
    """Everything that is said to a model about one item."""

    item: Item
    turns: tuple[Turn, ...]
    names: tuple[str, ...]
    """What each node is called in it."""
    domain: Domain
    told: tuple[str, ...] = ()
    """The graph, and what changes."""

    def facts(self) -> str:
        """What is told in all turns, without questions."""
        return "\n\n".join(each for each in self.told if each)

    def prompt(self, replies: Sequence[str]) -> Prompt:
        """What is put to the model when it has replied so far."""
        if self.domain.form == "text":
            said = ""
            for turn, reply in zip(self.turns, replies, strict=False):
                said += f"{turn.text} {reply.strip()}\n"
            return said + self.turns[len(replies)].text
        messages = [Message("system", self.domain.system)] if self.domain.system else []
        for turn, reply in zip(self.turns, replies, strict=False):
            messages += [Message("user", turn.text), Message("assistant", reply)]
        return (*messages, Message("user", self.turns[len(replies)].text))


def converse(
    item: Item,
    domain: Domain,
    random: np.random.Generator,
    *,
    intervention: Intervention = "none",
    wording: Wording = "pairs",
    turns: Turns = "auto",
) -> Conversation:
    """Put an item in words; names and the order of what is told are drawn anew each time.

    Args:
        item: what to ask.
        domain: in which words.
        random: draws names and order.
        intervention: bfs, dfs: a description of that search is added to the question; hub: the model is
            first asked which node lies between most others, and then to plan by it.
        wording: pairs: every edge is told; groups: the members of a cluster "are all connected to each
            other", as one published prompt has it (see `literal`).
        turns: "2": what changes is told in a second turn, after a question about the graph as it was; "1":
            all at once; "auto": as published, "2" for graphs with a start (A to C) and "1" for others.

    Raises:
        DataError: for groups where a graph has none, or a domain without words for what is asked.
    """
    names = domain.called(item.graph, random)
    opening = _paragraph(
        domain,
        [
            domain.say("opening", count=len(item.graph)) if domain.opening else "",
            *_told(item.graph, domain, names, wording, random),
            *_rewards(item, domain, names, random),
        ],
    )
    told = opening
    two = item.first is not None and (turns == "2" or (turns == "auto" and item.graph.start is not None))
    changes = [_edit(each, item.graph, domain, names) for each in item.edits]
    change = _paragraph(domain, [domain.change, *changes]) if changes else ""
    hint = domain.say(intervention) if intervention != "none" else ""
    said = []
    if intervention == "hub":
        question = hub(item.graph)
        said.append(Turn(_asked(domain, names, question, opening), question, "hub"))
        opening = ""
    if two and item.first is not None:
        said.append(Turn(_asked(domain, names, item.first, opening), item.first, "first"))
        opening = ""
    before = [each for each in (opening, change) if each]
    text = _asked(domain, names, item.question, *before, hint=hint)
    said.append(Turn(text, item.question, "final", _ask_and_form(domain, names, item.question)[0]))
    return Conversation(item, tuple(said), names, domain, (told, change))


def literal(graph: Graph, edits: Sequence[Edit] = ()) -> Graph:
    """The graph that the wording in groups describes, if it is taken at its word: every cluster a clique.

    A published prompt says of the near-cliques of D that their rooms "are all connected to each other", while
    its key is of the graph without the pairs that are missing.
    """
    if graph.clusters is None:
        return graph
    gone = {frozenset((each.a, each.b)) for each in edits if each.kind == "block"}
    have = {frozenset(edge) for edge in graph.edges}
    pairs = combinations(range(len(graph)), 2)
    same = [(a, b) for a, b in pairs if graph.clusters[a] == graph.clusters[b]]
    return graph.edited(with_edges=[edge for edge in same if frozenset(edge) not in have | gone])


# -- pieces -------------------------------------------------------------------------------------------


def _paragraph(domain: Domain, facts: Sequence[str]) -> str:
    return domain.separator.join(each for each in facts if each)


def _asked(domain: Domain, names: tuple[str, ...], question: Question, *before: str, hint: str = "") -> str:
    ask, form = _ask_and_form(domain, names, question)
    if domain.form == "text":  # what is to be continued comes last
        return "\n".join(each for each in (*before, hint, ask) if each)
    return "\n\n".join(each for each in (*before, ask, hint, form) if each)


def _ask_and_form(domain: Domain, names: tuple[str, ...], question: Question) -> tuple[str, str]:
    """The question, and how it is to be answered."""
    start = names[question.start] if question.start >= 0 else ""
    if question.kind == "path":
        ask = domain.say("ask_path", start=start, goal=names[question.goals[0]])
        return ask, domain.answer_path
    if question.kind == "reward":
        part = "ask_reward_cost" if question.step_cost else "ask_reward"
        return domain.say(part, start=start), domain.answer_path
    if question.kind == "chance":
        return domain.say("ask_chance", start=start), domain.answer_path
    if question.kind == "clusters":
        return domain.say("ask_clusters"), domain.answer_number
    return domain.say("ask_hub"), domain.answer_hub


def _told(
    graph: Graph, domain: Domain, names: tuple[str, ...], wording: Wording, random: np.random.Generator
) -> list[str]:
    """The edges, in random order and, where they lead both ways, either end first."""
    edges: list[Edge] = list(graph.edges)
    facts = []
    if wording == "groups":
        if graph.clusters is None:
            raise DataError(f"graph {graph.name} has no clusters to be told of in groups; use pairs")
        edges = list(graph.crossings)
        for cluster in sorted(set(graph.clusters)):
            members = [names[node] for node, its in enumerate(graph.clusters) if its == cluster]
            order = [members[place] for place in random.permutation(len(members))]
            listed = " and ".join([", ".join(order[:-1]), order[-1]]) if len(order) > 1 else order[0]
            facts.append(domain.say("group", names=listed))
    flips = random.random(len(edges)) < 0.5
    for (a, b), flip in zip(edges, flips, strict=True):
        x, y = (b, a) if flip and not graph.directed else (a, b)
        part = "edge_one_way" if graph.directed else "edge"
        facts.append(domain.say(part, a=names[x], b=names[y]))
    facts += [domain.say("edge_one_way", a=names[a], b=names[b]) for a, b in graph.one_way]
    return [facts[place] for place in random.permutation(len(facts))]


def _rewards(item: Item, domain: Domain, names: tuple[str, ...], random: np.random.Generator) -> list[str]:
    """What is found where, if that matters to what is asked."""
    if item.question.kind not in ("reward", "chance"):
        return []
    facts = [
        domain.say("reward", a=names[node], amount=f"{amount:g}")
        for node, amount in item.graph.rewards.items()
    ]
    facts = [facts[place] for place in random.permutation(len(facts))]
    if item.question.step_cost:
        facts.append(domain.say("step_cost", amount=f"{item.question.step_cost:g}"))
    return [*facts, domain.one_reward]


def _edit(edit: Edit, graph: Graph, domain: Domain, names: tuple[str, ...]) -> str:
    a = names[edit.a]
    if edit.kind == "reward":
        return domain.say("reward_now", a=a, amount=f"{edit.amount:g}")
    b = names[edit.b]
    if edit.kind == "chance":
        percent = f"{100 * edit.amount:.0f}"
        return domain.say("chance", a=a, b=b, other=names[edit.other], percent=percent)
    if edit.kind == "teleport" or not graph.directed:
        return domain.say(edit.kind, a=a, b=b)
    return domain.say(f"{edit.kind}_one_way", a=a, b=b)
