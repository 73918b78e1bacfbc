//! The note of a lease whose secret was read at a source: whether the source still has the same secret, without a copy of it.
//!
//! The note is sealed beside the lease. It holds a MAC of the secret under a random key of its own, and whether the secret must be replaced
//! before the lease is closed: the cause for which a lease is undone changes when its credential expires, the note does not.

use aws_lc_rs::{constant_time, hmac};
use zeroize::Zeroizing;

/// The bytes of the key.
const KEY: usize = 16;
/// The bytes of the MAC.
const MAC: usize = 32;

/// The note of a lease.
pub struct SourceNote {
    /// The secret has to be replaced at its source before the lease is closed.
    pub to_be_replaced: bool,
    key: [u8; KEY],
    mac: [u8; MAC],
}

fn mac_of(key: [u8; KEY], secret: &[u8]) -> [u8; MAC] {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key), secret);
    let mut mac = [0; MAC];
    mac.copy_from_slice(tag.as_ref());
    mac
}

impl SourceNote {
    /// The note of a secret that is handed out. `key`: random bytes.
    pub fn of(secret: &[u8], key: [u8; KEY]) -> SourceNote {
        SourceNote { to_be_replaced: false, key, mac: mac_of(key, secret) }
    }

    /// Whether it is the note of this secret.
    pub fn is_of(&self, secret: &[u8]) -> bool {
        constant_time::verify_slices_are_equal(&self.mac, &mac_of(self.key, secret)).is_ok()
    }

    /// The bytes to seal.
    pub fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        let mut bytes = Zeroizing::new(Vec::with_capacity(1 + KEY + MAC));
        bytes.push(u8::from(self.to_be_replaced));
        bytes.extend_from_slice(&self.key);
        bytes.extend_from_slice(&self.mac);
        bytes
    }

    /// Reads sealed bytes. `None` for bytes that no note has.
    pub fn parse(bytes: &[u8]) -> Option<SourceNote> {
        let (flag, rest) = bytes.split_first()?;
        let (key, mac) = rest.split_first_chunk::<KEY>()?;
        let mac: [u8; MAC] = mac.try_into().ok()?;
        (*flag <= 1).then_some(SourceNote { to_be_replaced: *flag == 1, key: *key, mac })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_knows_its_secret_and_comes_back_from_its_bytes() {
        let note = SourceNote { to_be_replaced: true, ..SourceNote::of(b"a key", [7; 16]) };
        let bytes = note.to_bytes();
        assert!(!bytes.windows(5).any(|w| w == b"a key"));
        let read = SourceNote::parse(&bytes).unwrap();
        assert!(read.to_be_replaced && read.is_of(b"a key") && !read.is_of(b"a kez") && !read.is_of(b""));
        for wrong in [&bytes[1..], &bytes[..bytes.len() - 1], &[2; 49][..], &[][..]] {
            assert!(SourceNote::parse(wrong).is_none());
        }
    }
}
