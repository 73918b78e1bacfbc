//! Who is calling: SPIFFE IDs, trust bundles, and the one function that turns a chain of certificates into a [`svid::VerifiedSvid`].
//!
//! Pure: no files, sockets, clocks or randomness. Files are read by `sources`, the TLS session is held by `serve::tls`. What clients need as
//! well lies in [`mayfly_verify::identity`] and is given on here.
//! - [`spiffe_id`]: names. What is not canonical is refused.
//! - [`bundle`], [`jwks`], [`anchor`], [`written`]: what a trust domain vouches with. Bundles of different domains are never pooled.
//! - [`svid`] = [`profile`] (what the certificates say) + [`path`] (who signed them).
//! - [`jwt_svid`]: the one function that accepts a JWT-SVID, over [`jws`] (its parts) and [`jwk`] (keys and algorithms).
//! - [`oidc`]: the one function that accepts a token of a configured OIDC issuer, over the same.
//! - [`check`]: the same as [`svid`], told to a person.

pub mod check;
pub mod jwt_svid;
pub mod oidc;

pub use mayfly_verify::identity::{
    anchor, bundle, caller, json, jwk, jwks, jws, path, profile, sha256, spiffe_id, svid, written,
};
