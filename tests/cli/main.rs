//! The command line as people and scripts use it: the real program against a server with canned answers.

#[path = "../kit/mod.rs"]
mod kit;

mod answers;
mod apply;
mod approval;
mod audit;
mod bench;
mod binding;
mod blast;
mod break_glass;
mod double;
mod files;
mod get;
mod lock;
mod mtls;
mod policy;
mod refusals;
mod registry;
mod revoke;
mod shapes;
mod svid;
mod typed;
mod watch;
