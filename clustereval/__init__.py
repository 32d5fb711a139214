"""clustereval: what an LLM on Ray Serve answers under load, not only how fast.

For notebooks::

    from clustereval import Run

    run = Run.open("reports/prelaunch-20260101-120000")
    run.requests, run.scores, run.cluster  # DataFrames
    run.findings.verdict.sentence  # objects
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from clustereval.rundir import Run

__all__ = ["Run", "__version__"]
__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    # Lazy, so that `clustereval.probe` inside a replica does not load pandas.
    if name == "Run":
        from clustereval.rundir import Run

        return Run
    raise AttributeError(name)
