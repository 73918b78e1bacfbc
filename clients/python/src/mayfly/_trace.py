"""The trace context of a call (W3C Trace Context), where `opentelemetry-api` is installed and has a current span."""

from __future__ import annotations

try:
    from opentelemetry import trace as _api
except ImportError:  # OpenTelemetry is optional.
    _api = None  # type: ignore[assignment]


def metadata() -> tuple[tuple[str, str], ...]:
    """The metadata of a call: the `traceparent` of the current span, or nothing."""
    if _api is None:
        return ()
    span = _api.get_current_span().get_span_context()
    if not span.is_valid:
        return ()
    return (("traceparent", f"00-{span.trace_id:032x}-{span.span_id:016x}-{span.trace_flags & 1:02x}"),)
