"""Who a replica says that it is."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import ray
from ray import serve

from clustereval.core import wire
from clustereval.probe.identity import Identity, current_rank, identify
from clustereval.probe.replica import ReplicaProbe


def test_a_serve_replica_is_named_as_ray_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Id, node and rank are Ray's own, and the rank that of the moment; they become headers."""
    context = SimpleNamespace(
        replica_tag="abc", app_name="app", deployment="Model", rank=SimpleNamespace(rank=2)
    )
    node = SimpleNamespace(get_node_id=lambda: "node-7")
    monkeypatch.setattr(serve, "get_replica_context", lambda: context)
    monkeypatch.setattr(ray, "get_runtime_context", lambda: node)
    identity = identify()
    assert identity == Identity("abc", "node-7", "Model", "app#Model")
    probe = ReplicaProbe()
    probe._identity = identity  # as if begun: there is no cluster for a board
    for rank in (2, 1):
        context.rank.rank = rank
        observed = probe.observe()
        named = (wire.REPLICA_ID, wire.NODE_ID, wire.REPLICA_RANK)
        assert tuple(observed[name] for name in named) == ("abc", "node-7", rank)


def test_what_is_no_serve_replica_is_named_by_host_and_process() -> None:
    """No node and no rank are made up."""
    identity = identify()
    assert (identity.node_id, identity.group, current_rank()) == (None, None, None)
    assert identity.replica_id
