"""``python -m clustereval.cli``: the same as ``clustereval``."""

from clustereval.cli import main

main()
