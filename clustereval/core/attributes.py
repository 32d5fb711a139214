"""Span attribute names, kept in one place because the GenAI conventions still change.

Source: OpenTelemetry ``semantic-conventions-genai`` (status *Development*), and the aliases that
Ray Serve guides use.
"""

from __future__ import annotations

from typing import Final

OPERATION: Final = "gen_ai.operation.name"
PROVIDER: Final = "gen_ai.provider.name"
REQUEST_MODEL: Final = "gen_ai.request.model"
REQUEST_MAX_TOKENS: Final = "gen_ai.request.max_tokens"
REQUEST_TEMPERATURE: Final = "gen_ai.request.temperature"
REQUEST_SEED: Final = "gen_ai.request.seed"
REQUEST_STREAM: Final = "gen_ai.request.stream"
RESPONSE_ID: Final = "gen_ai.response.id"
FINISH_REASONS: Final = "gen_ai.response.finish_reasons"
TIME_TO_FIRST_CHUNK: Final = "gen_ai.response.time_to_first_chunk"
INPUT_TOKENS: Final = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS: Final = "gen_ai.usage.output_tokens"
CACHED_TOKENS: Final = "gen_ai.usage.cache_read.input_tokens"
CONVERSATION_ID: Final = "gen_ai.conversation.id"
ERROR_TYPE: Final = "error.type"
HTTP_STATUS: Final = "http.response.status_code"

# Aliases that Ray Serve guides use.
REPLICA_ID: Final = "ray.serve.replica_id"
DEPLOYMENT: Final = "ray.serve.deployment_name"
REPLICA_COUNT: Final = "cluster.replica_count"
QUEUE_DEPTH: Final = "cluster.queue_depth"
CACHE_HIT_RATIO: Final = "llm.vllm.cache_hit_ratio"
TENANT: Final = "tenant_id"

# Ours: what no convention names yet.
REQUEST_ID: Final = "clustereval.request_id"
RUN: Final = "clustereval.run"
PHASE: Final = "clustereval.phase"
PROMPT_ID: Final = "clustereval.prompt_id"
OUTCOME: Final = "clustereval.outcome"
LATE_S: Final = "clustereval.late_s"
CANCELLED: Final = "clustereval.cancelled"
REPLICA_RANK: Final = "clustereval.replica_rank"
REPLICA_AGE_S: Final = "clustereval.replica_age_s"
REPLICA_QUEUE_DEPTH: Final = "clustereval.replica_queue_depth"
OBSERVED_BY: Final = "clustereval.observed_by"
ROUTER_QUEUE_DEPTH: Final = "clustereval.router_queue_depth"
ROUTER_WAIT_S: Final = "clustereval.router_wait_s"
ENGINE_QUEUE_S: Final = "clustereval.engine_queue_s"
ENGINE_PREFILL_S: Final = "clustereval.engine_prefill_s"
