"""Why an arrival was not sent though it was due: too many others had no answer yet."""

from __future__ import annotations

from typing import Final

MAX_IN_FLIGHT: Final = "max_in_flight"
"""``error_type`` of an arrival for which ``request.max_in_flight`` others had no answer: the
target's failure."""

PROCESS_IN_FLIGHT: Final = "process_in_flight"
"""``error_type`` of one that its load process had no room for though all processes together had:
the load generator's. A process knows its own requests only, so the join tells the two apart."""
