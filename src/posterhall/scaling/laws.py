"""Laws of loss: what a model of N parameters, trained on D tokens of which U are unique, will reach.

Every law is a `Law`: it names its constants (`Symbol`) and gives the loss for values of them. That is all a
new one needs; fitting, intervals, allocation and figures follow.

    class Mine(Law):
        name = "mine"
        symbols = (Symbol("E", 0.5, 3.0), Symbol("A", 1.0, 1e4), Symbol("alpha", 0.1, 1.0, log=False))

        def formula(self, v, params, tokens, unique):
            return v["E"] + v["A"] / params ** v["alpha"]

    law = Mine().fit("runs.csv")
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, get_args

import numpy as np
import numpy.typing as npt

from posterhall.errors import DataError, UsageError, did_you_mean
from posterhall.scaling.constants import published
from posterhall.scaling.effective import Array, Decay, effective_data, effective_params, useful_params

if TYPE_CHECKING:
    from posterhall.scaling.allocate import Allocation
    from posterhall.scaling.fit import Fit
    from posterhall.scaling.settings import FitSettings

Effects = Literal["both", "data", "params"]


@dataclass(frozen=True)
class Symbol:
    """One constant of a law.

    Attributes:
        name: as in `Law.params_`.
        low, high: where starts of a fit are drawn; the fit itself may leave the range.
        log: whether it is fitted as its logarithm (and so stays positive).
    """

    name: str
    low: float
    high: float
    log: bool = True


_CHINCHILLA = (
    Symbol("E", 0.3, 3.0),
    Symbol("A", 10.0, 1e5),
    Symbol("B", 10.0, 1e5),
    Symbol("alpha", 0.1, 1.0, log=False),
    Symbol("beta", 0.1, 1.0, log=False),
)


class Law(ABC):
    """A law of loss with its constants, published or fitted.

    After `fit`: ``params_`` (constants by name), ``objective_``, ``r2_``, ``minima_``, ``interval_``,
    ``flags_`` and ``fit_``, which holds all of it.

    Args:
        constants: published constants by name, or values by symbol; what is not given comes from the fit.

    Raises:
        DataError: on an unknown name or symbol.
    """

    name: ClassVar[str]
    symbols: ClassVar[tuple[Symbol, ...]]
    needs_unique: ClassVar[bool] = True
    """Whether the loss depends on unique tokens, so that a table must have them."""

    fit_: Fit

    def __init__(self, constants: str | Mapping[str, float] | None = None) -> None:
        given = published(constants).values if isinstance(constants, str) else dict(constants or {})
        known = [symbol.name for symbol in self.symbols]
        if not isinstance(constants, str):
            for name in given:
                if name not in known:
                    raise DataError(
                        f"law '{self.name}' has no constant '{name}'; it has: {', '.join(known)}."
                        f"{did_you_mean(name, known)}"
                    )
        chosen = {k: given[k] for k in known if k in given}
        self.constants: Mapping[str, float] = MappingProxyType({**chosen, **self.settled})

    @abstractmethod
    def formula(self, values: Mapping[str, float], params: Array, tokens: Array, unique: Array) -> Array:
        """Loss in nats a token for values of the constants; must take arrays of one shape."""

    @property
    def kernel(self) -> int | None:
        """Number of the compiled objective (`posterhall.scaling.problems`); None has the formula called."""
        return None

    @property
    def settled(self) -> Mapping[str, float]:
        """Constants that this form of the law does not fit, with their values."""
        return {}

    @property
    def options(self) -> dict[str, Any]:
        """Keyword arguments that make this form of the law again."""
        return {}

    @property
    def values(self) -> Mapping[str, float]:
        """Constants in use: fitted if `fit` was called, else those given.

        Raises:
            UsageError: if some are missing.
        """
        if hasattr(self, "fit_"):
            return self.fit_.values
        missing = [s.name for s in self.symbols if s.name not in self.constants]
        if missing:
            raise UsageError(f"law '{self.name}' has no values for {', '.join(missing)}; fit it or give them")
        return self.constants

    def fit(
        self,
        runs: Any,
        *,
        frozen: str | Mapping[str, float] | None = None,
        columns: Mapping[str, str] | None = None,
        units: Mapping[str, str | float] | None = None,
        drop_unfinished: bool = False,
        settings: FitSettings | None = None,
        watch: Callable[[float], None] | None = None,
    ) -> Self:
        """Fit the constants to a table of runs; see `posterhall.scaling.fit.fit`.

        Args:
            runs: a file, a mapping of columns, or `posterhall.scaling.Runs`.
            frozen: constants that stay: a published set ("paper" is C4's; its E, A, B, alpha, beta), or
                values by symbol.
            columns, units, drop_unfinished: as in `posterhall.scaling.read`.
            settings: Huber's delta, how many resamples, seed, threads.
            watch: is told after each resample how many are done.

        Returns:
            This law.
        """
        from posterhall.scaling import fit, table

        read = table.read(runs, columns=columns, units=units, drop_unfinished=drop_unfinished)
        self.fit_ = fit.fit(self, read, frozen=frozen, settings=settings, watch=watch)
        return self

    def loss(
        self, params: npt.ArrayLike, tokens: npt.ArrayLike, unique_tokens: npt.ArrayLike | None = None
    ) -> Array:
        """Loss in nats a token.

        Args:
            params: N, > 0; these three broadcast.
            tokens: D, > 0.
            unique_tokens: U, > 0; None means that no token is repeated. More than D counts as D.
        """
        n, d = np.broadcast_arrays(np.asarray(params, np.float64), np.asarray(tokens, np.float64))
        u = d if unique_tokens is None else np.minimum(unique_tokens, d)
        n, d, u = (np.asarray(x, np.float64) for x in np.broadcast_arrays(n, d, u))
        if not ((n > 0) & (d > 0) & (u > 0)).all():
            raise DataError("params, tokens and unique tokens must be above 0")
        return self.formula(self.values, n, d, u)

    def allocate(
        self, flops: float, unique_tokens: float | None = None, *, draws: bool = True, level: float = 0.95
    ) -> Allocation:
        """The best parameters and tokens for a compute budget; see `posterhall.scaling.allocate.allocate`."""
        from posterhall.scaling import allocate

        return allocate.allocate(self, flops, unique_tokens, draws=draws, level=level)

    @property
    def params_(self) -> dict[str, float]:
        """Fitted constants."""
        return dict(self.fit_.values)

    @property
    def objective_(self) -> float:
        """Sum of Huber's function of the residuals of ln L."""
        return self.fit_.objective

    @property
    def r2_(self) -> float:
        """Share of the variance of the loss that is explained."""
        return self.fit_.r2

    @property
    def minima_(self) -> Any:
        """All minima that were found, the best first."""
        return self.fit_.minima

    @property
    def interval_(self) -> Any:
        """Intervals by constant."""
        return self.fit_.intervals

    @property
    def flags_(self) -> tuple[str, ...]:
        """What to know before the fit is used."""
        return self.fit_.flags


class Chinchilla(Law):
    """L = E + A / N^alpha + B / D^beta (Hoffmann et al. 2022, eq. 2); repetition is not known to it.

    Args:
        constants: the default is "chinchilla", the paper's without rounding.
        tied: fit alpha = beta, as step 1 of Muennighoff et al. 2023.
    """

    name = "chinchilla"
    symbols = _CHINCHILLA
    needs_unique = False

    def __init__(
        self, constants: str | Mapping[str, float] | None = "chinchilla", *, tied: bool = False
    ) -> None:
        super().__init__(constants)
        self.tied = tied

    @property
    def kernel(self) -> int:
        return 0

    @property
    def options(self) -> dict[str, Any]:
        return {"tied": self.tied}

    def formula(self, values: Mapping[str, float], params: Array, tokens: Array, unique: Array) -> Array:
        return _terms(values, params, tokens)


class DataConstrained(Law):
    """L = E + A / N'^alpha + B / D'^beta with effective data and parameters (Muennighoff et al. 2023, eq. 6).

    Args:
        constants: the default is "c4", the paper's.
        decay: how repeated tokens lose worth: exponential (the paper's), geometric or explicit; the last
            two are one law whose constant is a life R* or a rate k (`posterhall.scaling.effective.worth`).
        effects: which of data and parameters decay; "params" alone is the paper's Table 1, "decay N".
    """

    name = "data-constrained"
    symbols = (*_CHINCHILLA, Symbol("R_D", 0.3, 3000.0), Symbol("R_N", 0.3, 3000.0))

    def __init__(
        self,
        constants: str | Mapping[str, float] | None = "c4",
        *,
        decay: Decay = "exponential",
        effects: Effects = "both",
    ) -> None:
        for value, allowed, what in ((decay, Decay, "decay"), (effects, Effects, "effects")):
            if value not in get_args(allowed):
                raise DataError(f"{what} is {value!r}; allowed are {', '.join(get_args(allowed))}")
        self.decay: Decay = decay
        self.effects: Effects = effects
        super().__init__(constants)

    @property
    def kernel(self) -> int:
        return 1 if self.decay == "exponential" else 2

    @property
    def settled(self) -> Mapping[str, float]:
        return {"both": {}, "data": {"R_N": math.inf}, "params": {"R_D": math.inf}}[self.effects]

    @property
    def options(self) -> dict[str, Any]:
        return {"decay": self.decay, "effects": self.effects}

    def formula(self, values: Mapping[str, float], params: Array, tokens: Array, unique: Array) -> Array:
        data = effective_data(unique, tokens, values["R_D"], self.decay)
        if math.isinf(values["R_N"]):
            return _terms(values, params, data)
        useful = useful_params(unique, **{k: values[k] for k in ("A", "B", "alpha", "beta")})
        return _terms(values, effective_params(params, useful, values["R_N"], self.decay), data)

    def rates(self) -> dict[str, float]:
        """k of the explicit law, R* = 1 / expm1(k): worth falls by e^-k with every repetition."""
        return {k: math.log1p(1 / self.values[k]) if self.values[k] else math.inf for k in ("R_D", "R_N")}


class ExponentDecay(Law):
    """L = E + A / N^(alpha f(R_N)) + B / D^(beta f(R_D)), f(R) = max(0, 1 - R / R*).

    The "alpha-beta decay" of Muennighoff et al. 2023, appendix: repetition wears the exponents out.
    """

    name = "exponent-decay"
    symbols = (*_CHINCHILLA, Symbol("R_D", 10.0, 1e5), Symbol("R_N", 10.0, 1e6))

    def formula(self, values: Mapping[str, float], params: Array, tokens: Array, unique: Array) -> Array:
        useful = useful_params(unique, **{k: values[k] for k in ("A", "B", "alpha", "beta")})
        surplus = np.maximum(params / np.minimum(useful, params) - 1, 0)
        alpha = values["alpha"] * np.maximum(0, 1 - surplus / values["R_N"])
        beta = values["beta"] * np.maximum(0, 1 - (tokens / unique - 1) / values["R_D"])
        return np.asarray(values["E"] + values["A"] * params**-alpha + values["B"] * tokens**-beta)


class OverfittingPenalty(Law):
    """L = E + A / N^alpha + B / D^beta + P R_D^delta (N / U)^kappa (Lovelace et al. 2026, arXiv 2605.01640).

    Here loss *rises* with epochs once the penalty grows faster than data helps. ``one=True`` is the form
    with a single coefficient, delta = kappa = 1. The formula was read second-hand (Weng 2026, "Scaling
    laws, carefully"); the paper's own constants are not shipped.
    """

    name = "overfitting-penalty"
    symbols = (
        *_CHINCHILLA,
        Symbol("P", 1e-4, 10.0),
        Symbol("delta", 0.5, 2.0, log=False),
        Symbol("kappa", 0.3, 1.5, log=False),
    )

    def __init__(self, constants: str | Mapping[str, float] | None = None, *, one: bool = False) -> None:
        self.one = one
        super().__init__(constants)

    @property
    def settled(self) -> Mapping[str, float]:
        return {"delta": 1.0, "kappa": 1.0} if self.one else {}

    @property
    def options(self) -> dict[str, Any]:
        return {"one": self.one}

    def formula(self, values: Mapping[str, float], params: Array, tokens: Array, unique: Array) -> Array:
        repeats = np.maximum(tokens / unique - 1, 0)
        penalty = values["P"] * repeats ** values["delta"] * (params / unique) ** values["kappa"]
        return np.asarray(_terms(values, params, tokens) + penalty)


class Saturating(Law):
    """L = E + (L0 - E) h / (1 + h), h = a / N^alpha + b / D^beta + c N^gamma / U^delta (arXiv 2605.09189).

    Bounded by L0, the loss before training; a larger model on the same unique tokens may do *worse*. The
    formula was read in a summary; no constants are shipped.
    """

    name = "saturating"
    symbols = (
        Symbol("E", 0.3, 3.0),
        Symbol("L0", 5.0, 20.0),
        Symbol("a", 1.0, 1e4),
        Symbol("b", 1.0, 1e4),
        Symbol("c", 1e-3, 10.0),
        Symbol("alpha", 0.1, 1.0, log=False),
        Symbol("beta", 0.1, 1.0, log=False),
        Symbol("gamma", 0.1, 1.0, log=False),
        Symbol("delta", 0.1, 1.0, log=False),
    )

    def formula(self, values: Mapping[str, float], params: Array, tokens: Array, unique: Array) -> Array:
        v = values
        h = v["a"] * params ** -v["alpha"] + v["b"] * tokens ** -v["beta"]
        h = h + v["c"] * params ** v["gamma"] * unique ** -v["delta"]
        return np.asarray(v["E"] + (v["L0"] - v["E"]) * h / (1 + h))


def _terms(values: Mapping[str, float], params: Array, tokens: Array) -> Array:
    with np.errstate(divide="ignore"):  # in logarithms: A may be 1e300 where alpha is large; ln 0 is no term
        first = np.exp(np.log(values["A"]) - values["alpha"] * np.log(params))
        second = np.exp(np.log(values["B"]) - values["beta"] * np.log(tokens))
    return np.asarray(values["E"] + first + second)


LAWS: dict[str, type[Law]] = {
    law.name: law for law in (Chinchilla, DataConstrained, ExponentDecay, OverfittingPenalty, Saturating)
}
"""Laws by the name that `scale fit --law` takes."""
