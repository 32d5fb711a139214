"""A clustereval scenario for plain Locust, web UI included::

    export CLUSTEREVAL_MODEL=llama-70b
    locust -f scenarios/locustfile.py --host https://staging/v1

The scenario is ``prelaunch.yaml`` beside this file, or the one that ``CLUSTEREVAL_SCENARIO`` names.
Each test makes a run folder under ``reports/``, on which ``clustereval score`` works afterwards.
Further settings: ``CLUSTEREVAL_API_KEY_ENV`` (name of the variable with the API key),
``CLUSTEREVAL_SEED``, ``CLUSTEREVAL_OUT``, ``CLUSTEREVAL_REPLICAS`` (for pinned sweeps).

With Locust's ``--processes N``, or ``--master --expect-workers N`` and ``--worker`` elsewhere,
each worker replays its share of the plan; scenario and settings are the master's, and each worker
needs the API keys in its own environment (``docs/load.md``).

Users and spawn rate of the web UI have no meaning here: the scenario says what is sent when.
"""

import os
from pathlib import Path

from clustereval.load.locust_engine import replay_user

ReplayUser = replay_user(os.environ, Path(__file__).with_name("prelaunch.yaml"))
