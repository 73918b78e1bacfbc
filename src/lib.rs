//! The crates of mayfly under one name, for the program, the tests of whole servers, benches and fuzzing: `mayfly::ledger` is
//! `mayfly_ledger`. The crates lie under `src/`; Cargo.toml lists them from the lowest to the highest.
#![forbid(unsafe_code)]

pub mod verifier;

pub use mayfly_api as serve;
pub use mayfly_authority::{
    admission, admission::admission_queue, admission::operator_calls, admission::rate_limits, audit::explain, audit::proof,
    authority, exchange, exchange::introspect, metrics, people::oidc_issuers, revocation::feed, revocation::revocation_reach,
    revocation::revoke, tasks, tasks::heartbeats, tasks::openings, trust, trust::keys, webhook,
};
pub use mayfly_base::{document, limits, refusal, system, trace};
pub use mayfly_config as sources;
pub use mayfly_credential as credential;
pub use mayfly_identity as identity;
pub use mayfly_ledger as ledger;
pub use mayfly_ledger::revocation;
pub use mayfly_policy as policy;
pub use mayfly_proto as pb;
pub use mayfly_proto::protobuf;
pub use mayfly_server as server;
pub use mayfly_store as store;
pub use mayfly_store::sealing;
pub use mayfly_verify::seq;

/// Upstreams, and the leases of what stands at them.
pub mod upstream {
    pub use mayfly_credential::lease;
    pub use mayfly_ledger::upstream::*;
}

/// The command line, with `bench`.
pub mod cli {
    use std::ffi::OsString;
    use std::process::ExitCode;

    #[cfg(feature = "bench")]
    pub use mayfly_bench as bench;
    pub use mayfly_cli::*;

    #[cfg(feature = "bench")]
    type BenchSubcommand = bench::BenchArgs;
    #[cfg(not(feature = "bench"))]
    type BenchSubcommand = mayfly_cli::NoBench;

    /// The command line of the program.
    pub type Cli = mayfly_cli::Cli<BenchSubcommand>;

    /// Runs the program.
    pub fn main(words: impl IntoIterator<Item = OsString>) -> ExitCode {
        mayfly_cli::main::<BenchSubcommand>(words)
    }
}
