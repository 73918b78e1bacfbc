//! The listeners: TLS and the services behind it.
//!
//! - [`tls`], [`peer`]: the identity of the peer. [`status`], [`call_handler`]: errors as gRPC statuses, and the answering of calls.
//! - [`listener`]: accepting within limits. [`connection`]: one connection from its first frame to its end. [`connection_end`]: when it
//!   ends.
//! - `pending_handshakes`, [`connection_table`]: the places of handshakes and of connections. [`shares`], `metered_body`, `unread_answers`,
//!   `public_body`: limits on the memory that a peer can occupy. [`long_calls`]: threads for lists.
//! - [`unix`]: the operators' local socket. [`public`]: HTTPS for unauthenticated clients. [`grpc`]: the services.
#![forbid(unsafe_code)]

pub mod attest;
pub mod call_handler;
mod certificates;
pub mod client;
pub mod connection;
pub mod connection_end;
pub mod connection_table;
mod deadline;
pub mod grpc;
pub mod handshakes;
pub mod listener;
pub mod long_calls;
mod metered_body;
pub mod peer;
mod pending_handshakes;
pub mod people;
pub mod preface;
pub mod public;
mod public_body;
pub mod shares;
pub mod status;
pub mod tls;
mod tls_client;
pub mod unix;
mod unread_answers;
pub mod wire;
mod write_coalescing;
