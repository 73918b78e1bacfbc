//! The wire contract: what the server's `build.rs` makes of `/proto`, as far as a client calls it. Kept here, so that who builds the client
//! needs no compiler of protos; the server's tests see to it that it is current. Nothing is written by hand here.
//!
//! A field that is marked `debug_redact` in the protos (a token, a password, arguments in clear) shows as `<redacted>` in `Debug`.

/// The package `mayfly`.
pub mod mayfly {
    /// Version 1 of the package.
    #[allow(missing_docs, dead_code, clippy::all, clippy::pedantic, rustdoc::all, reason = "generated code")]
    pub mod v1 {
        include!("mayfly.v1.in");
        include!("mayfly.v1.debug.in");
    }
}

/// The SPIFFE Workload API (`clients/rust/proto/workload.proto`).
#[allow(missing_docs, dead_code, clippy::all, clippy::pedantic, rustdoc::all, reason = "generated code")]
pub mod workload {
    include!("workload.in");
    include!("workload.debug.in");
}
