//! Caller identity: SPIFFE IDs, trust bundles, and the one function that turns a certificate chain into a [`svid::VerifiedSvid`].
//!
//! Pure: no files, sockets, clocks or randomness. `mayfly_config` reads files, and `mayfly_api::tls` holds the TLS session. The parts that
//! clients also need are in [`mayfly_verify::identity`] and re-exported here.
//! - [`spiffe_id`]: SPIFFE IDs. A form that is not canonical is refused.
//! - [`bundle`], [`jwks`], [`anchor`], [`bundle_document`]: trust bundles. Bundles of different domains are never pooled.
//! - [`svid`] = [`profile`] (the content of the certificates) + [`path`] (their signatures).
//! - [`jwt_svid`]: verification of JWT-SVIDs, using [`jws`] (the parts of a token) and [`jwk`] (keys and algorithms).
//! - [`oidc`]: verification of tokens from configured OIDC issuers, using the same modules.
//! - [`check`]: the result of [`svid`] as a report for people.
#![forbid(unsafe_code)]

pub mod check;
pub mod jwt_svid;
pub mod oidc;

pub use mayfly_verify::identity::{
    anchor, bundle, bundle_document, caller, json, jwk, jwks, jws, path, profile, sha256, spiffe_id, svid,
};
