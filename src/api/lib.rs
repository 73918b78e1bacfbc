//! The listeners: TLS and the services behind it.
//!
//! - [`tls`], [`peer`]: the identity of the peer. [`status`], [`answer`]: errors as gRPC statuses, and the answering of calls.
//! - [`listener`]: accepting within limits. [`connection`]: one connection from its first frame to its end. [`ends`]: when it ends.
//! - `arrivals`, [`table`]: the places of handshakes and of connections. [`shares`], `metered`, `unread`, `public_body`: limits on the memory
//!   that a peer can occupy. [`long_calls`]: threads for lists.
//! - [`unix`]: the operators' local socket. [`public`]: HTTPS for unauthenticated clients. [`grpc`]: the services.
#![forbid(unsafe_code)]

pub mod answer;
mod arrivals;
pub mod attest;
pub mod client;
pub mod connection;
mod deadline;
pub mod ends;
mod gather;
pub mod grpc;
pub mod handshakes;
pub mod listener;
pub mod long_calls;
mod metered;
pub mod peer;
pub mod people;
pub mod preface;
pub mod public;
mod public_body;
pub mod shares;
pub mod status;
pub mod table;
pub mod tls;
mod tls_client;
pub mod unix;
mod unread;
pub mod wire;
