"""``python -m clustereval`` is the command ``clustereval``."""

from clustereval.cli import main

if __name__ == "__main__":
    main()
