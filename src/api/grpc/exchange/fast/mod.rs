//! The fast path of the exchange.
//!
//! [`decode`] reads requests in prost's own encoding without prost and leaves every other form to prost. [`unary`] answers `Exchange`,
//! [`collect`] makes one batch of the single exchanges that arrive at the same time on a connection, [`stream`] and [`batch_codec`] answer
//! the two other methods, and [`encode`] encodes the fields that consecutive answers share once.
//!
//! In: a call that the parent folder could answer as well. Out: the same bytes. Nothing outside of this folder may depend on it, except
//! where `routes.rs` chooses it.

mod batch_codec;
mod collect;
mod decode;
mod encode;
mod stream;
mod unary;

pub use encode::AnswerEncoder;

pub(in super::super) use collect::UnaryBatcher;
pub use unary::UnaryExchange;

use super::super::token::TokenApi;
use super::{BATCH_EXCHANGE, STREAM_EXCHANGE};
use hyper::body::Body as HttpBody;
use mayfly_base::trace::CallTrace;
use tonic::body::Body;

/// Whether [`answer`] answers calls of this path.
pub(in super::super) fn answers(path: &str) -> bool {
    path == STREAM_EXCHANGE || path == BATCH_EXCHANGE
}

/// Answers a call of a stream or of a batch.
pub(in super::super) async fn answer<B>(own: &TokenApi, call: http::Request<B>, traced: CallTrace) -> http::Response<Body>
where
    B: HttpBody<Data = bytes::Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send,
{
    match call.uri().path() {
        BATCH_EXCHANGE => traced.clone().scope(batch_codec::exchange(own, call)).await,
        _ => stream::exchange(own, call, traced).await,
    }
}
