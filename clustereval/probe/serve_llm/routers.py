"""Router classes with pinning over any other, found by name.

Serve imports a request router by its path. ``clustereval.probe.serve_llm.routers:a/b/C`` is the
class ``C`` of module ``a.b`` with pinning over it.
"""

from __future__ import annotations

import functools
import importlib
import sys
import types
from typing import Any

from clustereval.probe.router import pinning_over


def observed_path(router_path: str) -> str:
    """The path of the observed class over the one with this path (``a.b.C`` or ``a.b:C``)."""
    return f"{__name__}:{router_path.replace(':', '.').replace('.', '/')}"


@functools.cache
def _over(name: str) -> Any:
    module, _, attribute = name.rpartition("/")
    base = getattr(importlib.import_module(module.replace("/", ".")), attribute)
    namespace = {"__module__": __name__, "__qualname__": name, "__doc__": base.__doc__}
    return types.new_class(attribute, pinning_over(base), {}, lambda ns: ns.update(namespace))


def serialize_whole(config: Any) -> None:
    """Sends the user's own class along where Ray would: it may not be importable everywhere."""
    from ray import cloudpickle

    name = config.request_router_class.rpartition(":")[2]
    module = sys.modules[name.rpartition("/")[0].replace("/", ".")]
    if module.__name__.split(".")[0] in ("ray", "clustereval", "__main__"):
        return
    cloudpickle.register_pickle_by_value(module)
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    try:
        config.set_serialized_request_router_cls(cloudpickle.dumps(_over(name)))
    finally:
        cloudpickle.unregister_pickle_by_value(module)
        cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


def __getattr__(name: str) -> Any:
    if "/" not in name:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return _over(name)
