//! A TLS connection to a server by its name, which may have several addresses.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::io::AsyncBufReadExt as _;
use tokio::net::{TcpStream, lookup_host};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::limits;

/// Connects to the first of a server's addresses that answers. One that is silent, in TCP, in the handshake or after it, has
/// [`limits::ADDRESS`] before the next one has its turn; the last one has all the time that the caller gives. An answer by which the server is
/// another one, or does not accept our SVID, is the answer: no other address is asked.
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

/// The same, of addresses that are known.
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

/// Whether the server answered, and TLS found the answer wanting.
fn is_of_tls(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<rustls::Error>())
}

/// Waits for the server's first bytes before ours. In TLS 1.3 a server refuses our certificate when our end of the handshake is long done,
/// and what we would have written by then makes the alert get lost. A server of HTTP/2 speaks first (RFC 9113, section 3.4).
async fn accepted(mut tls: TlsStream<TcpStream>) -> io::Result<TlsStream<TcpStream>> {
    // Not less than `limits::ADDRESS`: an address that is silent here is left for the next one, where there is one.
    const PATIENCE: Duration = limits::ADDRESS;
    if let Ok(read) = tokio::time::timeout(PATIENCE, tls.fill_buf()).await
        && read?.is_empty()
    {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the server closed the connection after the handshake"));
    }
    Ok(tls)
}
