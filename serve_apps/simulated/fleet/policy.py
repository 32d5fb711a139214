"""Ray Serve's default autoscaling policy (``ray.serve.autoscaling_policy`` of Ray 2.60), compiled.

A test holds it against Ray's own functions.
"""

from __future__ import annotations

import math

from serve_apps.simulated.fleet.compiled import entry
from serve_apps.simulated.fleet.state import Record

_EPSILON_S = 1e-6


@entry
def desired(total_requests: float, running: int, target: int, limits: Record) -> int:
    """Replicas that the demand asks for, scaling factors applied, before delays and bounds.

    Args:
        total_requests: ongoing and queued, averaged over the look-back period.
        running: replicas that take requests. target: those asked for now.
    """
    if running == 0:
        if total_requests > 0:
            return int(max(math.ceil(limits.upscaling_factor), target))
        return target
    wanted = total_requests / limits.target_ongoing
    factor = limits.upscaling_factor if wanted > running else limits.downscaling_factor
    scaled = math.ceil(running + factor * (wanted - running))
    if math.ceil(wanted) < running and scaled == running:
        scaled -= 1
    return int(max(0, scaled))


@entry
def decide(
    wanted: int, target: int, direction: int, since_s: float, now_s: float, limits: Record
) -> tuple[int, int, float]:
    """The target after the delays, and the policy's state: where it leans, and since when.

    Args:
        direction: 1 up, -1 down, 0 neither: the state before. since_s: since when.

    Returns:
        (target within its bounds, direction, since when).
    """
    decision = target
    if wanted > target:
        if direction != 1:
            direction, since_s = 1, now_s
        if now_s - since_s + _EPSILON_S >= limits.upscale_delay_s:
            direction, decision = 0, wanted
    elif wanted < target:
        if direction != -1:
            direction, since_s = -1, now_s
        if now_s - since_s + _EPSILON_S >= limits.downscale_delay_s:
            direction = 0
            decision = wanted if target == 1 else max(1, wanted)
    else:
        direction = 0
    return min(max(decision, limits.min_replicas), limits.max_replicas), direction, since_s
