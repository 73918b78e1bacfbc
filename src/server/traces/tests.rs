//! Tests of the requests to a collector, and of the handling of what it does not accept.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc;
use std::time::Duration;

use prost::Message as _;

use super::otlp::{ExportTraceRequest, OtlpSpan, request};
use super::*;
use crate::otlp::{Any, PartialSuccess, Response};
use mayfly_base::document::url::WebUrl;
use mayfly_base::trace::{SpanKind, TracerSettings};

fn wanted() -> TracerSettings {
    TracerSettings { traces: true, per_million: 1_000_000, per_second: 1_000, log_calls: false }
}

/// A collector that gives each request the next of these answers, and passes on the decoded requests.
fn collector(answers: &'static [&'static str]) -> (Collector, mpsc::Receiver<ExportTraceRequest>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/v1/traces", listener.local_addr().unwrap());
    let (to, got) = mpsc::channel();
    std::thread::spawn(move || {
        for answer in answers {
            let mut stream = BufReader::new(listener.accept().unwrap().0);
            let (mut length, mut line) = (0, String::new());
            while stream.read_line(&mut line).unwrap() > 2 {
                if let Some(n) = line.to_ascii_lowercase().strip_prefix("content-length: ") {
                    length = n.trim().parse().unwrap();
                }
                line.clear();
            }
            let mut body = vec![0; length];
            stream.read_exact(&mut body).unwrap();
            let head = format!("HTTP/1.1 {answer}\r\nConnection: close\r\n");
            // The collector rejects one of the two spans.
            let partial = PartialSuccess { rejected: 1, error: "too old".into() };
            let partial = Response { partial_success: Some(partial) }.encode_to_vec();
            let said = if answer.ends_with("partly") { partial } else { Vec::new() };
            stream.get_mut().write_all(format!("{head}Content-Length: {}\r\n\r\n", said.len()).as_bytes()).unwrap();
            stream.get_mut().write_all(&said).unwrap();
            let _ = to.send(ExportTraceRequest::decode(&body[..]).unwrap());
        }
    });
    (Collector { url: WebUrl::parse(&url).unwrap(), ca: None }, got)
}

fn spans(request: &ExportTraceRequest) -> &[OtlpSpan] {
    &request.resource_spans[0].scope_spans[0].spans
}

const SOON: Duration = Duration::from_secs(30);

#[test]
fn a_span_is_told_with_its_place_its_times_and_its_attributes() {
    let span = Span {
        trace: [7; 16],
        id: [8; 8],
        parent: Some([9; 8]),
        name: "decide".into(),
        kind: SpanKind::Client,
        start_ns: 5,
        end_ns: 3,
        attributes: vec![("mayfly.upstream", "echo".into()), ("mayfly.seq", 12u64.into())],
        failed: Some("UPSTREAM_FAILED".into()),
    };
    let told = request(vec![span], "i1");
    let about: BTreeMap<_, _> =
        told.resource_spans[0].resource.as_ref().unwrap().attributes.iter().map(|a| (a.key.as_str(), a)).collect();
    assert_eq!(about["service.name"].value.as_ref().unwrap().value, Some(Any::Text("mayfly".into())));
    let [one] = spans(&told) else { panic!("one") };
    assert_eq!((one.trace_id.len(), one.span_id.len(), one.parent_span_id.as_slice(), one.kind), (16, 8, &[9; 8][..], 3));
    assert_eq!((one.start_time_unix_nano, one.end_time_unix_nano), (5, 5), "never over before it began");
    assert_eq!(one.attributes[1].value.as_ref().unwrap().value, Some(Any::Number(12)));
    let status = one.status.as_ref().unwrap();
    assert_eq!((status.code, status.message.as_str()), (2, "UPSTREAM_FAILED"));
}

#[test]
fn what_waits_is_told_and_once_more_where_the_collector_is_busy_and_the_rest_when_the_server_stops() {
    let (to, got) = collector(&["503 Busy", "200 OK", "200 OK"]);
    let tracer = Tracer::new(wanted(), System::real());
    drop(tracer.own("one").unwrap());
    let telling = SpanSender::start(tracer.clone(), &to, &System::real(), "i1".into()).unwrap();
    let first = got.recv_timeout(SOON).unwrap();
    assert_eq!(got.recv_timeout(SOON).unwrap(), first, "the same once more");
    drop(tracer.own("two").unwrap());
    drop(telling);
    assert_eq!(spans(&got.recv_timeout(SOON).unwrap())[0].name, "two");
    let counts = tracer.queue().counts();
    assert_eq!([&counts.sent, &counts.full, &counts.unreachable, &counts.rejected].map(|n| n.load(Relaxed)), [2, 0, 0, 0]);
}

#[test]
fn what_a_collector_rejects_is_counted_and_not_told_again() {
    let (to, got) = collector(&["400 Bad", "200 partly"]);
    let tracer = Tracer::new(wanted(), System::real());
    drop(tracer.own("bad").unwrap());
    let telling = SpanSender::start(tracer.clone(), &to, &System::real(), "i1".into()).unwrap();
    assert_eq!(spans(&got.recv_timeout(SOON).unwrap())[0].name, "bad");
    ["a", "b"].into_iter().for_each(|name| drop(tracer.own(name).unwrap()));
    drop(telling);
    assert!(spans(&got.recv_timeout(SOON).unwrap()).iter().all(|span| span.name != "bad"));
    let counts = tracer.queue().counts();
    assert_eq!(counts.rejected.load(Relaxed) + counts.sent.load(Relaxed) + counts.unreachable.load(Relaxed), 3);
    assert!(counts.rejected.load(Relaxed) >= 2, "the first, and one of the others");
}

#[test]
fn a_collector_that_is_not_there_holds_up_no_stop_for_long_and_is_counted() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let to = Collector { url: WebUrl::parse(&format!("http://{nobody}/v1/traces")).unwrap(), ca: None };
    let tracer = Tracer::new(wanted(), System::real());
    let telling = SpanSender::start(tracer.clone(), &to, &System::real(), "i1".into()).unwrap();
    (0..700).for_each(|_| drop(tracer.own("x").unwrap()));
    let watch = Stopwatch::start();
    drop(telling);
    assert!(watch.us() < 2 * limits::TRACE_FLUSH_MS * 1_000 + 2_000_000, "{} µs", watch.us());
    assert_eq!(tracer.queue().counts().unreachable.load(Relaxed), 700);
}

#[test]
fn nothing_is_counted_twice_by_several_who_end_spans_at_once() {
    let tracer = Tracer::new(TracerSettings { per_second: 1_000, ..wanted() }, System::real());
    let each: Vec<_> = (0..4)
        .map(|_| {
            let tracer: Arc<Tracer> = tracer.clone();
            std::thread::spawn(move || (0..1_000).filter_map(|_| tracer.own("x")).count())
        })
        .collect();
    let made: usize = each.into_iter().map(|thread| thread.join().unwrap()).sum();
    let over = tracer.queue().counts().over_rate.load(Relaxed) as usize;
    assert_eq!((made + over, tracer.queue().take(usize::MAX).len()), (4_000, made));
    assert!(made <= 2_000, "the rate of two seconds at the most");
}
