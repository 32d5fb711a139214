"""What every stage agrees on: the scenario, the row, the finding, the names on the wire.

Nothing here imports another part of clustereval, Ray, Locust or plotly.
"""
