"""What goes into a claim's experiment (a budget) and what comes out of it (rows)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from posterhall.errors import DataError

Floats = npt.NDArray[np.float64]
Scalar = bool | int | float | str | None
Value = float | tuple[float, ...]


class Budget(Mapping[str, Any]):
    """The size of an experiment: named numbers, read as attributes or keys, never changed.

    Two names have a meaning here: ``seeds`` (default 5), how many seeds are run, and ``seconds``, a
    guess at the CPU seconds of one seed, by which the longest claims are started first.

    >>> budget = Budget(tokens=1e5, seeds=8)
    >>> budget.tokens, budget["seeds"]
    (100000.0, 8)
    """

    __slots__ = ("_values",)
    _values: dict[str, Scalar]

    def __init__(self, *, seeds: int = 5, **values: Scalar) -> None:
        object.__setattr__(self, "_values", {"seeds": seeds, **values})
        if seeds < 1:
            raise DataError(f"seeds={seeds}; a budget needs at least one")
        for name in values:
            if hasattr(type(self), name):  # budget.items would be the method, not the number
                raise DataError(f"a budget cannot name a number '{name}', which every mapping has; rename it")

    def __getitem__(self, key: str) -> Any:
        return self._values[key]

    def __getattr__(self, key: str) -> Any:
        try:
            return self._values[key]
        except KeyError:
            raise AttributeError(f"this budget has no '{key}'; it has {', '.join(self._values)}") from None

    def __setattr__(self, key: str, value: object) -> None:
        raise AttributeError("a budget does not change; use replace()")

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __hash__(self) -> int:
        return hash(tuple(sorted(self._values.items(), key=lambda item: item[0])))

    def __repr__(self) -> str:
        return f"Budget({', '.join(f'{k}={v!r}' for k, v in self._values.items())})"

    def replace(self, **values: Any) -> Budget:
        """Return a copy with some values changed."""
        return Budget(**{**self._values, **values})


class Row:
    """What one arm of an experiment gave for one seed.

    Args:
        arm: the arm's name, as the claim's kind spells it.
        seed: the seed it was run with.
        clusters: where metrics are arrays over items: the cluster of each item (any integers). Without
            it every position is its own cluster, the same one in every seed.
        **metrics: numbers, or one-dimensional sequences (scores by item, or a curve for a figure).
            NaN and infinities are kept: they say that the arm diverged.
    """

    __slots__ = ("arm", "clusters", "metrics", "seed")

    def __init__(
        self,
        arm: str,
        seed: int,
        *,
        clusters: Sequence[int] | npt.NDArray[Any] | None = None,
        **metrics: float | Sequence[float] | npt.NDArray[Any],
    ) -> None:
        self.arm = str(arm)
        self.seed = int(seed)
        self.clusters = None if clusters is None else tuple(int(c) for c in clusters)
        self.metrics: dict[str, Value] = {}
        for name, given in metrics.items():
            array = np.asarray(given, dtype=np.float64)
            if array.ndim > 1:
                raise DataError(
                    f"metric '{name}' of arm '{arm}' has shape {array.shape}; give a number or a list"
                )
            self.metrics[name] = float(array) if array.ndim == 0 else tuple(array.tolist())

    def __getitem__(self, metric: str) -> Value:
        try:
            return self.metrics[metric]
        except KeyError:
            names = ", ".join(self.metrics) or "none"
            raise DataError(
                f"arm '{self.arm}', seed {self.seed}: no metric '{metric}' (it has: {names})"
            ) from None

    def number(self, metric: str) -> float:
        """The metric as one number: itself, or the mean over its items."""
        value = self[metric]
        return value if isinstance(value, float) else float(np.mean(value))

    def __eq__(self, other: object) -> bool:
        # By their JSON, so that a row with NaN equals its own copy.
        return isinstance(other, Row) and self.to_json() == other.to_json()

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        parts = ", ".join(
            f"{k}={v:.6g}" if isinstance(v, float) else f"{k}=({len(v)} values)"
            for k, v in self.metrics.items()
        )
        return f"Row({self.arm!r}, seed={self.seed}, {parts})"

    def to_json(self) -> dict[str, Any]:
        """A JSON object; numbers that JSON lacks become the strings NaN, Infinity, -Infinity."""
        out: dict[str, Any] = {
            "arm": self.arm,
            "seed": self.seed,
            "metrics": {
                k: _encode(v) if isinstance(v, float) else [_encode(x) for x in v]
                for k, v in self.metrics.items()
            },
        }
        if self.clusters is not None:
            out["clusters"] = list(self.clusters)
        return out

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Row:
        """Inverse of `to_json`.

        Raises:
            DataError: if a field is missing or of the wrong type.
        """
        try:
            metrics = {
                str(k): [float(x) for x in v] if isinstance(v, list) else float(v)
                for k, v in data["metrics"].items()
            }
            row = cls(data["arm"], data["seed"], clusters=data.get("clusters"))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DataError(
                f"not a row of a claim: {error!r}; delete the file and run with --resume"
            ) from None
        for name, value in metrics.items():  # not as keywords: a metric may be called 'clusters'
            row.metrics[name] = value if isinstance(value, float) else tuple(value)
        return row


def _encode(x: float) -> float | str:
    if math.isfinite(x):
        return x
    return "NaN" if math.isnan(x) else "Infinity" if x > 0 else "-Infinity"
