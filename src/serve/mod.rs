//! What listens: TLS and the services behind it.

pub mod grpc;
pub mod peer;
pub mod status;
pub mod tls;
mod tls_client;
pub mod wire;
