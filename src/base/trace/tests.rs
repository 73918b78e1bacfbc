//! Tests which calls are traced, what their spans contain, and that other calls produce nothing.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::context::TraceContext;
use super::{Span, SpanKind, SpanValue, Tracer, TracerSettings, current};
use crate::limits;
use crate::refusal::{Error, Fault, Reason, Refusal};
use crate::system::{ManualClock, Stopwatch, System};
use mayfly_verify::seq::Millis;

const PATH: &str = "/mayfly.v1.TokenService/Exchange";
const ASKED: &[u8] = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const NOT: &[u8] = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";

fn tracer(wanted: TracerSettings) -> (Arc<Tracer>, Arc<ManualClock>) {
    let clock = ManualClock::at(Millis(1_795_161_600_000));
    (Tracer::new(wanted, System::with_clock(clock.clone())), clock)
}

fn traces(per_million: u64, per_second: u64) -> TracerSettings {
    TracerSettings { traces: true, per_million, per_second, log_calls: false }
}

fn told(tracer: &Tracer) -> Vec<Span> {
    tracer.queue().take(usize::MAX)
}

fn text(span: &Span, key: &str) -> Option<String> {
    span.attributes.iter().find(|(known, _)| *known == key).map(|(_, value)| match value {
        SpanValue::Text(text) => text.clone(),
        SpanValue::Number(number) => number.to_string(),
    })
}

#[test]
fn a_callers_flag_is_obeyed_and_without_one_the_ratio_draws() {
    let (tracer, _) = tracer(traces(0, 1_000));
    let call = |header| tracer.call(header, PATH, Stopwatch::start());
    assert!(call(Some(ASKED)).is_sampled());
    let not = call(Some(NOT));
    assert!(
        !not.is_sampled() && not.text().as_deref() == Some("4bf92f3577b34da6a3ce929d0e0e4736"),
        "its id is known all the same"
    );
    assert!(call(None).is_nothing() && call(Some(b"00-nonsense-01")).is_nothing());
    let (all, _) = self::tracer(traces(1_000_000, 1_000));
    assert!(all.call(None, PATH, Stopwatch::start()).is_sampled());
    assert!(!all.call(Some(NOT), PATH, Stopwatch::start()).is_sampled(), "whoever says no is not drawn");
    let (half, clock) = self::tracer(traces(500_000, 1_000));
    let drawn = (0..4_000)
        .filter(|_| {
            clock.advance(10);
            half.call(None, PATH, Stopwatch::start()).is_sampled()
        })
        .count();
    assert!((1_700..2_300).contains(&drawn), "{drawn} of 4000");
}

#[test]
fn one_caller_who_asks_for_all_gets_the_rate_and_takes_nothing_from_the_ratio() {
    let (tracer, clock) = tracer(traces(1_000_000, 5));
    let asked = |header| (0..50).filter(|_| tracer.call(header, PATH, Stopwatch::start()).is_sampled()).count();
    assert_eq!((asked(Some(ASKED)), asked(None)), (5, 5));
    assert_eq!(tracer.queue().counts().over_rate.load(Relaxed), 90);
    clock.advance(1_000);
    assert_eq!(asked(Some(ASKED)), 5);
}

#[test]
fn a_call_is_told_with_its_parts_below_it_and_its_caller_above() {
    let (tracer, _) = tracer(traces(0, 10));
    let call = tracer.call(Some(ASKED), PATH, Stopwatch::start());
    call.note(|| vec![("mayfly.caller", "spiffe://a/b".into()), ("mayfly.seq", 1u64.into())]);
    call.since_its_begin("turn");
    let mut part = call.span("decide");
    assert!(part.of(Err::<(), _>(Error::Refusal(Refusal::new(Reason::ApprovalNeeded, "somebody")))).is_err());
    drop(part);
    let mut part = call.span("upstream").of_another();
    assert!(part.of(Err::<(), _>(Error::Fault(Fault::new("broke")))).is_err());
    drop(part);
    call.waits("durable");
    call.waited(|| vec![("mayfly.seq", 7u64.into())]);
    call.note(|| vec![("mayfly.seq", 7u64.into())]);
    call.end(0, "");
    call.end(13, "LATER");
    drop(call);
    let spans = told(&tracer);
    let [turn, decide, upstream, durable, root] = &spans[..] else { panic!("{spans:?}") };
    let parent = TraceContext::parse(ASKED).unwrap();
    assert_eq!((root.trace, root.parent, &*root.name), (parent.trace, Some(parent.span), "mayfly.v1.TokenService/Exchange"));
    assert_eq!((root.kind, text(root, "rpc.grpc.status_code").as_deref()), (SpanKind::Server, Some("0")), "the first end counts");
    assert_eq!(
        (text(root, "rpc.service"), text(root, "rpc.method")),
        (Some("mayfly.v1.TokenService".into()), Some("Exchange".into()))
    );
    assert_eq!((text(root, "mayfly.seq").as_deref(), &root.failed), (Some("7"), &None));
    for part in [turn, decide, upstream, durable] {
        assert_eq!((part.trace, part.parent), (root.trace, Some(root.id)), "{part:?}");
        assert!(part.start_ns >= root.start_ns && part.end_ns <= root.end_ns, "{part:?} in {root:?}");
    }
    assert_eq!(
        (text(decide, "mayfly.reason").as_deref(), &decide.failed),
        (Some("APPROVAL_NEEDED"), &None),
        "a refusal is no error"
    );
    assert_eq!((upstream.kind, upstream.failed.as_deref()), (SpanKind::Client, Some("FAULT")));
    assert_eq!(text(durable, "mayfly.seq").as_deref(), Some("7"));
}

#[test]
fn what_nobody_ended_was_given_up_by_its_caller_also_while_it_waited() {
    let (tracer, _) = tracer(traces(0, 10));
    let call = tracer.call(Some(ASKED), PATH, Stopwatch::start());
    call.waits("durable");
    drop(call);
    let spans = told(&tracer);
    assert_eq!(spans.iter().map(|s| &*s.name).collect::<Vec<_>>(), ["durable", "mayfly.v1.TokenService/Exchange"]);
    assert_eq!(text(&spans[1], "rpc.grpc.status_code").as_deref(), Some("1"));
}

#[test]
fn errors_of_the_server_are_errors_and_a_path_that_nobody_serves_is_no_name() {
    let (tracer, _) = tracer(traces(0, 100));
    let ended = |path: &str, code, reason| {
        tracer.call(Some(ASKED), path, Stopwatch::start()).end(code, reason);
        told(&tracer).remove(0)
    };
    let span = ended(PATH, 14, "NOT_READY");
    assert_eq!((span.failed.as_deref(), text(&span, "error.type").as_deref()), (Some("NOT_READY"), Some("NOT_READY")));
    let span = ended(PATH, 7, "DENIED_BY_POLICY");
    assert_eq!((span.failed.as_deref(), text(&span, "mayfly.reason").as_deref()), (None, Some("DENIED_BY_POLICY")));
    assert_eq!(ended("/mayfly.v1.TokenService/Whatever", 12, "NOT_SERVED").name, "_OTHER");
    assert_eq!(ended("/a b\u{202e}/c", 0, "").name, "_OTHER");
    assert_eq!(ended(&"/x".repeat(limits::NAME_BYTES), 0, "").name, "_OTHER");
}

#[test]
fn exchanges_of_a_stream_are_parts_of_it_or_drawn_each_by_itself() {
    let (tracer, _) = tracer(traces(1_000_000, 100));
    let one = |stream| tracer.on_stream(stream, PATH, Stopwatch::start());
    let stream = tracer.stream(Some(ASKED), PATH, Stopwatch::start());
    one(&stream).end_one(0, "");
    stream.end_one(0, "");
    assert_eq!(told(&tracer).len(), 1, "the stream itself goes on");
    let alone = tracer.stream(None, PATH, Stopwatch::start());
    assert!(alone.is_nothing(), "else one draw would decide for all that is ever asked on it");
    let (a, b) = (one(&alone), one(&alone));
    assert!(a.is_sampled() && b.is_sampled() && a.id() != b.id());
    a.end_one(0, "");
    let root = told(&tracer).remove(0);
    assert_eq!((root.parent, root.kind, &*root.name), (None, SpanKind::Server, "exchange"));
    let not = tracer.stream(Some(NOT), PATH, Stopwatch::start());
    assert!(!one(&not).is_sampled() && one(&not).id() == not.id());
}

#[test]
fn one_call_has_so_many_parts_and_no_more() {
    let (tracer, _) = tracer(traces(0, 10));
    let call = tracer.call(Some(ASKED), PATH, Stopwatch::start());
    (0..limits::TRACE_SPANS_OF_CALL + 9).for_each(|_| drop(call.span("decide")));
    assert_eq!((told(&tracer).len(), tracer.queue().counts().full.load(Relaxed)), (limits::TRACE_SPANS_OF_CALL, 9));
}

#[tokio::test]
async fn what_is_far_below_knows_the_call_that_it_works_for() {
    let (tracer, _) = tracer(traces(0, 10));
    let call = tracer.call(Some(ASKED), PATH, Stopwatch::start());
    assert!(current().is_nothing());
    call.clone().scope(async { assert!(current().is_sampled()) }).await;
    call.within(|| drop(super::CallTrace::part("below")));
    assert!(current().is_nothing());
    assert_eq!(told(&tracer)[0].name, "below");
}
