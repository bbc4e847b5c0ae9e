"""What a search is compared with: whole answers, without a tree."""

from __future__ import annotations

from posterhall.errors import UsageError
from posterhall.search.context import Search
from posterhall.search.protocol import Ask, Check
from posterhall.search.tree import Node


async def direct(search: Search) -> None:
    """The answer at once (IO prompting)."""
    search.kept = await _answers(search, search.task.direct(search.problem))


async def chain(search: Search) -> None:
    """Thoughts and answer in one go (chain of thought, Wei et al. 2022)."""
    search.kept = await _answers(search, search.task.chain(search.problem))


async def consistent(search: Search) -> None:
    """The most frequent of several chains' answers (CoT-SC, Wang et al. 2022), the earliest among equals.

    Chains without an answer have no vote.
    """
    nodes = await _answers(search, search.task.chain(search.problem))
    first: dict[str, Node] = {}
    for node in nodes:
        answer = search.answer(node)
        if answer is None:
            continue
        holder = first.setdefault(answer, node)
        holder.votes["chosen"] = holder.votes.get("chosen", 0) + 1
        holder.value = float(holder.votes["chosen"])
        if holder is not node:
            node.status, node.same_as = "duplicate", holder.number
    search.kept = sorted(first.values(), key=lambda node: -(node.value or 0.0))


async def best_of(search: Search) -> None:
    """The first of several chains' answers that the free checker passes; the first of all if none does."""
    _needs_checker(search)
    nodes = await _answers(search, search.task.chain(search.problem))
    for node in nodes:
        node.value = search.check(search.answer(node)).score
    search.kept = sorted(nodes, key=lambda node: not search.check(search.answer(node)).solved)


async def refine(search: Search) -> None:
    """Ask for the answer, tell what the checker says of it, ask again: at most `rounds` answers.

    The paper's IO + Refine for the Game of 24: all attempts are shown, and the checker's word is used. The
    answer is the last one if it passes; else the one of the best score, the earliest among equals.
    """
    _needs_checker(search)
    attempts: list[tuple[str, Check]] = []
    parent = search.tree.root
    nodes: list[Node] = []
    ask = search.task.direct(search.problem)
    for _ in range(search.settings.rounds):
        [[sample]] = await search.asker.generate("refine", [ask], 1)
        node = _node(search, parent, sample.text)
        check = search.check(search.answer(node))
        node.value = check.score
        nodes.append(node)
        search.kept = sorted(nodes, key=lambda each: -(each.value or 0.0))
        if check.solved:
            search.kept.sort(key=lambda each: each is not node)
            return
        attempts.append((sample.text.strip(), check))
        ask = search.task.refine(search.problem, tuple(attempts))
        parent = node


async def _answers(search: Search, ask: Ask) -> list[Node]:
    role = "direct" if search.settings.method == "io" else "chain"
    [samples] = await search.asker.generate(role, [ask], search.settings.answers)
    return [_node(search, search.tree.root, sample.text) for sample in samples]


def _node(search: Search, parent: Node, reply: str) -> Node:
    answer = search.task.conclude(search.problem, reply)
    if answer is None:
        search.unread["answer"] += 1
    node = search.tree.add(parent, reply.strip() if answer is None else answer)
    node.status, node.finished = "kept", True
    search.answered[node.number] = answer
    return node


def _needs_checker(search: Search) -> None:
    if not search.task.checkable:
        raise UsageError(
            f"the task {search.task.name} has no free checker (its check needs the known answer), which "
            f"{search.settings.method} would be told; use cot or cot-sc"
        )
