/**
 * The trace that a call belongs to (W3C Trace Context), where `@opentelemetry/api` is installed and says one.
 *
 * @module
 */
import { createRequire } from 'node:module';
import { Metadata } from '@grpc/grpc-js';

/** What is asked of `@opentelemetry/api`, which is no requirement of ours. */
interface Api {
  trace: { getActiveSpan(): { spanContext(): { traceId: string; spanId: string; traceFlags: number } } | undefined };
  isSpanContextValid(context: { traceId: string; spanId: string; traceFlags: number }): boolean;
}

function installed(): Api | undefined {
  try {
    return createRequire(import.meta.url)('@opentelemetry/api') as Api;
  } catch {
    return undefined;
  }
}

const api = installed();

/** What goes with a call: the `traceparent` of the active span, or nothing. */
export function traceMetadata(): Metadata {
  const metadata = new Metadata();
  const span = api?.trace.getActiveSpan()?.spanContext();
  if (api && span && api.isSpanContextValid(span)) {
    metadata.set('traceparent', `00-${span.traceId}-${span.spanId}-0${span.traceFlags & 1}`);
  }
  return metadata;
}
