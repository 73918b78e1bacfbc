//! Connects a call's HTTP headers and its outcome to [`mayfly_base::trace`].

use std::sync::Arc;

use http::{HeaderMap, HeaderName, Request};
use tonic::Status;
use tonic_types::StatusExt as _;

use super::super::peer::Peer;
use super::exchange::STREAM_EXCHANGE;
use mayfly_base::system::Stopwatch;
use mayfly_base::trace::{CallTrace, Tracer};

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// The value of `traceparent` if there is exactly one (W3C Trace Context, section 3.2.1): with several, the intended one is unknown.
fn traceparent(headers: &HeaderMap) -> Option<&[u8]> {
    let mut all = headers.get_all(&TRACEPARENT).iter();
    let one = all.next()?;
    all.next().is_none().then(|| one.as_bytes())
}

/// Begins the trace of a call that was read.
pub(super) fn begin_trace<B>(tracer: &Arc<Tracer>, peer: &Peer, call: &Request<B>, read: Stopwatch) -> CallTrace {
    let (parent, path) = (traceparent(call.headers()), call.uri().path());
    let traced =
        if path == STREAM_EXCHANGE { tracer.stream(parent, STREAM_EXCHANGE, read) } else { tracer.call(parent, path, read) };
    traced.note(|| vec![("mayfly.caller", peer_name(peer).into())]);
    traced
}

/// The caller's name: the verified SPIFFE ID, or the uid.
pub(super) fn peer_name(peer: &Peer) -> String {
    match peer {
        Peer::Workload(caller) | Peer::Admin(caller) => caller.id().as_str().to_owned(),
        Peer::Local(uid) => format!("local-uid:{uid}"),
    }
}

/// Ends the trace of a call whose answer begins with these headers. A stream of exchanges ends its trace itself, unless the stream never
/// began; the trace of any other stream ends when the stream has begun.
pub fn end_trace_by_headers(traced: &CallTrace, path: &str, headers: &HeaderMap) {
    if !traced.is_live() {
        return;
    }
    match Status::from_header_map(headers) {
        None if path == STREAM_EXCHANGE => {}
        None => traced.end(0, ""),
        Some(status) => end_trace(traced, &status),
    }
}

/// Ends the trace with this status.
pub(super) fn end_trace(traced: &CallTrace, status: &Status) {
    if traced.is_live() {
        let info = status.get_details_error_info();
        let approval = info.as_ref().and_then(|info| info.metadata.get("approval_id"));
        traced.note(|| approval.map(|id| ("mayfly.approval.id", id.as_str().into())).into_iter().collect());
        traced.end(status.code() as i32, info.as_ref().map_or("", |info| &info.reason));
    }
}
