//! Caller identity: SPIFFE IDs, trust bundles, and the functions that turn a certificate chain into a [`svid::VerifiedSvid`].
//!
//! Pure: no files, sockets, clocks or randomness.
//! - [`spiffe_id`]: SPIFFE IDs. A form that is not canonical is refused.
//! - [`bundle`], [`jwks`], [`anchor`], [`bundle_document`]: trust bundles. Bundles of different domains are never pooled.
//! - [`svid`] = [`profile`] (the content of the certificates) + [`path`] (their signatures).
//! - [`jws`] and [`jwk`]: the parts of signed tokens, and external public keys.

pub mod anchor;
pub mod bundle;
pub mod bundle_document;
pub mod caller;
mod id_defect;
pub mod json;
pub mod jwk;
pub mod jwks;
pub mod jws;
pub mod path;
pub mod profile;
pub mod spiffe_id;
pub mod svid;

/// SHA-256, the digest used for all identifiers here.
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    let mut out = [0; 32];
    out.copy_from_slice(digest.as_ref());
    out
}
