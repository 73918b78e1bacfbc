//! One HTTP/2 connection, from its first frame to its end.

use std::convert::Infallible;
use std::error::Error;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Waker};
use std::time::Duration;

use hyper::body::Body;
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::service::HttpService;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulConnection;
use tokio::io::{AsyncRead, AsyncWrite};

use super::connection_end::{ConnectionEndReason, ConnectionEnds};
use super::preface::{PrefaceError, Replayed, expect_http2};
use super::write_coalescing::{CoalescedOutput, OutputFlusher, in_turn};
use mayfly_base::limits;

/// How a connection ended.
#[derive(Debug)]
pub enum ConnectionOutcome {
    /// The peer never spoke HTTP/2.
    NoPreface(PrefaceError),
    /// The peer's first bytes did not arrive in time.
    Silent,
    /// The peer closed the connection, cleanly or not.
    ByPeer,
    /// The server asked the peer to close, and the connection closed.
    Went(ConnectionEndReason),
    /// The server asked the peer to close and then dropped the connection, or dropped it at once.
    Dropped(ConnectionEndReason),
}

/// The result of the protocol negotiation when the connection is established.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NegotiatedProtocol {
    /// HTTP/2 was negotiated by ALPN: the server sends first.
    Http2,
    /// Nothing was negotiated: the peer's first bytes determine the protocol.
    Nothing,
}

impl NegotiatedProtocol {
    /// The result of the handshake's ALPN negotiation.
    pub fn by_alpn(chosen: Option<&[u8]>) -> NegotiatedProtocol {
        if chosen == Some(b"h2") { NegotiatedProtocol::Http2 } else { NegotiatedProtocol::Nothing }
    }
}

/// Serves HTTP/2 only. A peer that does not begin to speak HTTP/2 in time is dropped.
///
/// `at_once`: announces calls whose answer waits for nothing.
pub async fn serve_http2<IO, S, B>(
    io: IO,
    agreed: NegotiatedProtocol,
    service: S,
    at_once: InlineExecutor,
    ends: ConnectionEnds,
    streams: u32,
) -> ConnectionOutcome
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: HttpService<Incoming, ResBody = B, Error = Infallible>,
    S::Future: Send + 'static,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let in_time = Duration::from_millis(limits::HEADER_MS);
    let (io, heard) = match agreed {
        NegotiatedProtocol::Http2 => {
            let (io, heard) = Replayed::unheard(io);
            (io, Some(heard))
        }
        NegotiatedProtocol::Nothing => match tokio::time::timeout(in_time, expect_http2(io)).await {
            Ok(Ok(io)) => (io, None),
            Ok(Err(no)) => return ConnectionOutcome::NoPreface(no),
            Err(_) => return ConnectionOutcome::Silent,
        },
    };
    let (io, turns) = CoalescedOutput::new(io, ends.activity().clone());
    let serving = drive(http2(at_once, streams).serve_connection(TokioIo::new(io), service), &turns, ends);
    let Some(heard) = heard else { return serving.await };
    let mut serving = pin!(serving);
    tokio::select! {
        ended = &mut serving => return ended,
        heard = tokio::time::timeout(in_time, heard) => if heard.is_err() {
            return ConnectionOutcome::Silent;
        },
    }
    serving.await
}

/// Executor for the calls of one connection. Each call gets its own task, except calls announced as ready: those are answered where they
/// are read, so that a refusal for lack of capacity does not queue behind all the work for which capacity is lacking.
#[derive(Clone, Default)]
pub struct InlineExecutor(Arc<AtomicBool>);

impl InlineExecutor {
    /// Announces that the call just read can be answered without waiting.
    pub fn announce(&self) {
        self.0.store(true, Relaxed);
    }
}

impl<F> Executor<F> for InlineExecutor
where
    F: Future<Output: Send> + Send + 'static,
{
    fn execute(&self, call: F) {
        if !self.0.load(Relaxed) {
            drop(tokio::spawn(call));
            return;
        }
        self.0.store(false, Relaxed);
        let mut call = Box::pin(call);
        // If the call waits nonetheless, its new task polls again and registers a waker, so the no-op waker loses no wakeup.
        if call.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending() {
            drop(tokio::spawn(call));
        }
    }
}

/// The settings of every HTTP/2 connection. Pings detect vanished peers, even in the middle of a header block.
fn http2(at_once: InlineExecutor, streams: u32) -> hyper::server::conn::http2::Builder<InlineExecutor> {
    let mut builder = hyper::server::conn::http2::Builder::new(at_once);
    builder
        .timer(TokioTimer::new())
        // gRPC does not use the date header.
        .auto_date_header(false)
        .max_concurrent_streams(streams)
        .max_header_list_size(limits::HEADER_BYTES)
        .initial_stream_window_size(limits::STREAM_WINDOW_BYTES)
        .initial_connection_window_size(limits::CONNECTION_WINDOW_BYTES)
        .max_send_buf_size(limits::SEND_BUFFER_BYTES)
        .keep_alive_interval(Duration::from_millis(limits::KEEP_ALIVE_MS))
        .keep_alive_timeout(Duration::from_millis(limits::KEEP_ALIVE_ANSWER_MS));
    builder
}

/// Serves until the peer closes or one of the connection's ends is reached.
pub async fn drive<C: GracefulConnection, IO: AsyncWrite + Unpin>(
    connection: C,
    turns: &OutputFlusher<IO>,
    mut ends: ConnectionEnds,
) -> ConnectionOutcome {
    let mut connection = pin!(connection);
    let why = tokio::select! {
        _ = in_turn(connection.as_mut(), turns) => return ConnectionOutcome::ByPeer,
        why = ends.soft() => why,
    };
    if why.is_at_once() {
        return ConnectionOutcome::Dropped(why);
    }
    connection.as_mut().graceful_shutdown();
    tokio::select! {
        _ = in_turn(connection.as_mut(), turns) => ConnectionOutcome::Went(why),
        () = ends.hard(why) => ConnectionOutcome::Dropped(why),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_announced_is_answered_where_it_was_read_and_goes_on_as_a_task_where_it_waits() {
        let (calls, done) = (InlineExecutor::default(), Arc::new(AtomicBool::new(false)));
        let answered = |done: &Arc<AtomicBool>| {
            let done = done.clone();
            async move { done.store(true, Relaxed) }
        };
        // The test's runtime has one thread: a spawned task runs when this task waits.
        calls.execute(answered(&done));
        assert!(!done.load(Relaxed), "it has a task of its own");
        tokio::task::yield_now().await;
        assert!(done.swap(false, Relaxed));
        calls.announce();
        calls.execute(answered(&done));
        assert!(done.swap(false, Relaxed), "at once");
        calls.announce();
        let (go_on, told) = tokio::sync::oneshot::channel::<()>();
        let waiting = answered(&done);
        calls.execute(async move {
            let _ = told.await;
            waiting.await;
        });
        assert!(go_on.send(()).is_ok() && !done.load(Relaxed));
        tokio::task::yield_now().await;
        assert!(done.load(Relaxed), "it was woken as a task");
        // An announcement covers one call only.
        let later = Arc::new(AtomicBool::new(false));
        calls.execute(answered(&later));
        assert!(!later.load(Relaxed));
    }
}
