"""`Claim` and the `@claim` decorator: everything that could be bent afterwards, stated before it runs."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar, Literal, TypeVar

from posterhall.claims import figures
from posterhall.claims.kinds import Kind
from posterhall.claims.rows import Budget, Row, Scalar
from posterhall.errors import DataError, UsageError, did_you_mean

MIN_SEEDS = 5
MIN_CLUSTERS = 30
SCALES = ("smoke", "laptop", "full")

_DECLARED: dict[str, type[Claim]] = {}


class Claim(ABC):
    """A statement with the experiment that decides it; see `posterhall.claims` for how to write one.

    A subclass is final once `@claim` has declared it. Instances carry `params`, the values a user gave.
    """

    # Set by the decorator.
    id: ClassVar[str]
    paper: ClassVar[str]
    where: ClassVar[str]
    headline: ClassVar[bool]
    exclusive: ClassVar[bool]
    statement: ClassVar[str]

    # Stated by the claim.
    kind: ClassVar[Kind]
    paper_value: ClassVar[str]
    refuted_by: ClassVar[str]
    negative_control: ClassVar[str]
    control_arms: ClassVar[tuple[str, ...]] = ()
    control: ClassVar[Kind | None] = None
    deviates: ClassVar[str]
    scales: ClassVar[Mapping[str, Budget]]
    unit: ClassVar[Literal["seed", "item"]] = "seed"
    diverged: ClassVar[Mapping[str, float]] = MappingProxyType({})
    params: Mapping[str, Scalar] = MappingProxyType({})

    def __init__(self, params: Mapping[str, Scalar] | None = None) -> None:
        given = dict(params or {})
        for name in given:
            if name not in type(self).params:
                allowed = ", ".join(type(self).params) or "none"
                raise UsageError(
                    f"claim '{self.id}' has no parameter '{name}'; it has: {allowed}."
                    f"{did_you_mean(name, type(self).params)}"
                )
        self.params = MappingProxyType({**type(self).params, **given})

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for base in cls.__mro__[1:]:
            if "id" in vars(base):
                raise TypeError(
                    f"{base.__name__} is a declared claim and therefore final; share code by functions"
                )

    @abstractmethod
    def run(self, budget: Budget, seed: int) -> Iterable[Row]:
        """Run every arm, the control's too, for one seed; the same rows whenever the seed is the same."""

    def figure(self, rows: Sequence[Row]) -> figures.Figure | None:
        """What to draw from all rows; the default shows each compared arm with its seeds."""
        return figures.default(rows, self.kind.metric, (*self.kind.names, *self.control_kind().names))

    @classmethod
    def control_kind(cls) -> Kind:
        """The test that must not come out supported."""
        return cls.control if cls.control is not None else cls.kind.over(*cls.control_arms)

    @classmethod
    def budget(cls, scale: str) -> Budget:
        """The budget of a scale.

        Raises:
            UsageError: if the claim has no such scale.
        """
        try:
            return cls.scales[scale]
        except KeyError:
            raise UsageError(
                f"claim '{cls.id}' has no scale '{scale}'; it has: {', '.join(cls.scales)}."
                f"{did_you_mean(scale, cls.scales)}"
            ) from None


C = TypeVar("C", bound=type[Claim])

_TEXTS = ("paper_value", "refuted_by", "negative_control", "deviates")


def claim(
    *, id: str, paper: str, where: str, headline: bool = False, exclusive: bool = False
) -> Callable[[C], C]:
    """Declare a claim: check that nothing is left to be decided afterwards, and make it known.

    Args:
        id: its name on the command line; lower-case words joined by hyphens.
        paper: the paper's short name, as in `posterhall.claims.registry`.
        where: the place in the paper ("Table 1; §3").
        headline: whether `posterhall tour` runs it; one a paper.
        exclusive: whether it needs the machine to itself (it measures time, or starts processes).

    Raises:
        UsageError: naming what is missing or contradictory.
    """

    def declare(cls: C) -> C:
        def fail(what: str) -> UsageError:
            return UsageError(f"claim '{id}' ({cls.__module__}.{cls.__name__}): {what}")

        if not id or id != id.lower() or not id.replace("-", "").isalnum():
            raise fail("its id must be lower-case words joined by hyphens")
        known = _DECLARED.get(id)
        if known is not None and (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
            raise fail(f"this id is taken by {known.__module__}.{known.__name__}")
        if inspect.isabstract(cls):
            raise fail("it has no run()")
        statement = " ".join((inspect.getdoc(cls) or "").split("\n\n")[0].split())
        if not cls.__doc__ or not statement:
            raise fail("its docstring is the statement; write one")
        for name in _TEXTS:
            if not getattr(cls, name, ""):
                raise fail(f"it does not say {name}")
        if not isinstance(getattr(cls, "kind", None), Kind):
            raise fail("it has no kind (Paired, Ratio, Ordering, Fit, Threshold, Equivalent)")
        if bool(cls.control_arms) == (cls.control is not None):
            raise fail("it needs a negative control: either control_arms or a control kind")
        if cls.control_kind() == cls.kind:
            raise fail("its negative control is the claim itself")
        if not where or not paper:
            raise fail("name the paper and the place in it")
        if not getattr(cls, "scales", None) or "smoke" not in cls.scales:
            raise fail("it needs at least the scale 'smoke'")
        for scale, budget in cls.scales.items():
            if cls.unit == "seed" and budget.seeds < MIN_SEEDS:
                raise fail(
                    f"scale '{scale}' has {budget.seeds} seeds; an interval over seeds needs {MIN_SEEDS}"
                )
        cls.id, cls.paper, cls.where = id, paper, where
        cls.headline, cls.exclusive, cls.statement = headline, exclusive, statement
        _DECLARED[id] = cls
        return cls

    return declare


def declared(module: str) -> list[type[Claim]]:
    """Claims declared by an imported module or by modules inside it, in the order of declaration."""
    return [c for c in _DECLARED.values() if c.__module__ == module or c.__module__.startswith(f"{module}.")]


def coerce(name: str, default: Scalar, text: str) -> Scalar:
    """Read a parameter given as text, by the type of its default (None means text).

    Raises:
        DataError: if the text does not fit.
    """
    if isinstance(default, bool):
        words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
        if text.lower() not in words:
            raise DataError(f"{name}={text}: give true or false")
        return words[text.lower()]
    try:
        return type(default)(text) if isinstance(default, int | float) else text
    except ValueError:
        kind = "a whole number" if isinstance(default, int) else "a number"
        raise DataError(f"{name}={text}: give {kind}, as {default}") from None
