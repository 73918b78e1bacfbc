//! Identity, clause by clause: SPIFFE ID, X509-SVID, trust bundle, and real TLS.

#[path = "../kit/mod.rs"]
mod kit;

mod bundle;
mod chain;
mod check;
mod files;
mod ids;
mod jwt_kit;
mod jwt_svid;
mod jwt_vectors;
mod limbo;
mod limbo_exceptions;
mod oidc;
mod svid;
mod tls;
mod vectors;
