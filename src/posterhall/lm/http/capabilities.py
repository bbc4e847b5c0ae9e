"""What a server can do, found out by what it answers to the first request that needs it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from posterhall.lm.http.wire import Problem

_REFUSING = re.compile(
    r"unsupported|not (?:yet )?(?:support|permit|allow|implement|available|valid)|unknown|unrecogni[sz]ed"
    r"|unexpected|extra (?:field|input)|does ?n[o']t|cannot|can't|only |must be|should be|invalid|at most"
    r"|too many|too long|maximum|greater than|less than",
    re.IGNORECASE,
)
_TOO_LONG = re.compile(
    r"context.?(?:length|size|window|limit)|maximum context|n_ctx|prompt is too long|input is too long"
    r"|too many (?:input )?tokens|exceeds? (?:the )?(?:available )?context|maximum (?:input|prompt) length",
    re.IGNORECASE,
)
_NAMED: Mapping[str, re.Pattern[str]] = {
    "max_tokens": re.compile(r"\bmax_tokens\b"),
    "max_completion_tokens": re.compile(r"\bmax_completion_tokens\b"),
    "n": re.compile(
        r"""['"`]n['"`]|\bn (?:must|should|is|>|=)|parameter:? n\b|only one (?:completion )?choice""",
        re.IGNORECASE,
    ),
    "seed": re.compile(r"\bseed\b", re.IGNORECASE),
    "logprobs": re.compile(r"\b(?:top_)?logprobs\b", re.IGNORECASE),
    "response_format": re.compile(r"\bresponse_format\b|json_schema|\bguided|additionalProperties"),
    "stop": re.compile(r"\bstop\b", re.IGNORECASE),
    "temperature": re.compile(r"\btemperature\b", re.IGNORECASE),
    "top_p": re.compile(r"\btop_p\b"),
}
MOST_STOPS = 4
"""Stop texts that OpenAI takes, and what is sent to a server that refuses more."""


@dataclass
class Capabilities:
    """What one model of a server has shown to do so far; None where that is not known yet.

    `HttpLM` changes it as it learns; `as_dict` goes into a run's record, so that it can be seen what was
    really asked for.
    """

    completions: bool | None = None
    """Continues text (/completions); else a text is sent as one message of the user."""
    most_choices: int | None = None
    """Choices that it gives at most for one request, whatever `n` says."""
    n: bool | None = None
    """Gives as many choices as `n` says; else one request a sample is sent."""
    length_name: str = "max_tokens"
    """What it calls the largest number of tokens: max_tokens or max_completion_tokens."""
    seed: bool | None = None
    """Takes a seed (whether it heeds it, it does not say)."""
    logprobs: bool | None = None
    """Gives log-probabilities of what it generates."""
    schema: str = "strict"
    """How a JSON Schema is enforced: strict, plain (as far as the server likes) or none."""
    stops: int | None = None
    """Stop texts that it takes at most; all are heeded here in any case."""
    temperature: bool | None = None
    """Takes a temperature; else it samples at its own."""
    top_p: bool | None = None
    """Takes top_p."""
    score: bool | None = None
    """Tells the log-probabilities of a text that is given to it."""
    embed: bool | None = None
    """Embeds texts."""

    def as_dict(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return asdict(self)

    def learn(self, why: Problem, body: Mapping[str, Any]) -> str | None:
        """Take the blame for a refusal to the parameter of `body` that it names, and do without from now on.

        Returns:
            What was learned, in words; None if the refusal is about something else, and to be reported.
        """
        for name in _NAMED:
            if name in body and _blames(why, name):
                learned = self._without(name, why, body[name])
                if learned:
                    return learned
        return None

    def _without(self, name: str, why: Problem, value: Any) -> str | None:
        match name:
            case "max_tokens":
                # "max_tokens is too large" is about the value; only another name is a way out.
                if "max_completion_tokens" in why.message or (
                    why.code == "unsupported_parameter" and self.length_name == "max_tokens"
                ):
                    self.length_name = "max_completion_tokens"
                    return "max_completion_tokens instead of max_tokens"
                return None
            case "max_completion_tokens":
                if re.search(r"too large|at most|maximum|less than", why.message):
                    return None
                self.length_name = "max_tokens"
                return "max_tokens instead of max_completion_tokens"
            case "n":
                self.n, self.most_choices = False, 1
                return "one request a sample: it takes no n"
            case "response_format":
                self.schema = "plain" if self.schema == "strict" else "none"
                return f"JSON Schema: {self.schema}"
            case "stop":
                count = len(value) if isinstance(value, list) else 1
                self.stops = MOST_STOPS if count > MOST_STOPS else 0
                return f"at most {self.stops} stop texts"
            case "temperature" | "top_p" if "range" in why.message or "between" in why.message:
                return None  # takes it, but not this value
            case _:
                setattr(self, name, False)
                return f"without {name}"


def is_too_long(why: Problem) -> bool:
    """Whether a refusal says that the prompt does not fit in the model's context."""
    return why.code == "context_length_exceeded" or bool(_TOO_LONG.search(why.message))


def _blames(why: Problem, name: str) -> bool:
    if why.param:
        return why.param.split(".")[0].removeprefix("top_") == name.removeprefix("top_")
    return bool(_NAMED[name].search(why.message)) and bool(_REFUSING.search(why.message))
