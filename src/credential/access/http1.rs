//! One HTTP/1.1 request over a connection, and its answer with a bounded head and body. Redirects are not followed, and an answer that is
//! compressed without being asked for is refused.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH};
use http::response::Parts;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use mayfly_base::limits;
use tokio::io::{AsyncRead, AsyncWrite};
use zeroize::Zeroizing;

/// Sends a request and reads the answer. `max`: most bytes of the answer's body; 0: the body is not read. The connection ends with the call,
/// also when the call is dropped. An error says what the server did wrong, and holds nothing of the request.
pub async fn exchange<S>(stream: S, request: Request<Full<Bytes>>, max: usize) -> Result<(Parts, Zeroizing<Vec<u8>>), String>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut client = hyper::client::conn::http1::Builder::new();
    client.max_buf_size(limits::ANSWER_HEAD_BYTES);
    let (mut sender, connection) = client.handshake(TokioIo::new(stream)).await.map_err(|e| e.to_string())?;
    // The connection is driven within this call, so that dropping the call leaves nothing behind.
    let asked = async {
        let answer = sender.send_request(request).await.map_err(|e| e.to_string())?;
        read(answer, max).await
    };
    tokio::pin!(asked);
    tokio::select! {
        answer = &mut asked => answer,
        ended = connection => match ended {
            // The data received before the server closed may still contain the answer.
            Ok(()) => asked.await,
            // The error may be a close without a TLS close_notify: a truncated body is an error of its own.
            Err(e) => tokio::time::timeout(Duration::ZERO, asked).await.unwrap_or_else(|_| Err(e.to_string())),
        },
    }
}

async fn read(answer: Response<Incoming>, max: usize) -> Result<(Parts, Zeroizing<Vec<u8>>), String> {
    let (parts, mut body) = answer.into_parts();
    if max == 0 {
        return Ok((parts, Zeroizing::default()));
    }
    if parts.headers.get(CONTENT_ENCODING).is_some_and(|encoding| encoding != "identity") {
        return Err("its answer is compressed, which was not asked for".to_owned());
    }
    let announced = parts.headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    let too_large = || format!("its answer has more than {max} bytes");
    if announced.is_some_and(|length| length > max) {
        return Err(too_large());
    }
    let mut read = WipedBuffer(Zeroizing::new(Vec::with_capacity(announced.unwrap_or(FIRST_BYTES.min(max)))));
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|e| format!("its answer could not be read: {e}"))?;
        let Ok(data) = frame.into_data() else { continue };
        if read.0.len().saturating_add(data.len()) > max {
            return Err(too_large());
        }
        read.push(&data);
    }
    Ok((parts, read.0))
}

/// Room for an answer of unknown length, to begin with.
const FIRST_BYTES: usize = 4 * 1024;

/// A buffer that is wiped, also what it leaves behind when it grows.
struct WipedBuffer(Zeroizing<Vec<u8>>);

impl WipedBuffer {
    fn push(&mut self, data: &[u8]) {
        let needed = self.0.len().saturating_add(data.len());
        if needed > self.0.capacity() {
            let mut larger = Zeroizing::new(Vec::with_capacity(needed.max(self.0.capacity().saturating_mul(2))));
            larger.extend_from_slice(&self.0);
            self.0 = larger;
        }
        self.0.extend_from_slice(data);
    }
}
