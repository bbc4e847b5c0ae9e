"""A model that reads what it is told and answers rightly: everything it knows of a graph is in the words."""

from __future__ import annotations

import re
from collections.abc import Sequence

from posterhall.lm.protocol import LM, Request, Sample, transcript

ROOM = r"room \d+"
EDGE = re.compile(
    rf"A door connects ({ROOM}) and ({ROOM})\.|There is a new door between ({ROOM}) and ({ROOM})\."
)
ONE_WAY = re.compile(
    rf"one way only leads from ({ROOM}) to ({ROOM})\.|In ({ROOM}) a portal has been found"
    rf" that takes you to ({ROOM})"
    rf"|There is a new door from ({ROOM}) to ({ROOM}), which"
)
BLOCK = re.compile(
    rf"The door between ({ROOM}) and ({ROOM}) is locked|"
    rf"The door from ({ROOM}) to ({ROOM}) is locked"
)
REWARD = re.compile(
    rf"In ({ROOM}) there is a chest with \$([\d.]+)|The chest in ({ROOM}) holds \$([\d.]+) now"
)
CHANCE = re.compile(
    rf"The door from ({ROOM}) to ({ROOM}) .* that (\d+) times in 100 it leads to ({ROOM}) instead"
)
COST = re.compile(r"Each door that you pass costs you \$([\d.]+)")
GROUP = re.compile(rf"The rooms ((?:{ROOM}(?:, | and )?)+) are all connected")
START, GOAL = re.compile(rf"You are in ({ROOM})\."), re.compile(rf"shortest path to ({ROOM})\?")


def groups_of(match):
    return [each for each in match.groups() if each is not None]


def sentences(text):
    """Facts in the order in which they are told: a later one overrules."""
    return re.split(r"(?<=[.?])\s+", text)


class Solver(LM):
    """Answers questions of the domain ordRooms; `wrong` makes it answer otherwise."""

    name = "solver"

    def __init__(self, say=lambda path: "Let me see.\nAnswer: " + " -> ".join(path)):
        self.say = say
        self.calls = 0

    async def agenerate(self, requests: Sequence[Request]):
        self.calls += len(requests)
        return [[self._sample(transcript(each.prompt))] for each in requests]

    def _sample(self, text):
        return Sample(self.answer(text), "stop", len(text.split()), 5)

    def answer(self, text):
        steps, rewards, chances, cost = {}, {}, [], 0.0
        for line in sentences(text):
            if found := EDGE.search(line):
                a, b = groups_of(found)
                steps.setdefault(a, set()).add(b)
                steps.setdefault(b, set()).add(a)
            if found := ONE_WAY.search(line):
                a, b = groups_of(found)
                steps.setdefault(a, set()).add(b)
            if found := BLOCK.search(line):
                a, b = groups_of(found)
                steps[a].discard(b)
                if "between" in line:
                    steps[b].discard(a)
            if found := REWARD.search(line):
                room, amount = groups_of(found)
                rewards[room] = float(amount)
            if found := CHANCE.search(line):
                chances.append(groups_of(found))
            if found := COST.search(line):
                cost = float(found[1])
            if found := GROUP.search(line):
                members = re.findall(ROOM, found[1])
                for a in members:
                    steps.setdefault(a, set()).update(set(members) - {a})
        start = START.findall(text)[-1]
        if "average" in text:
            nominal = dict(rewards)
            for _, room, percent, other in chances:
                astray = int(percent) / 100
                rewards[room] = (1 - astray) * nominal[room] + astray * nominal[other]
        asked = text.rpartition("You are in")[2]
        ways = self.ways(steps, start)
        goal = GOAL.search(asked)
        if goal is not None:
            return self.say(ways[goal[1]])
        worth = {
            room: amount - cost * (len(ways[room]) - 1) for room, amount in rewards.items() if room in ways
        }
        return self.say(ways[max(worth, key=worth.__getitem__)])

    @staticmethod
    def ways(steps, start):
        """A shortest way to every room in reach."""
        ways = {start: (start,)}
        ring = [start]
        while ring:
            new = []
            for a in ring:
                for b in sorted(steps.get(a, ())):
                    if b not in ways:
                        ways[b] = (*ways[a], b)
                        new.append(b)
            ring = new
        return ways
