"""The Ray backend on a real cluster of two nodes on this machine, loopback only."""

from __future__ import annotations

import subprocess
import sys

import pytest
from contract import CHECKS, check_deaths

from posterhall import cluster
from posterhall.embeddings.parameter_server import DistributedSettings, train_encoded
from posterhall.errors import UsageError

ray = pytest.importorskip("ray")

pytestmark = [
    pytest.mark.slow,
    # Ray leaves files and sockets of its own to the garbage collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning:ray.*"),
    pytest.mark.filterwarnings("ignore::FutureWarning:ray.*"),
]


@pytest.fixture(scope="module")
def two_nodes():
    """A cluster of two nodes with one CPU each, and this process connected to it."""
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 1, "object_store_memory": 80 << 20}
    with cluster.loopback(), pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        nodes = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
        nodes.add_node(**node)
        nodes.wait_for_nodes()
        ray.init(address=nodes.address, log_to_driver=False, logging_level="error")
        yield nodes
        ray.shutdown()
        nodes.shutdown()


def test_the_cluster_has_two_nodes_on_the_loopback_address(two_nodes):
    alive = [node for node in ray.nodes() if node["Alive"]]
    assert len(alive) == 2
    assert {node["NodeManagerAddress"] for node in alive} == {"127.0.0.1"}
    assert not cluster.connect(2), "this process is connected already, and stays so"


@pytest.mark.parametrize("check", CHECKS)
def test_ray_trains_the_same_job(small, two_nodes, check):
    check(small, "ray")


def test_a_dead_worker_loses_nothing(small, two_nodes):
    death = check_deaths(small, "ray", lambda fleet, slot: ray.kill(fleet.actors[slot]))
    assert death.reason


def test_more_workers_than_cpus_are_refused(small, two_nodes):
    options = DistributedSettings(backend="ray", workers=5)
    with pytest.raises(UsageError, match="2 CPUs for 5 workers"):
        train_encoded(small.settings(), small.vocabulary, small.encoded, options)
    assert ray.is_initialized()


def test_a_cluster_started_here_listens_on_the_loopback_address_alone():
    code = """
from posterhall import cluster
assert cluster.connect(1)
import ray
print(*{node["NodeManagerAddress"] for node in ray.nodes()})
ray.shutdown()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["127.0.0.1"]
