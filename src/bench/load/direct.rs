//! Unary exchanges written directly to HTTP/2. An open loop that offers several times the server's capacity must spend less CPU on a call
//! than the server, and a gRPC client library spends more.

use std::sync::Arc;

use bytes::{BufMut as _, Bytes, BytesMut};
use h2::RecvStream;
use h2::client::{Builder, SendRequest};
use http::header::{CONTENT_TYPE, TE};
use http::{HeaderMap, HeaderValue, Method, Request};
use parking_lot::Mutex;
use prost::Message as _;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::Status;

use super::super::BenchError;
use super::super::world::BenchServer;
use super::LoadAnswer;
use mayfly_proto::mayfly::v1 as pb;

/// The flow control window for answers of a connection, bytes: 1,024 answers of 4 KB.
const ROOM: u32 = 4 << 20;

const PATH: &str = "/mayfly.v1.TokenService/Exchange";

/// A connection.
#[derive(Clone)]
pub struct Direct {
    sender: SendRequest<Bytes>,
    uri: http::Uri,
    /// The latest decoded details with a retry time; most refusals carry the same details.
    told: Arc<Mutex<Option<HeaderValue>>>,
}

/// The encoded message of a call.
pub fn encoded(request: &pb::ExchangeRequest) -> Result<Bytes, BenchError> {
    // A gRPC message over HTTP/2: a flag (not compressed), the length, the message.
    let length = request.encoded_len();
    let mut body = BytesMut::with_capacity(5 + length);
    body.put_u8(0);
    body.put_u32(u32::try_from(length)?);
    request.encode(&mut body)?;
    Ok(body.freeze())
}

impl Direct {
    /// Connects a workload to the server.
    pub async fn connect(bench: &BenchServer, name: &str) -> Result<Direct, BenchError> {
        let tcp = TcpStream::connect(bench.address).await?;
        tcp.set_nodelay(true)?;
        let config = Arc::new(bench.world.client_config(name)?);
        let tls = TlsConnector::from(config).connect(ServerName::try_from("localhost")?, tcp).await?;
        let (sender, connection) = Builder::new().enable_push(false).initial_connection_window_size(ROOM).handshake(tls).await?;
        tokio::spawn(connection);
        let uri = format!("https://{}{PATH}", bench.address).parse()?;
        Ok(Direct { sender, uri, told: Arc::default() })
    }

    /// Makes one call.
    pub async fn exchange(&self, message: Bytes) -> LoadAnswer {
        self.call(message).await.unwrap_or_else(|error| LoadAnswer::Failed(error.to_string()))
    }

    async fn call(&self, message: Bytes) -> Result<LoadAnswer, BenchError> {
        let mut call = Request::new(());
        *call.method_mut() = Method::POST;
        *call.uri_mut() = self.uri.clone();
        call.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        call.headers_mut().insert(TE, HeaderValue::from_static("trailers"));
        let mut sender = self.sender.clone().ready().await?;
        let (answer, mut stream) = sender.send_request(call, false)?;
        stream.send_data(message, true)?;
        let (head, body) = answer.await?.into_parts();
        match head.headers.contains_key("grpc-status") {
            true => Ok(self.ended(&head.headers)),
            false => self.issued(body).await,
        }
    }

    async fn issued(&self, mut body: RecvStream) -> Result<LoadAnswer, BenchError> {
        let mut message = BytesMut::new();
        while let Some(piece) = body.data().await {
            let piece = piece?;
            body.flow_control().release_capacity(piece.len())?;
            message.extend_from_slice(&piece);
        }
        let trailers = body.trailers().await?.unwrap_or_default();
        if trailers.get("grpc-status").is_none_or(|status| status != "0") {
            return Ok(self.ended(&trailers));
        }
        let answer = pb::ExchangeResponse::decode(message.get(5..).unwrap_or_default())?;
        Ok(answer.issued.map_or_else(LoadAnswer::empty, LoadAnswer::of_issued))
    }

    /// The answer of a call that failed.
    fn ended(&self, headers: &HeaderMap) -> LoadAnswer {
        let details = headers.get("grpc-status-details-bin");
        let exhausted = headers.get("grpc-status").is_some_and(|status| status == "8");
        if exhausted && details.is_some() && self.told.lock().as_ref() == details {
            return LoadAnswer::Refused(None);
        }
        let Some(status) = Status::from_header_map(headers) else { return LoadAnswer::empty() };
        let answer = LoadAnswer::of_status(&status);
        if matches!(answer, LoadAnswer::Refused(_)) {
            *self.told.lock() = details.cloned();
        }
        answer
    }
}
