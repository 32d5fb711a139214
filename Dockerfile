# The tester alone: it drives a remote cluster, so it needs neither Ray nor vLLM.
FROM python:3.11-slim
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY clustereval ./clustereval
COPY serve_apps ./serve_apps
COPY scenarios ./scenarios
RUN pip install --no-cache-dir . && useradd --create-home --uid 10001 runner
USER 10001
WORKDIR /home/runner
ENTRYPOINT ["clustereval"]
CMD ["--help"]
