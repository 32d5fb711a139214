"""A small OpenAI-compatible server with known times, to measure load generators with.

It answers any request with the same tokens, and notes for each when its bytes arrived and when it
wrote what: the truth that a load generator's numbers are held against.
"""
