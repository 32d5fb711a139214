"""What runs inside replicas: says with each response where it was served, and under which load.

    from clustereval.probe import ProbeMiddleware

    app.add_middleware(ProbeMiddleware)

Small on purpose: standard library and :mod:`clustereval.core` names; Ray and OpenTelemetry are
used where the process already has them. ``docs/probe.md`` states the wire format.
"""

from clustereval.probe.middleware import ProbeMiddleware

__all__ = ["ProbeMiddleware"]
