//! Requests that are remembered after their credentials expired: 28 bytes and a slot each, half of a live credential. At full rate, nearly
//! all remembered requests are of this kind.

use serde::{Deserialize, Serialize};

use super::super::intern::Slot;
use super::expiry_pages::ExpiryPage;
use mayfly_store::Position;
use mayfly_verify::seq::CredentialId;

/// A request whose credential has expired.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ExpiredRequest {
    id: [u8; 16],
    /// The position of its commit, high half first, as two `u32` so that the struct needs no larger alignment.
    at: [u32; 2],
    /// The requester's slot among the callers whose requests are remembered.
    pub requester: Slot,
}

impl ExpiredRequest {
    pub fn new(id: CredentialId, at: Position, requester: Slot) -> ExpiredRequest {
        ExpiredRequest { id: *id.as_bytes(), at: [(at >> 32) as u32, at as u32], requester }
    }

    pub fn id(&self) -> CredentialId {
        CredentialId::from_bytes(self.id)
    }

    pub fn at(&self) -> Position {
        Position::from(self.at[0]) << 32 | Position::from(self.at[1])
    }
}

impl ExpiryPage for Vec<ExpiredRequest> {
    type Entry = ExpiredRequest;

    /// 7 KiB.
    const MOST: usize = 256;

    fn entries(&self) -> &[ExpiredRequest] {
        self
    }

    fn entries_mut(&mut self) -> &mut [ExpiredRequest] {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_takes_28_bytes() {
        let past = ExpiredRequest::new(CredentialId::from_bytes([3; 16]), 3 << 33 | 7, 3);
        assert_eq!(size_of::<ExpiredRequest>(), 28);
        assert_eq!((past.id(), past.at()), (CredentialId::from_bytes([3; 16]), 3 << 33 | 7));
    }
}
