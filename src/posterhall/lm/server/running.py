"""Running the application: an address, signals, an orderly end."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import signal
from collections.abc import AsyncIterator, Callable, Mapping

from aiohttp import web

from posterhall.errors import DataError
from posterhall.lm.protocol import LM
from posterhall.lm.server.app import application

PATIENCE = 30.0
"""Seconds that requests under way have to end when the server is stopped."""


def is_loopback(host: str) -> bool:
    """Whether only programs of this machine reach an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@contextlib.asynccontextmanager
async def running(
    models: Mapping[str, LM],
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    token: str | None = None,
    patience: float = PATIENCE,
) -> AsyncIterator[str]:
    """A server for as long as the block lasts; the value is its address, as http://127.0.0.1:8000/v1.

    Args:
        models: by the names that clients give.
        host: the address to listen at.
        port: 0 takes a free one.
        token: the bearer token that clients must send.
        patience: seconds that requests under way have to end, >= 0.

    Raises:
        DataError: if the address cannot be had.
    """
    runner = web.AppRunner(
        application(models, token=token),
        handler_cancellation=True,  # who goes away has nothing generated any more
        shutdown_timeout=patience,
        access_log=None,
    )
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port)
        try:
            await site.start()
        except (OSError, OverflowError) as error:
            why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            raise DataError(
                f"cannot listen at {host}:{port}: {why}; give another --port (0 takes a free one) or --host"
            ) from None
        taken = runner.addresses[0]
        shown = f"[{taken[0]}]" if ":" in taken[0] else taken[0]
        yield f"http://{shown}:{taken[1]}/v1"
    finally:
        await runner.cleanup()


def serve(
    models: Mapping[str, LM],
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    token: str | None = None,
    patience: float = PATIENCE,
    started: Callable[[str], None] | None = None,
) -> None:
    """Serve models until SIGINT or SIGTERM; a second signal ends requests under way at once.

    Args:
        models, host, port, token, patience: see `running`.
        started: told the address once clients can connect.
    """
    asyncio.run(_serve(models, host, port, token, patience, started))


async def _serve(
    models: Mapping[str, LM],
    host: str,
    port: int,
    token: str | None,
    patience: float,
    started: Callable[[str], None] | None,
) -> None:
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    this = asyncio.current_task()

    def stop() -> None:
        if stopped.is_set() and this is not None:
            this.cancel()
        stopped.set()

    for each in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(each, stop)
    try:
        async with running(models, host=host, port=port, token=token, patience=patience) as address:
            if started is not None:
                started(address)
            await stopped.wait()
    except asyncio.CancelledError:
        if not stopped.is_set():
            raise
    finally:
        for each in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(each)
        await asyncio.gather(*(lm.aclose() for lm in models.values()))
