//! The first bytes of a connection: HTTP/2 is spoken with prior knowledge, and a peer that speaks another protocol is told so at once.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::sync::oneshot;

/// The client's connection preface (RFC 9113, section 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The answer to a peer that speaks HTTP/1.1 (RFC 9110, section 15.5.22).
const USE_HTTP2: &[u8] =
    b"HTTP/1.1 426 Upgrade Required\r\nupgrade: h2c\r\nconnection: upgrade, close\r\ncontent-type: text/plain\r\n\
content-length: 32\r\n\r\nthis port speaks gRPC (HTTP/2)\r\n";

/// Why there is no HTTP/2 connection.
#[derive(Debug, thiserror::Error)]
pub enum PrefaceError {
    /// The peer speaks HTTP/1.
    #[error("the peer speaks HTTP/1")]
    Http1,
    /// The peer speaks something else.
    #[error("the peer does not speak HTTP/2")]
    Other,
    /// The connection ended.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// Reads the preface. The caller limits the time.
///
/// The preface stays readable for the HTTP/2 layer. A peer that speaks HTTP/1 is answered before this returns.
pub async fn expect_http2<IO: AsyncRead + AsyncWrite + Unpin>(mut io: IO) -> Result<Replayed<IO>, PrefaceError> {
    let mut seen = [0u8; PREFACE.len()];
    let mut filled = 0;
    while let Some(room) = seen.get_mut(filled..).filter(|room| !room.is_empty()) {
        let n = io.read(room).await?;
        if n == 0 {
            return Err(PrefaceError::Io(io::ErrorKind::UnexpectedEof.into()));
        }
        filled += n;
        let so_far = seen.get(..filled).unwrap_or_default();
        if PREFACE.starts_with(so_far) {
            continue;
        }
        if !looks_like_http1(so_far) {
            return Err(PrefaceError::Other);
        }
        // Errors of this answer are ignored; the connection ends either way.
        let _ = io.write_all(USE_HTTP2).await;
        let _ = io.shutdown().await;
        return Err(PrefaceError::Http1);
    }
    Ok(Replayed { preface: PREFACE, io, spoke: None })
}

/// Whether the bytes begin like an HTTP/1 method: upper-case letters, as in all registered methods (RFC 9110, section 9.1).
fn looks_like_http1(bytes: &[u8]) -> bool {
    let method = bytes.iter().take_while(|b| b.is_ascii_uppercase()).count();
    method > 0 && (method == bytes.len() || bytes.get(method) == Some(&b' '))
}

/// A stream whose consumed preface is read once more, or from which nothing has been read.
pub struct Replayed<IO> {
    preface: &'static [u8],
    io: IO,
    /// Notified when the peer has sent as many bytes as a preface has; with the number of bytes still missing.
    spoke: Option<(oneshot::Sender<()>, usize)>,
}

impl<IO> Replayed<IO> {
    /// A stream on which the server sends first: a peer that negotiated HTTP/2 in the handshake waits for the server's settings, or may
    /// (RFC 9113, section 3.4). The receiver is notified when the peer has sent as many bytes as a preface has.
    pub fn unheard(io: IO) -> (Replayed<IO>, oneshot::Receiver<()>) {
        let (spoke, heard) = oneshot::channel();
        (Replayed { preface: &[], io, spoke: Some((spoke, PREFACE.len())) }, heard)
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Replayed<IO> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.preface.is_empty() {
            let before = buf.filled().len();
            let read = Pin::new(&mut self.io).poll_read(cx, buf);
            let came = buf.filled().len() - before;
            let heard = self.spoke.take_if(|(_, wanting)| {
                *wanting = wanting.saturating_sub(came);
                *wanting == 0
            });
            if let Some((spoke, _)) = heard {
                // The receiver is gone if the connection is ending.
                let _ = spoke.send(());
            }
            return read;
        }
        let (now, later) = self.preface.split_at(self.preface.len().min(buf.remaining()));
        buf.put_slice(now);
        self.preface = later;
        Poll::Ready(Ok(()))
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Replayed<IO> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn said(bytes: &[u8]) -> (Result<Vec<u8>, PrefaceError>, Vec<u8>) {
        let (mut peer, ours) = tokio::io::duplex(1024);
        peer.write_all(bytes).await.unwrap();
        peer.shutdown().await.unwrap();
        let got = match expect_http2(ours).await {
            Ok(mut io) => {
                let mut all = Vec::new();
                io.read_to_end(&mut all).await.unwrap();
                Ok(all)
            }
            Err(e) => Err(e),
        };
        let mut answer = Vec::new();
        peer.read_to_end(&mut answer).await.unwrap();
        (got, answer)
    }

    #[tokio::test]
    async fn the_preface_is_read_and_stays_readable() {
        let bytes = [&PREFACE[..], b"frames"].concat();
        assert_eq!(said(&bytes).await.0.unwrap(), bytes);
    }

    #[tokio::test]
    async fn http1_is_told_to_use_http2() {
        for request in ["GET / HTTP/1.1\r\n\r\n", "POST /mayfly.v1.TokenService/Exchange HTTP/1.1\r\n\r\n", "PRI x"] {
            let (got, answer) = said(request.as_bytes()).await;
            assert!(matches!(got, Err(PrefaceError::Http1)), "{request}: {got:?}");
            assert!(answer.starts_with(b"HTTP/1.1 426 "), "{request}");
        }
        let (head, body) = std::str::from_utf8(USE_HTTP2).unwrap().split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("content-length: {}", body.len())));
    }

    #[tokio::test]
    async fn anything_else_gets_no_answer() {
        for bytes in [&b"\x16\x03\x01\x00\xff"[..], b"SSH-2.0-x", b"", b"PRI * HTTP/2.0\r\n"] {
            let (got, answer) = said(bytes).await;
            assert!(matches!(got, Err(PrefaceError::Other | PrefaceError::Io(_))), "{got:?}");
            assert!(answer.is_empty());
        }
    }
}
