//! Opens a TLS connection to a server by its name, which may resolve to several addresses.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::io::AsyncBufReadExt as _;
use tokio::net::{TcpStream, lookup_host};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::limits;

/// Connects to the first of a server's addresses that answers. An address that does not answer, in TCP, in the handshake or after it, is
/// given up after [`limits::ADDRESS`]; the last address may use all the time that the caller allows. A failed TLS verification on either
/// side is final: no other address is tried.
pub async fn dial(
    connector: &TlsConnector,
    name: &ServerName<'static>,
    host: &str,
    port: u16,
) -> io::Result<TlsStream<TcpStream>> {
    let addresses: Vec<SocketAddr> = lookup_host((host, port)).await?.take(limits::ADDRESSES).collect();
    if addresses.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, format!("{host} has no address")));
    }
    first_of(connector, name, &addresses).await
}

/// The same for known addresses.
pub async fn first_of(
    connector: &TlsConnector,
    name: &ServerName<'static>,
    addresses: &[SocketAddr],
) -> io::Result<TlsStream<TcpStream>> {
    let mut failed = Vec::new();
    for (nth, address) in addresses.iter().enumerate() {
        let trying = connected(connector, name.clone(), *address);
        let outcome = match nth + 1 < addresses.len() {
            true => tokio::time::timeout(limits::ADDRESS, trying).await.unwrap_or_else(|_| {
                Err(io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {} s", limits::ADDRESS.as_secs())))
            }),
            false => trying.await,
        };
        match outcome {
            Err(silent) if addresses.len() > 1 && !is_of_tls(&silent) => failed.push((address, silent)),
            answer => return answer,
        }
    }
    let all: Vec<String> = failed.iter().map(|(address, no)| format!("{address}: {no}")).collect();
    let kind = failed.last().map_or(io::ErrorKind::InvalidInput, |(_, no)| no.kind());
    Err(io::Error::new(kind, all.join("; ")))
}

async fn connected(connector: &TlsConnector, name: ServerName<'static>, address: SocketAddr) -> io::Result<TlsStream<TcpStream>> {
    let tcp = TcpStream::connect(address).await?;
    tcp.set_nodelay(true)?;
    accepted(connector.connect(name, tcp).await?).await
}

/// Whether the server answered and TLS verification failed.
fn is_of_tls(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<rustls::Error>())
}

/// Waits for the server's first bytes before anything is sent. In TLS 1.3 a server refuses the client's certificate after the client's side
/// of the handshake is complete, and data sent by then can make the alert get lost. An HTTP/2 server speaks first (RFC 9113, section 3.4).
async fn accepted(mut tls: TlsStream<TcpStream>) -> io::Result<TlsStream<TcpStream>> {
    // Not less than `limits::ADDRESS`, so that an address that is silent here is given up in favour of the next one, if there is one.
    const PATIENCE: Duration = limits::ADDRESS;
    if let Ok(read) = tokio::time::timeout(PATIENCE, tls.fill_buf()).await
        && read?.is_empty()
    {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the server closed the connection after the handshake"));
    }
    Ok(tls)
}
