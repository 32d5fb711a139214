"""Compares slices of a run, states differences with intervals, and concludes.

``analyse(run)`` reads ``requests``, ``scores`` and ``cluster`` and writes ``findings.json``;
``compare(baseline, later)`` does the same for two runs. ``docs/statistics.md`` states the methods.
"""
