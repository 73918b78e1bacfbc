//! Kinds whose credentials are made at an upstream, on whole servers. Whenever the server is killed, no login without an owner stays alive
//! there, and no login that a caller has disappears.
//!
//! The upstream is a small real server in the process of the test; it counts the live logins. The mayfly server is a process of its own:
//! this very binary, started once more, so that no test kind is in the shipped program. `MAYFLY_KILLS` is the number of SIGKILLs at random
//! moments (default 3), `MAYFLY_SEED` their seed.

// The file beside the unit tests names these as its own crate has them.
use mayfly::credential::{CredentialMaterial, connector};

#[path = "../../src/credential/lease/tests/account.rs"]
mod account;
#[path = "../server/collector.rs"]
#[allow(dead_code, reason = "other tests ask it for more")]
mod collector;
#[path = "../kit/dice.rs"]
mod dice;
#[path = "../kit/faulty.rs"]
mod faulty;
#[path = "../kit/mod.rs"]
mod kit;

mod kind;
mod place;
mod random;
mod rig;
mod server;
mod steps;
mod stories;
mod traces;
mod trouble;
mod upstream;
