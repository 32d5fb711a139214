"""What a run shows while it runs: a live panel in a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from clustereval.load.arrivals import PhaseSummary
from clustereval.load.progress import Progress as LoadState

_LINE_EVERY_S = 10.0
_BAR = 24


class Display:
    """Draws the stages of one run on ``console`` (stderr, so that stdout stays the result)."""

    def __init__(self, console: Console):
        self._console = console
        self._phases: list[PhaseSummary] = []
        self._stage = ""
        self._stage_since = time.monotonic()
        self._state: LoadState | None = None
        self._last_line = 0.0
        self._live: Live | None = None

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live = Live(
                get_renderable=self._render, console=self._console, transient=True,
                refresh_per_second=4,
            )  # fmt: skip
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.stop()

    # -- pipeline.Progress ---------------------------------------------------------------

    def stage(self, text: str) -> None:
        self._finish_stage()
        self._stage, self._stage_since = text, time.monotonic()
        if self._live is None:
            self._say(f"· {text}")

    def plan(self, phases: list[PhaseSummary]) -> None:
        self._phases = phases
        for phase in phases:
            self._say(
                f"    {phase.name:<14} {phase.start_s:6.0f} to {phase.end_s:4.0f} s "
                f"{phase.count:6d} requests",
            )

    def sees(self, text: str) -> None:
        self._say(f"    {text}")

    def load(self, state: LoadState) -> None:
        self._state = state
        now = time.monotonic()
        if self._live is None and now - self._last_line >= _LINE_EVERY_S:
            self._last_line = now
            self._say("    " + self._counts(state))

    def note(self, text: str) -> None:
        self._say(f"! {text}")

    # -- drawing -------------------------------------------------------------------------

    def _say(self, text: str) -> None:
        # Text, never markup: names of phases and messages of servers are data.
        self._console.print(Text(text), soft_wrap=True)

    def _finish_stage(self) -> None:
        if self._live is not None and self._stage:
            took = time.monotonic() - self._stage_since
            self._say(f"✓ {self._stage} ({took:.1f} s)")

    def _counts(self, state: LoadState) -> str:
        parts = [
            f"{state.elapsed_s:.0f}/{state.end_due_s:.0f} s",
            f"{state.phase or '-'}",
            f"{state.ended}/{state.planned} ended",
            f"{state.in_flight} in flight",
        ]
        parts += [
            f"{count} {outcome}"
            for outcome, count in state.outcomes.items()
            if count or outcome == "ok"
        ]
        if state.ttft_p50_s is not None and state.ttft_p99_s is not None:
            parts.append(
                f"TTFT p50 {state.ttft_p50_s * 1e3:.0f} p99 {state.ttft_p99_s * 1e3:.0f} ms"
            )
        return ", ".join(parts)

    def _render(self) -> Group:
        spent = time.monotonic() - self._stage_since
        head = Text(f"… {self._stage} ({spent:.0f} s)")
        if self._state is None or not self._phases or not self._stage.startswith("sending"):
            return Group(head)
        table = Table.grid(padding=(0, 1))
        for phase in self._phases:
            share = (self._state.elapsed_s - phase.start_s) / max(phase.end_s - phase.start_s, 1e-9)
            filled = round(_BAR * min(max(share, 0.0), 1.0))
            mark = "✓" if share >= 1 else "›" if share > 0 else " "
            table.add_row(
                Text(f"  {mark} {phase.name}"), Text("█" * filled + "░" * (_BAR - filled)),
                Text(f"{phase.count} requests", justify="right"),
            )  # fmt: skip
        return Group(head, table, Text("  " + self._counts(self._state)))
