//! Kinds whose credentials are made at an upstream, on whole servers: nothing is alive there that is nobody's, and nothing that somebody
//! has is gone, whenever the server is killed.
//!
//! The upstream is a small real server that counts what is alive, in the process of the test; the server is a process of its own, this
//! very binary started once more, so that no kind of the tests is in what ships. `MAYFLY_KILLS` says how many SIGKILLs at random moments
//! (default 3), `MAYFLY_SEED` which.

// The file beside the unit tests names it as they do.
use mayfly::credential;

#[path = "../../src/upstream/lease/tests/account.rs"]
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
