"""Where a server is, which model of it, and with which key it may be asked."""

from __future__ import annotations

import ipaddress
import os
import re
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, replace
from urllib.parse import parse_qsl, unquote, urlsplit, urlunsplit

from posterhall.errors import DataError

DEFAULT_KEY = "OPENAI_API_KEY"
_ENDINGS = ("/chat/completions", "/completions", "/embeddings", "/models")
_SECRET_NAME = re.compile(r"key|token|secret|password|signature|^sig$", re.IGNORECASE)


class Secret:
    """Text that is never shown: not in messages, not in a traceback that prints variables."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The text itself, for the one place that needs it."""
        return self._value

    def redact(self, text: str) -> str:
        """`text` without the secret in it."""
        return text.replace(self._value, "[key]")

    def __repr__(self) -> str:
        return "Secret(...)"


@dataclass(frozen=True)
class Address:
    """A base URL such as http://localhost:8000/v1, and a model of that server."""

    base: str
    """Without a slash at its end, without a query."""
    model: str
    """Name of the model as the server knows it; empty: the only one it has."""
    query: str = ""
    """What follows the ? in every request (an api-version)."""

    @classmethod
    def parse(cls, text: str, *, model: str | None = None) -> Address:
        """Read ``http://HOST/v1#MODEL``; what is commonly pasted (…/v1/, …/chat/completions) is understood.

        Raises:
            DataError: for what is no http(s) address, or holds a key.
        """
        try:
            parts = urlsplit(text.strip())
            host, _ = parts.hostname, parts.port
        except ValueError as error:
            raise DataError(f"{_without_secrets(text)!r} is no address: {error}") from None
        if parts.scheme.lower() not in ("http", "https") or not host:
            raise DataError(
                f"{_without_secrets(text)!r} is no address of a server; write http://HOST:PORT/v1#MODEL"
            )
        if parts.username is not None or parts.password is not None:
            raise DataError(
                f"{_without_secrets(text)!r} has a user or password in it; put the key into an environment "
                f"variable ({DEFAULT_KEY}, or one named with api_key_env) and leave it out of the address"
            )
        for name, _ in parse_qsl(parts.query, keep_blank_values=True):
            if _SECRET_NAME.search(name):
                raise DataError(
                    f"{_without_secrets(text)!r}: the parameter {name!r} looks like a key; put it into an "
                    f"environment variable ({DEFAULT_KEY}, or one named with api_key_env)"
                )
        named = unquote(parts.fragment)
        if model is not None and named and named != model:
            raise DataError(f"the address names the model {named!r}, and model= says {model!r}; give one")
        path = parts.path.rstrip("/")
        for ending in _ENDINGS:
            path = path.removesuffix(ending).rstrip("/")
        netloc = parts.netloc.lower()
        base = urlunsplit((parts.scheme.lower(), netloc, path, "", ""))
        return cls(base, named if model is None else model, parts.query)

    def __str__(self) -> str:
        query = f"?{self.query}" if self.query else ""
        return f"{self.base}{query}#{self.model}" if self.model else f"{self.base}{query}"

    def url(self, path: str) -> str:
        """Of one endpoint, as ``/chat/completions``."""
        return f"{self.base}{path}?{self.query}" if self.query else f"{self.base}{path}"

    @property
    def identity(self) -> str:
        """The same for the ways in which one server is commonly written."""
        return str(replace(self, base=re.sub(r"(/api)?/v1$", "", self.base)))

    @property
    def is_local(self) -> bool:
        """Whether it is this machine, by its name or number."""
        host = urlsplit(self.base).hostname or ""
        if host == "localhost" or host.endswith(".localhost"):
            return True
        try:
            return ipaddress.ip_address(host).is_loopback
        except ValueError:
            return False

    def alternatives(self) -> list[str]:
        """Base URLs that may have been meant, where nothing is found at this one."""
        if self.base.endswith("/v1"):
            return []
        return [f"{self.base}/v1", f"{self.base}/api/v1"]

    def key(self, variable: str | None, environ: Mapping[str, str] | None = None) -> Secret | None:
        """The key to send, from the environment.

        A variable that was named is used wherever the server is. The usual one is not sent in the clear over
        a network: a wrong address would give the key away.
        """
        environ = os.environ if environ is None else environ
        if variable is not None:
            value = environ.get(variable, "").strip()
            if not value:
                raise DataError(
                    f"api_key_env is {variable!r}, and no environment variable of that name is set; "
                    f"write: export {variable}=... (the name of a variable is wanted, not the key itself)"
                    if re.fullmatch(r"[A-Za-z_]\w*", variable)
                    else "api_key_env must be the name of an environment variable, not the key itself"
                )
        else:
            value = environ.get(DEFAULT_KEY, "").strip()
            if not value or not (self.is_local or self.base.startswith("https://")):
                return None
        if not value.isascii() or not value.isprintable():
            raise DataError(
                f"the environment variable {variable or DEFAULT_KEY} holds characters that no key has "
                "(a line end or an accent); set it anew"
            )
        return Secret(value)

    def proxy(self) -> str | None:
        """The proxy that the environment names for this host; none for this machine.

        Raises:
            DataError: for one that is no http(s) proxy.
        """
        if self.is_local:
            return None
        parts = urlsplit(self.base)
        proxies = urllib.request.getproxies()
        if urllib.request.proxy_bypass(parts.hostname or ""):
            return None
        proxy = proxies.get(parts.scheme) or proxies.get("all")
        if proxy and not proxy.lower().startswith(("http://", "https://")):
            raise DataError(
                f"the environment names the proxy {_without_secrets(proxy)!r} for {parts.scheme}; only "
                f"http(s) proxies can be used. Set {parts.scheme}_proxy, or no_proxy={parts.hostname}"
            )
        return proxy or None


def _without_secrets(text: str) -> str:
    """An address fit to be shown: no user, no password, no values of parameters."""
    text = re.sub(r"//[^/@\s]*@", "//[key]@", text.strip())
    return re.sub(r"([?&][^=&#]*=)[^&#]*", r"\1[...]", text)
