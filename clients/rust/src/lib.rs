//! The Rust client of mayfly: obtaining and verifying credentials for a task.
//!
//! [`Mayfly`] obtains credentials for an MCP server or any other workload. [`Mayfly::credential`] returns a guard that releases the
//! credential when it is dropped. [`Verifier`] verifies credentials for a relying service, and [`middleware::Protect`] does so as a tower
//! layer.
#![forbid(unsafe_code)]
#![doc = include_str!("../README.md")]

mod background;
mod backoff;
pub mod middleware;
pub mod verifier;

mod cache;
mod client;
mod credential;
pub mod dial;
mod exchange;
mod exchange_stream;
mod json_floats;
mod request;
mod several;
mod uses;

pub mod agent;
mod error;
pub mod link;
#[doc(hidden)]
pub mod pb;
mod random;
mod secret;
pub mod settings;
pub mod svid;
pub mod tls;
pub mod tls_identity;
mod wire;
pub mod workload_api;

pub mod limits;

pub use client::{Mayfly, task_of_meta};
pub use credential::Credential;
pub use error::{Error, FieldViolation, Refusal};
pub use mayfly_verify as verify;
pub use mayfly_verify::check::{Checked, Checker, Need, Refused};
pub use mayfly_verify::clock::{Clock, RealClock};
pub use mayfly_verify::identity::spiffe_id::SpiffeId;
pub use mayfly_verify::token::Claims;
pub use pb::mayfly::v1::{CredentialKind, SubjectTokenType};
pub use request::{CredentialRequest, arguments_sha256, arguments_sha256_of_json};
pub use secret::Secret;
pub use settings::{Identity, Settings};
pub use uses::Outcome;
pub use verifier::Verifier;
