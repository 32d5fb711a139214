"""A real small model behind Ray Serve LLM and vLLM."""
