//! The generated wire contract: the part of the server's protos that a client calls. The generated code is checked in, so that building the
//! client needs no protobuf compiler; a test of the server verifies that it is up to date. Nothing here is written by hand.
//!
//! A field marked `debug_redact` in the protos (a token, a password, arguments in clear) is shown as `<redacted>` in `Debug`.

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
