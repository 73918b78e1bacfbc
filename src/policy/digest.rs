//! The digest of a request: what tells a repeat from another request by the same name.

use std::cell::Cell;

use prost::Message;

use super::wanted::Digest;
use crate::ledger::commit::sha256;

/// SHA-256 over everything that was asked, in protobuf's canonical field order. Messages without maps encode one way only.
pub fn digest_of(message: &impl Message) -> Digest {
    thread_local! {
        static ENCODED: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
    }
    /// Most of them fit many times over.
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
