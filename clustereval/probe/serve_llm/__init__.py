"""The probe for Ray Serve LLM: one line makes an app an observed one.

    from clustereval.probe.serve_llm import observe_app

    app = build_openai_app(observe_app({"llm_configs": [config]}))

``docs/probe.md`` says what is observed. Ray and vLLM are imported when one of these is called.
"""

from clustereval.probe.serve_llm.observe import observe_app, observe_llm

__all__ = ["observe_app", "observe_llm"]
