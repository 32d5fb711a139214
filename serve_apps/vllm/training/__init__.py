"""Trains the small model of ``serve_apps/vllm/model``: ``python -m serve_apps.vllm.training``.

Needs a clone (the data come from ``scenarios.golden``), and torch and transformers, which
``make install-vllm`` brings. Nothing here runs in a replica.
"""
