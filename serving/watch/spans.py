"""Spans of calls for OpenTelemetry, by its standard variables (OTEL_TRACES_EXPORTER, OTEL_EXPORTER_OTLP_ENDPOINT, …).

One span for each call that a variant took: its parent is what the caller's ``traceparent`` names; what it says of the
call, its receipt and its end are attributes, named by the semantic conventions where there are any, else
``serving.…``. Times of the receipt are in microseconds, as in ``X-Serving-Timing``. A shadow's copy is a child of
production's span. A streamed call lasts until its last part. A call that no variant took (429, 503) has no span; its
trace id is in the log.

A span is made when its call has been answered, for some 150 µs of processor time, its sending included (20 µs where it
is not sampled: OTEL_TRACES_SAMPLER); the SDK's batch processor sends it from a thread of its own, holds a
bounded number, and drops what comes while it is full. Sampling, limits, headers and batch sizes are the SDK's to read.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from opentelemetry.context import Context
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SpanExporter
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import Decision
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)

import serving
from serving.errors import ModelError, RequestRefused, ServingError
from serving.types import Invocation, Reply
from serving.watch.observing import Done, Observer
from serving.watch.trace_context import TraceIds, own_ids

#: What a process that ends waits for the last spans to be sent; a receiver that has gone holds nobody up.
_FAREWELL_SECONDS = 3.0
_RECEIPT = ("queue", "load", "decode", "predict", "encode")

log = logging.getLogger("serving.tracing")


class _Ids(RandomIdGenerator):
    """Random ids, but for the next span's if they have been set. For one thread."""

    def __init__(self) -> None:
        self.next_trace = self.next_span = 0

    def generate_trace_id(self) -> int:
        """Of a span without a parent."""
        return self.next_trace or super().generate_trace_id()

    def generate_span_id(self) -> int:
        """Of any."""
        return self.next_span or super().generate_span_id()


def start(process: str, exporters: Sequence[str]) -> Spans:
    """Begin to trace this process's calls; log lines that name a request have its trace id from now on."""
    named = Resource({"service.name": "serving", "service.version": serving.__version__, "serving.process": process})
    ids = _Ids()
    provider = TracerProvider(
        resource=named.merge(OTELResourceDetector().detect()), id_generator=ids, shutdown_on_exit=False
    )
    for name in exporters:
        exporter = _exporter(name)
        if exporter is not None:
            provider.add_span_processor(BatchSpanProcessor(exporter))
    for handler in logging.getLogger().handlers:
        handler.addFilter(TraceIds())
    return Spans(provider, ids, SpanKind.CONSUMER if process == "jobs" else SpanKind.SERVER)


def _exporter(name: str) -> SpanExporter | None:
    if name == "otlp":
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

        return OTLPSpanExporter()
    if name == "console":
        return ConsoleSpanExporter(out=sys.stderr)
    log.error("OTEL_TRACES_EXPORTER=%s is not supported; otlp (by http/protobuf) and console are", name)
    return None


class Spans:
    """The spans of one process."""

    def __init__(self, provider: TracerProvider, ids: _Ids, kind: SpanKind) -> None:
        """``kind``: of a call that is no shadow's copy."""
        self._provider = provider
        self._ids = ids
        self._kind = kind
        self._tracer = provider.get_tracer("serving", serving.__version__)

    def observers(self, row: Mapping[str, Any]) -> tuple[Observer, ...]:
        """See ``Tracing``."""
        return (_Endpoint(self, frozenset(one["name"] for one in row.get("shadows", ()))),)

    def close(self) -> None:
        """See ``Tracing``."""
        closing = threading.Thread(target=self._provider.shutdown, daemon=True)
        closing.start()
        closing.join(_FAREWELL_SECONDS)

    def add(self, call: _Call, error: ServingError | None, reply: Reply | None) -> None:
        """A call has come to its end, now."""
        invocation, is_shadow = call.invocation, call.variant in call.shadows
        trace, span = own_ids(invocation.request_id)
        self._ids.next_trace = trace
        self._ids.next_span = span if call.shadows and not is_shadow else 0  # its copies know it by that
        made = self._tracer.start_span(
            f"invoke {invocation.endpoint}",
            self._parent(invocation, (trace, span), is_shadow),
            SpanKind.INTERNAL if is_shadow else self._kind,
            start_time=call.started,
        )
        if made.is_recording():  # most are not, where a sample is taken
            made.set_attributes(
                _of_call(call) | (_of_error(error) if error else {}) | (_of_reply(reply) if reply else {})
            )
            if error is not None and not _is_callers(error):
                made.set_status(Status(StatusCode.ERROR, error.message))
            made.end()

    def _parent(self, invocation: Invocation, own: tuple[int, int], is_shadow: bool) -> Context:
        given, flags = invocation.traceparent, TraceFlags(TraceFlags.DEFAULT)
        trace = int(given[3:35], 16) if given else own[0]
        if given:
            flags = TraceFlags(int(given[53:55], 16))
        elif self._is_sampled(trace, invocation.endpoint):
            flags = TraceFlags(TraceFlags.SAMPLED)
        if is_shadow:
            return _under(SpanContext(trace, own[1], False, flags))
        return _under(SpanContext(trace, int(given[36:52], 16), True, flags)) if given else Context()

    def _is_sampled(self, trace: int, endpoint: str) -> bool:
        """What is decided of the first span of a trace, which its shadows' copies have to keep to."""
        decided = self._provider.sampler.should_sample(Context(), trace, f"invoke {endpoint}")
        return decided.decision is Decision.RECORD_AND_SAMPLE


def _under(parent: SpanContext) -> Context:
    return set_span_in_context(NonRecordingSpan(parent), Context())


class _Call:
    """What a span needs of a call. ``shadows``: the names of its endpoint's shadow variants."""

    __slots__ = ("invocation", "shadows", "started", "variant")

    def __init__(self, invocation: Invocation, variant: str, shadows: frozenset[str]) -> None:
        self.invocation = invocation
        self.variant = variant
        self.shadows = shadows
        self.started = time.time_ns()


class _Endpoint:
    """Looks on at one endpoint's calls."""

    def __init__(self, spans: Spans, shadows: frozenset[str]) -> None:
        self._spans = spans
        self._shadows = shadows

    def begin(self, invocation: Invocation, variant: str, done: Done) -> Done:
        """See ``Observer``."""
        call, spans = _Call(invocation, variant, self._shadows), self._spans

        def answered(result: Reply | ServingError) -> None:
            done(result)
            if isinstance(result, ServingError):
                spans.add(call, result, None)
            elif result.rest is None:
                spans.add(call, None, result)
            else:
                rest: Any = result.rest  # ``workers/parts.py``, of another floor
                rest.tap(_pass, partial(spans.add, call, None, result))

        return answered


def _pass(part: bytes) -> None:
    """A part of a streamed answer: its span says when it ended, not what it held."""


# --- what a span says -----------------------------------------------------------------------------------------------


def _of_call(call: _Call) -> dict[str, str | int | bool]:
    invocation = call.invocation
    said = {
        "aws.request_id": invocation.request_id,
        "serving.endpoint": invocation.endpoint,
        "serving.variant": call.variant,
        "serving.component": invocation.component,
        "serving.target_model": invocation.target_model,
        "serving.inference_id": invocation.inference_id,
    }
    found: dict[str, str | int | bool] = {name: value for name, value in said.items() if value}
    found["serving.input_bytes"] = len(invocation.body)
    if call.variant in call.shadows:
        found["serving.shadow"] = True
    return found


def _of_reply(reply: Reply) -> dict[str, str | int | bool]:
    times = dict(zip(_RECEIPT, reply.spent, strict=False))
    return {
        "http.response.status_code": 200,
        "serving.output_bytes": len(reply.body),
        "serving.batch": reply.spent[-1],
        "serving.model_in_memory": reply.hit,
        "serving.streamed": reply.rest is not None,
        **{f"serving.{name}_us": value for name, value in times.items()},
        "serving.total_us": int(reply.total * 1e6),
    }


def _is_callers(error: ServingError) -> bool:
    """Is the caller at fault? Then the server's span is no error (OpenTelemetry's conventions for HTTP servers)."""
    if isinstance(error, ModelError):
        return 400 <= error.original_status < 500
    return isinstance(error, RequestRefused)


def _of_error(error: ServingError) -> dict[str, str | int | bool]:
    return {"http.response.status_code": error.status, "error.type": error.code, "serving.error": type(error).__name__}
