//! What is not traced costs nothing: no allocation, whatever its caller says. In a test of its own, since all of the process is counted.

use std::alloc::System as Allocator;

use mayfly::system::{Stopwatch, System};
use mayfly::trace::{CallTrace, Tracer, TracerSettings};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static GLOBAL: &StatsAlloc<Allocator> = &INSTRUMENTED_SYSTEM;

const NOT: &[u8] = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";
const ASKED: &[u8] = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const PATH: &str = "/mayfly.v1.TokenService/Exchange";

/// All that an exchange does with its trace, on its own and on a stream.
fn exchange(tracer: &std::sync::Arc<Tracer>, traceparent: Option<&[u8]>) -> bool {
    let call = tracer.call(traceparent, PATH, Stopwatch::start());
    let stream = tracer.stream(traceparent, PATH, Stopwatch::start());
    let one = tracer.on_stream(&stream, PATH, Stopwatch::start());
    for traced in [&call, &one] {
        traced.note(|| vec![("mayfly.caller", "nobody".into())]);
        traced.since_its_begin("turn");
        drop(traced.span("decide"));
        traced.waits("durable");
        traced.waited(Vec::new);
        traced.within(|| drop(CallTrace::part("below")));
        traced.end(0, "");
        traced.end_one(0, "");
    }
    call.is_sampled() || one.is_sampled()
}

#[test]
fn a_call_that_is_not_traced_allocates_nothing() {
    let off = Tracer::new(TracerSettings::default(), System::real());
    let on = Tracer::new(TracerSettings { traces: true, per_million: 0, per_second: 10, log_calls: false }, System::real());
    // Once before: what a thread makes for itself is made once.
    exchange(&on, Some(NOT));
    let _ = System::real().id16();
    for (tracer, header) in
        [(&off, None), (&off, Some(NOT)), (&off, Some(ASKED)), (&on, None), (&on, Some(NOT)), (&on, Some(b"x"))]
    {
        let region = Region::new(GLOBAL);
        let sampled = (0..1_000).filter(|_| exchange(tracer, header)).count();
        let change = region.change();
        assert_eq!((sampled, change.allocations, change.reallocations), (0, 0, 0), "{header:?}");
    }
    let drawing = Tracer::new(TracerSettings { traces: true, per_million: 1, per_second: 10, log_calls: false }, System::real());
    let region = Region::new(GLOBAL);
    let sampled = (0..1_000).filter(|_| exchange(&drawing, None)).count();
    assert!(sampled > 0 || region.change().allocations == 0, "nor one that was drawn and lost");
    let region = Region::new(GLOBAL);
    assert!(exchange(&on, Some(ASKED)) && region.change().allocations > 0, "this test can fail");
}
