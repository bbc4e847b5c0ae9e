"""What tokens cost, from a dated table that everybody can correct."""

from __future__ import annotations

import datetime
import importlib.resources
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from posterhall.errors import DataError, did_you_mean

_PRICES = ("input", "output", "cached_input")
_KEYS = (*_PRICES, "as_of")
_VERSION = re.compile(r"-(\d{4}-\d{2}-\d{2}|\d{8})$")
"""The date at the end of a model's name, as in gpt-4o-2024-08-06."""


@dataclass(frozen=True)
class Price:
    """Of a model's tokens, in US dollars a million."""

    input: float
    """Of tokens read."""
    output: float
    """Of tokens generated, hidden ones too."""
    cached_input: float | None = None
    """Of tokens read that the server had at hand; None: as the others."""
    as_of: str | None = None
    """The day on which it was looked up, as 2026-11-28."""

    def cost(self, tokens_in: int, tokens_out: int, *, cached: int = 0) -> float:
        """Of a call, in US dollars.

        Args:
            tokens_in: tokens of the prompt.
            tokens_out: tokens generated.
            cached: of `tokens_in`, those that the server had at hand.
        """
        rate = self.input if self.cached_input is None else self.cached_input
        return ((tokens_in - cached) * self.input + cached * rate + tokens_out * self.output) / 1e6


FREE = Price(0.0, 0.0)
"""Of a model on this machine."""


def user_file() -> Path:
    """Where a user's own prices are looked for."""
    import platformdirs

    return Path(platformdirs.user_config_dir("posterhall", appauthor=False)) / "prices.yaml"


def table(own: Path | None = None) -> dict[str, Price]:
    """All known prices by the name of the model: the shipped ones, and the user's in their place.

    Args:
        own: the user's table; None means `user_file`, if there is one.

    Raises:
        DataError: for a table that cannot be read, naming the entry.
    """
    shipped = importlib.resources.files("posterhall.lm") / "prices.yaml"
    found = _read(shipped.read_text(encoding="utf-8"), "prices.yaml")
    path = user_file() if own is None else own
    if own is not None or path.is_file():
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{path}: cannot be read as a table of prices: {error}") from None
        found |= _read(text, str(path))
    return found


def price_of(model: str, prices: Mapping[str, Price] | None = None) -> Price | None:
    """The price of a model; None if it is unknown.

    A name is looked up as it is, then without a server's address, without the provider before the last
    slash, and without the date at its end.
    """
    prices = table() if prices is None else prices
    named = model.rpartition("#")[2]  # as in http://host/v1#name
    short = named.rpartition("/")[2]
    for name in (model, named, short, _VERSION.sub("", short)):
        if name in prices:
            return prices[name]
    return None


def _read(text: str, source: str) -> dict[str, Price]:
    import yaml

    try:
        found = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise DataError(f"{source}: not valid YAML: {str(error).splitlines()[0]}") from None
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise DataError(f"{source}: a table of prices is lines as 'my-model: {{input: 0.5, output: 1.5}}'")
    return {str(name): _price(value, f"{source}: {name}") for name, value in found.items()}


def _price(value: Any, where: str) -> Price:
    if not isinstance(value, dict):
        raise DataError(f"{where}: write {{input: 0.5, output: 1.5}}, in US dollars a million tokens")
    for key in value:
        if key not in _KEYS:
            hint = did_you_mean(str(key), _KEYS) or f" Allowed are {', '.join(_KEYS)}."
            raise DataError(f"{where}: unknown key '{key}'.{hint}")
    for key in _PRICES:
        given = value.get(key, None if key == "cached_input" else "missing")
        number = isinstance(given, int | float) and not isinstance(given, bool)
        if given is not None and not (number and 0 <= given < math.inf):
            raise DataError(f"{where}: {key} is {given}; it must be US dollars a million tokens, at least 0")
    as_of = value.get("as_of")
    if as_of is not None and not isinstance(as_of, str | datetime.date):
        raise DataError(f"{where}: as_of is {as_of}; write a day, as 2026-11-28")
    cached = value.get("cached_input")
    return Price(
        input=float(value["input"]),
        output=float(value["output"]),
        cached_input=None if cached is None else float(cached),
        as_of=None if as_of is None else str(as_of),
    )
