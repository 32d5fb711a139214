"""A real model in vLLM behind Ray Serve LLM, with the probe, on CPU or GPU."""
