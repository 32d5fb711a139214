"""The probe for Ray Serve LLM: one line makes an app an observed one.

In Python::

    from clustereval.probe.serve_llm import observe_app

    app = build_openai_app(observe_app({"llm_configs": [config]}))

In the YAML that ``serve deploy`` takes, where ``ray.serve.llm:build_openai_app`` stood::

    import_path: clustereval.probe.serve_llm:build_openai_app

``docs/probe.md`` says what is observed. Ray and vLLM are imported when one of these is called.
"""

from clustereval.probe.serve_llm.observe import build_openai_app, observe_app, observe_llm

__all__ = ["build_openai_app", "observe_app", "observe_llm"]
