"""A simulated LLM behind a real Ray Serve application: real cluster, real HTTP, invented model.

Everything it sends says so: the model is named ``simulated``, ``system_fingerprint`` is
``simulated``, and each response carries ``x-clustereval-simulated: 1``.
"""
