//! The digest of a request. It distinguishes a repeat from a different request with the same request id.

use std::cell::Cell;

use prost::Message;

use super::exchange_request::Digest;
use mayfly_ledger::commit::sha256;

/// SHA-256 over the whole message, encoded in protobuf's canonical field order. Messages without maps have exactly one such encoding.
pub fn digest_of(message: &impl Message) -> Digest {
    thread_local! {
        static ENCODED: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
    }
    /// Largest buffer that is kept for reuse, in bytes. Nearly all requests are several times smaller.
    const KEPT: usize = 4096;
    let mut encoded = ENCODED.take();
    encoded.clear();
    encoded.reserve(message.encoded_len());
    message.encode_raw(&mut encoded);
    let digest = sha256(&encoded);
    if encoded.capacity() <= KEPT {
        ENCODED.set(encoded);
    }
    digest
}
