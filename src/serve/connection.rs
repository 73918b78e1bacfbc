//! One connection, from its first frame to its end.

use std::convert::Infallible;
use std::error::Error;
use std::pin::pin;
use std::time::Duration;

use hyper::body::Body;
use hyper::body::Incoming;
use hyper::service::HttpService;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulConnection;
use tokio::io::{AsyncRead, AsyncWrite};

use super::ends::{Ends, Why};
use super::gather::{Gathered, Turns, in_turn};
use super::preface::{NoPreface, expect_http2};
use crate::limits;

/// How a connection ended.
#[derive(Debug)]
pub enum Ended {
    /// It never spoke HTTP/2.
    NoPreface(NoPreface),
    /// Its first bytes did not come in time.
    Silent,
    /// The peer ended it, in good order or not.
    ByPeer,
    /// It was asked to go, and went.
    Went(Why),
    /// It was asked to go, and dropped.
    Dropped(Why),
}

/// Serves HTTP/2 and nothing else. A peer that does not begin to speak it in time is dropped.
pub async fn serve_http2<IO, S, B>(io: IO, service: S, ends: Ends, streams: u32) -> Ended
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: HttpService<Incoming, ResBody = B, Error = Infallible>,
    S::Future: Send + 'static,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let io = match tokio::time::timeout(Duration::from_millis(limits::HEADER_MS), expect_http2(io)).await {
        Ok(Ok(io)) => io,
        Ok(Err(no)) => return Ended::NoPreface(no),
        Err(_) => return Ended::Silent,
    };
    let (io, turns) = Gathered::new(io);
    drive(http2(streams).serve_connection(TokioIo::new(io), service), &turns, ends).await
}

/// The settings of every HTTP/2 connection. Pings find peers that vanished, also in the middle of a header block.
fn http2(streams: u32) -> hyper::server::conn::http2::Builder<TokioExecutor> {
    let mut builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        // gRPC has no use for it.
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

/// Serves until the peer goes or the connection's end comes.
pub async fn drive<C: GracefulConnection, IO: AsyncWrite + Unpin>(connection: C, turns: &Turns<IO>, mut ends: Ends) -> Ended {
    let mut connection = pin!(connection);
    let why = tokio::select! {
        _ = in_turn(connection.as_mut(), turns) => return Ended::ByPeer,
        why = ends.soft() => why,
    };
    connection.as_mut().graceful_shutdown();
    tokio::select! {
        _ = in_turn(connection.as_mut(), turns) => Ended::Went(why),
        () = ends.hard(why) => Ended::Dropped(why),
    }
}
