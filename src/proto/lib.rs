//! The wire contract: the code that `build.rs` generates from `proto/mayfly/v1`. Only
//! [`protobuf`] is written by hand.
//!
//! A field that is marked `debug_redact` in the protos (a token, a password, arguments in clear) shows as `<redacted>` in `Debug`.
#![forbid(unsafe_code)]

pub mod protobuf;

/// The package `mayfly`.
pub mod mayfly {
    /// Version 1 of the package: messages, and per service a module with its client and server.
    #[allow(missing_docs, clippy::all, clippy::pedantic, rustdoc::all, reason = "generated code")]
    pub mod v1 {
        include!(concat!(env!("OUT_DIR"), "/mayfly.v1.rs"));
        include!(concat!(env!("OUT_DIR"), "/mayfly.v1.debug.rs"));
    }
}

/// The fields that are marked `debug_redact`: the message's full name with a leading dot, and the field's name.
pub const REDACTED_FIELDS: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/mayfly.v1.redacted.rs"));

/// The encoded `google.protobuf.FileDescriptorSet` with comments and imports, which reflection serves.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/mayfly.v1.bin"));
