//! What listens: TLS and the services behind it.

pub mod tls;
mod tls_client;
