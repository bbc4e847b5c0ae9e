"""Which items of a task are asked, and which examples stand before them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from posterhall.errors import DataError
from posterhall.evals.tasks import Item, Task, example, render
from posterhall.seeds import generator


@dataclass(frozen=True)
class Plan:
    """A task as it is asked: the same items for every number of examples, and no item among them."""

    task: Task
    items: tuple[Item, ...] = field(repr=False)
    examples: tuple[Item, ...] = field(repr=False)
    """k examples are the first k of these, so that more examples are those before and others."""
    contaminated: int
    """Examples passed over because an item asked is the same."""

    def lead(self, shots: int) -> str:
        """What stands before every item: the description and `shots` examples.

        It is the same for all items, so that a model with a cache reads it once.
        """
        settings = self.task.settings
        shown = [example(each, settings) + settings.separator for each in self.examples[:shots]]
        return settings.description + "".join(shown)

    def prompt(self, item: Item, shots: int) -> str:
        """All that stands before the item's answer."""
        return self.lead(shots) + render(item, self.task.settings)


def plan(task: Task, *, shots: Sequence[int], seed: int, limit: int | None = None) -> Plan:
    """Choose examples and items.

    Examples come from the task's own file of them; without one, from its items, which are then not
    asked (not even where fewer examples are shown: all numbers of examples are compared on the same
    items). An example that equals an item asked, but for case and spaces, is passed over.

    Args:
        task: the task.
        shots: numbers of examples, each >= 0.
        seed: of the draws; the same task draws the same examples for every model.
        limit: ask only so many items, drawn at random; a smaller limit asks a subset.

    Raises:
        DataError: if there are too few examples, or no items left.
    """
    most = max(shots, default=0)
    pool = task.items if task.shots is None else task.shots
    taken = {each.key for each in task.items} if task.shots is not None else set()
    examples: dict[str, Item] = {}  # by key: an example shown twice is one example
    passed = 0
    for each in _ordered(task, pool, seed):
        if len(examples) == most:
            break
        if each.key in taken:
            passed += 1
        else:
            examples.setdefault(each.key, each)
    asked = [each for each in task.items if each.key not in examples]
    if len(examples) < most:
        place = task.files[1] if task.shots is not None and len(task.files) > 1 else task.name
        raise DataError(
            f"{place}: {most} examples are wanted and {len(examples)} can be had"
            f"{f' ({passed} equal an item asked)' if passed else ''}; lower --shots, or add examples"
        )
    if not asked:
        raise DataError(
            f"{task.name}: all {len(task.items)} items would serve as the {most} examples; lower --shots, or "
            f"put examples into {task.name}.shots.jsonl"
        )
    if limit is not None and limit < len(asked):
        order = generator(seed, "evals", "limit", task.name).permutation(len(asked))
        asked = [asked[i] for i in sorted(order[:limit])]
    return Plan(task, tuple(asked), tuple(examples.values()), passed)


def _ordered(task: Task, items: Sequence[Item], seed: int) -> list[Item]:
    if task.settings.shot_order == "first":
        return list(items)
    order = generator(seed, "evals", "shots", task.name).permutation(len(items))
    return [items[i] for i in order]
