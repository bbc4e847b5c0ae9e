"""DistBelief's Downpour SGD (Dean et al. 2012): workers around a sharded parameter server.

A table of parameters is cut into shards (`placement`, `shards`); workers lease chunks of the corpus from
a coordinator (`coordinator`), pull the rows they need, train a private copy and push the difference
(`replica`). Threads, processes on shared memory, Ray actors and a simulator run the same code.
"""

from posterhall.embeddings.parameter_server.placement import Placement, Table
from posterhall.embeddings.parameter_server.settings import Death, DistributedReport, DistributedSettings
from posterhall.embeddings.parameter_server.shards import Push, Rule, Shard, coalesce
from posterhall.embeddings.parameter_server.simulator import Simulation, Timing, simulate, simulate_task
from posterhall.embeddings.parameter_server.tasks import Classifier
from posterhall.embeddings.parameter_server.training import (
    DistributedResult,
    Downpour,
    train_distributed,
    train_encoded,
)

__all__ = [
    "Classifier",
    "Death",
    "DistributedReport",
    "DistributedResult",
    "DistributedSettings",
    "Downpour",
    "Placement",
    "Push",
    "Rule",
    "Shard",
    "Simulation",
    "Table",
    "Timing",
    "coalesce",
    "simulate",
    "simulate_task",
    "train_distributed",
    "train_encoded",
]
