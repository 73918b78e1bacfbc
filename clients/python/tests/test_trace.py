"""The caller's trace goes along, and nothing does where there is none."""

from __future__ import annotations

from opentelemetry import trace
from test_retries import double, one  # noqa: F401

from mayfly import _trace

TRACE, SPAN = 0x4BF92F3577B34DA6A3CE929D0E0E4736, 0x00F067AA0BA902B7


def within(flags):
    context = trace.SpanContext(TRACE, SPAN, is_remote=False, trace_flags=trace.TraceFlags(flags))
    return trace.use_span(trace.NonRecordingSpan(context))


async def test_the_current_span_is_the_parent_of_an_exchange(double):  # noqa: F811
    assert await one(double)
    assert "traceparent" not in double.metadata[0]
    with within(1):
        assert await one(double)
    assert double.metadata[-1]["traceparent"] == "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def test_what_is_not_sampled_says_so():
    assert _trace.metadata() == ()
    with within(0):
        assert _trace.metadata() == (("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00"),)


def test_without_opentelemetry_nothing_is_said(monkeypatch):
    monkeypatch.setattr(_trace, "_api", None)
    with within(1):
        assert _trace.metadata() == ()
