"""The files in which published preferences come: HH, SHP, TL;DR and OASST1; see `preference.read`."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

from posterhall.data.objects import Object
from posterhall.data.preference import ASSISTANT, Preference, Preferences, add_conversation, text, value
from posterhall.errors import DataError

_SUMMARY_PROMPT = "SUBREDDIT: r/{subreddit}\n\nTITLE: {title}\n\nPOST: {post}\n\nTL;DR:"
"""Stiennon et al. 2020, app. B; the policies of Rafailov et al. are prompted so."""


def helpful_harmless(row: Object, into: Preferences) -> None:
    """Bai et al. 2022: two whole dialogues.

    The prompt ends with the last "Assistant:" up to which both are alike. (DPO's code takes the last one of
    the chosen dialogue and cuts the other at that length, whether it is alike or not.)
    """
    chosen, rejected = text(row, "chosen"), text(row, "rejected")
    alike = 0
    for mine, other in zip(chosen, rejected, strict=False):
        if mine != other:
            break
        alike += 1
    at = chosen.rfind(ASSISTANT, 0, alike)
    if at < 0:
        into.refuse("the dialogues share no beginning", row.where)
        return
    start = at + len(ASSISTANT)
    ends = chosen[start:], rejected[start:]
    if any(ASSISTANT in end for end in ends):
        into.refuse("the dialogues differ before the last answer", row.where)
        return
    into.add(Preference(chosen[:start], ends, row.where))


def stanford(row: Object, into: Preferences, min_ratio: float) -> None:
    """Ethayarajh et al. 2022: two comments on a post, with their scores."""
    scores = [value(row, f"score_{side}") for side in "AB"]
    if not all(isinstance(each, int | float) for each in scores):
        raise DataError(f"{row.where}: score_A and score_B are {scores}; they must be numbers")
    better, worse = max(scores), min(scores)
    # As a product: a score may be 0, and below it no ratio means anything.
    if better <= 0 or better < min_ratio * worse or better == worse:
        into.refuse("scores too close", row.where)
        return
    answers = [f" {text(row, f'human_ref_{side}')}" for side in "AB"]
    if scores[0] < scores[1]:
        answers.reverse()
    prompt = f"\n\nHuman: {text(row, 'history')}{ASSISTANT}"
    into.add(Preference(prompt, (answers[0], answers[1]), row.where))


def summaries(row: Object, into: Preferences) -> None:
    """Stiennon et al. 2020: two summaries of a Reddit post, or of a news article."""
    info, given, choice = (value(row, name) for name in ("info", "summaries", "choice"))
    if not (
        isinstance(info, dict)
        and isinstance(given, list)
        and len(given) == 2
        and all(isinstance(each, dict) and isinstance(each.get("text"), str) for each in given)
        and choice in (0, 1)
    ):
        raise DataError(
            f'{row.where}: not a comparison; it must have "info", two "summaries" with "text", and a '
            '"choice" of 0 or 1'
        )
    if isinstance(info.get("post"), str):
        known = {name: info.get(name) or "" for name in ("subreddit", "title")}
        prompt = _SUMMARY_PROMPT.format(**known, post=info["post"])
    elif isinstance(info.get("article"), str):
        prompt = f"{info['article']}\n\nTL;DR:"
    else:
        raise DataError(f"{row.where}: 'info' has neither a post nor an article")
    texts = [f" {each['text'].strip()}" if each["text"].strip() else "" for each in given]
    into.add(Preference(prompt, (texts[choice], texts[1 - choice]), row.where))


def open_assistant(rows: Iterable[Object], into: Preferences) -> None:
    """Köpf et al. 2023: trees of messages, whose answers people have ranked (0 is the best)."""
    messages = _messages(rows)
    children: dict[str, list[str]] = {}
    for name, message in messages.items():
        if message.get("role") == "assistant" and message.get("parent_id") and not message.get("deleted"):
            children.setdefault(message["parent_id"], []).append(name)
    for parent, names in children.items():
        ranked = [messages[name] for name in names if isinstance(messages[name].get("rank"), int)]
        if len(ranked) < 2:
            continue
        ranked.sort(key=lambda message: message["rank"])
        where = str(ranked[0]["where"])
        before = _thread(parent, messages)
        if before is None:
            into.refuse("the conversation before it is not there", where)
            continue
        scores = tuple(-float(each["rank"]) for each in ranked)
        add_conversation(before, [each["text"] for each in ranked], where, into, scores)


def best_replies(rows: Iterable[Object]) -> Iterator[tuple[list[dict[str, str]], str]]:
    """Of each of Open Assistant's trees, the conversation that follows the best reply to every message.

    The best is that of the least rank (0); of replies without one, the first. Comes with the place of its
    first message.
    """
    messages = _messages(rows)
    replies: dict[str | None, list[dict[str, Any]]] = {}
    for message in messages.values():
        if not message.get("deleted"):
            replies.setdefault(message.get("parent_id"), []).append(message)
    for root in replies.get(None, []):
        thread, at = [], root
        while True:
            role = "assistant" if at.get("role") == "assistant" else "user"
            thread.append({"role": role, "content": at["text"]})
            following = replies.get(at["message_id"])
            if not following:
                break
            at = min(following, key=_rank)
        yield thread, str(root["where"])


def _rank(message: dict[str, Any]) -> float:
    rank = message.get("rank")
    return rank if isinstance(rank, int) else math.inf


def _messages(rows: Iterable[Object]) -> dict[str, dict[str, Any]]:
    """All of Open Assistant's messages by their ids, each with its place ("where")."""
    messages: dict[str, dict[str, Any]] = {}
    for row in rows:
        nested = row.fields.get("prompt")
        for message in _flat(nested) if isinstance(nested, dict) else [row.fields]:
            name = message.get("message_id")
            if not isinstance(name, str) or not isinstance(message.get("text"), str):
                raise DataError(
                    f"{row.where}: a message without 'message_id' or 'text'; is it Open Assistant's?"
                )
            if name in messages:
                raise DataError(f"{row.where}: message {name} is there a second time; is a file read twice?")
            messages[name] = {**message, "where": row.where}
    return messages


def _thread(name: str, messages: dict[str, dict[str, Any]]) -> list[dict[str, str]] | None:
    """The conversation up to a message; None if a part of it is missing, or it goes in a circle."""
    thread: list[dict[str, str]] = []
    at: str | None = name
    while at is not None:
        message = messages.get(at)
        if message is None or len(thread) > len(messages):
            return None
        thread.append({"role": str(message.get("role")), "content": message["text"]})
        at = message.get("parent_id")
    return thread[::-1]


def _flat(root: dict[str, Any]) -> list[dict[str, Any]]:
    """All messages of a tree, each with its parent's id."""
    found, left = [], deque([root])
    while left:
        message = left.popleft()
        found.append(message)
        parent = {"parent_id": message.get("message_id")}
        left.extend({**reply, **parent} for reply in message.get("replies") or ())
    return found
