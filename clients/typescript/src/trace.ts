/**
 * The trace that a call belongs to (W3C Trace Context), if `@opentelemetry/api` is installed and has one.
 *
 * @module
 */
import { createRequire } from 'node:module';
import { Metadata } from '@grpc/grpc-js';

/** The part of `@opentelemetry/api` that is used here. The package is optional. */
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

/** The trace headers of a call: the `traceparent` of the active span, or nothing. */
export function traceMetadata(): Metadata {
  const metadata = new Metadata();
  const span = api?.trace.getActiveSpan()?.spanContext();
  if (api && span && api.isSpanContextValid(span)) {
    metadata.set('traceparent', `00-${span.traceId}-${span.spanId}-0${span.traceFlags & 1}`);
  }
  return metadata;
}
