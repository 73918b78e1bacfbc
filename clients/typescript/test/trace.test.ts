// The caller's trace goes along, and nothing does where there is none.
import assert from 'node:assert/strict';
import { AsyncLocalStorage } from 'node:async_hooks';
import { test } from 'node:test';
import { ROOT_CONTEXT, context, trace, type Context, type ContextManager } from '@opentelemetry/api';
import { traceMetadata } from '#dist/trace.js';

/** As that of OpenTelemetry's SDK, which is not needed here. */
class Contexts implements ContextManager {
  readonly #current = new AsyncLocalStorage<Context>();
  active = () => this.#current.getStore() ?? ROOT_CONTEXT;
  with<A extends unknown[], F extends (...args: A) => ReturnType<F>>(on: Context, work: F, self?: ThisParameterType<F>, ...args: A): ReturnType<F> {
    return this.#current.run(on, () => work.call(self as never, ...args));
  }
  bind = <T>(_: Context, target: T) => target;
  enable = () => this;
  disable = () => this;
}

test('the active span is the parent of a call, sampled or not', async () => {
  assert.deepEqual(traceMetadata().getMap(), {});
  context.setGlobalContextManager(new Contexts());
  for (const [flags, said] of [[1, '01'], [0, '00']] as const) {
    const span = trace.wrapSpanContext({ traceId: '4bf92f3577b34da6a3ce929d0e0e4736', spanId: '00f067aa0ba902b7', traceFlags: flags });
    await context.with(trace.setSpan(ROOT_CONTEXT, span), async () => {
      await Promise.resolve();
      const parent = `00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-${said}`;
      assert.deepEqual(traceMetadata().getMap(), { traceparent: parent });
    });
  }
  const nobody = trace.wrapSpanContext({ traceId: '0'.repeat(32), spanId: '00f067aa0ba902b7', traceFlags: 1 });
  context.with(trace.setSpan(ROOT_CONTEXT, nobody), () => assert.deepEqual(traceMetadata().getMap(), {}));
});
