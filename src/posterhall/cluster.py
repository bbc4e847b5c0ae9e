"""Join a Ray cluster, or start one on this machine.

Ray has no authentication: whoever reaches its ports runs code. A cluster started here listens on the
loopback address and has no dashboard; do not expose one that you start yourself.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from types import ModuleType

from posterhall.extras import require

_STORE_BYTES = 256 << 20
"""Least size of the object store of a cluster started here."""


def ray(purpose: str) -> ModuleType:
    """Ray itself.

    Raises:
        MissingExtra: if it is not installed; `purpose` completes "... needs the extra".
    """
    module: ModuleType = require("ray", "cluster", purpose)
    return module


@contextlib.contextmanager
def loopback() -> Iterator[None]:
    """Let Ray nodes that are started here listen on the loopback address alone.

    Ray takes a given 127.0.0.1 for a mistake and puts the machine's own address in its place, unless it
    is told that there are no clusters, as it is on laptops with other systems.
    """
    from ray._private import ray_constants as constants

    name = constants.ENABLE_RAY_CLUSTERS_ENV_VAR
    before, set_before = constants.ENABLE_RAY_CLUSTER, os.environ.get(name)
    constants.ENABLE_RAY_CLUSTER = False  # read when Ray was imported
    os.environ[name] = "0"  # for the processes that it starts
    try:
        yield
    finally:
        constants.ENABLE_RAY_CLUSTER = before
        if set_before is None:
            del os.environ[name]
        else:
            os.environ[name] = set_before


def connect(workers: int, *, address: str | None = None, store_bytes: int = 0) -> bool:
    """Join the cluster at an address, or start one on the loopback address.

    Args:
        workers: CPUs of a cluster started here.
        address: of a cluster; None uses the one this process is connected to, else starts one.
        store_bytes: what the object store of a cluster started here must hold at once.

    Returns:
        Whether this process was connected by this call, and is to disconnect (`ray.shutdown()`) in the end.

    Raises:
        MissingExtra: without Ray.
    """
    module = ray("a Ray cluster")
    if module.is_initialized():
        return False
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is reported to anybody unless asked for
    if address is not None:
        module.init(address=address, log_to_driver=False, logging_level="error")
    else:
        with loopback():
            module.init(
                address="local",
                num_cpus=workers,
                include_dashboard=False,
                object_store_memory=max(store_bytes, _STORE_BYTES),
                log_to_driver=False,
                logging_level="error",
            )
    return True
