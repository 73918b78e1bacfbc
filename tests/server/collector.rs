//! An OpenTelemetry collector on a port of this host: accepts OTLP/HTTP as protobuf, decodes it with its own messages, and keeps what it
//! received.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;

use parking_lot::Mutex;
use prost::Message;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

#[derive(Clone, PartialEq, Message)]
struct Request {
    #[prost(message, repeated, tag = "1")]
    resources: Vec<OfResource>,
}

#[derive(Clone, PartialEq, Message)]
struct OfResource {
    #[prost(message, optional, tag = "1")]
    resource: Option<Resource>,
    #[prost(message, repeated, tag = "2")]
    scopes: Vec<OfScope>,
}

#[derive(Clone, PartialEq, Message)]
struct Resource {
    #[prost(message, repeated, tag = "1")]
    attributes: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, Message)]
struct OfScope {
    #[prost(message, repeated, tag = "2")]
    spans: Vec<Wire>,
}

#[derive(Clone, PartialEq, Message)]
struct Wire {
    #[prost(bytes = "vec", tag = "1")]
    trace: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    id: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    parent: Vec<u8>,
    #[prost(string, tag = "5")]
    name: String,
    #[prost(int32, tag = "6")]
    kind: i32,
    #[prost(fixed64, tag = "7")]
    start: u64,
    #[prost(fixed64, tag = "8")]
    end: u64,
    #[prost(message, repeated, tag = "9")]
    attributes: Vec<KeyValue>,
    #[prost(message, optional, tag = "15")]
    status: Option<StatusOf>,
}

#[derive(Clone, PartialEq, Message)]
struct StatusOf {
    #[prost(string, tag = "2")]
    message: String,
    #[prost(int32, tag = "3")]
    code: i32,
}

#[derive(Clone, PartialEq, Message)]
struct KeyValue {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(message, optional, tag = "2")]
    value: Option<Any>,
}

#[derive(Clone, PartialEq, Message)]
struct Any {
    #[prost(string, tag = "1")]
    text: String,
    #[prost(int64, tag = "3")]
    number: i64,
}

/// A received span, with ids in hex and numbers as text.
#[derive(Clone, Debug, PartialEq)]
pub struct Span {
    pub trace: String,
    pub id: String,
    pub parent: String,
    pub name: String,
    pub kind: i32,
    pub start: u64,
    pub end: u64,
    pub attributes: BTreeMap<String, String>,
    /// The error message, if the span has an error.
    pub error: Option<String>,
}

impl Span {
    /// An attribute of the span; empty if there is none of that name.
    pub fn of(&self, key: &str) -> &str {
        self.attributes.get(key).map_or("", String::as_str)
    }
}

pub struct Collector {
    pub address: SocketAddr,
    bodies: Arc<Mutex<Vec<Vec<u8>>>>,
}

trait Both: Read + Write {}
impl<T: Read + Write> Both for T {}

impl Collector {
    /// A collector that answers 200 to every request.
    pub fn new() -> Collector {
        Collector::answering("200 OK", None)
    }

    pub fn answering(status: &'static str, tls: Option<ServerConfig>) -> Collector {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, bodies, tls) = (listener.local_addr().unwrap(), Arc::default(), tls.map(Arc::new));
        let kept: Arc<Mutex<Vec<Vec<u8>>>> = Arc::clone(&bodies);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if let Some(body) = serve(stream.unwrap(), status, tls.clone()) {
                    kept.lock().push(body);
                }
            }
        });
        Collector { address, bodies }
    }

    /// The section of the configuration that names this collector.
    pub fn section(&self, more: &str) -> String {
        format!("\n[traces]\notlp = \"http://{}/v1/traces\"\n{more}\n", self.address)
    }

    pub fn spans(&self) -> Vec<Span> {
        let all = self.bodies.lock().iter().map(|body| Request::decode(&body[..]).unwrap()).collect::<Vec<_>>();
        let spans = all.into_iter().flat_map(|r| r.resources).flat_map(|r| r.scopes).flat_map(|s| s.spans);
        spans.map(span).collect()
    }

    pub fn named(&self, name: &str) -> Vec<Span> {
        self.spans().into_iter().filter(|span| span.name == name).collect()
    }

    /// The received attributes of the service.
    pub fn service(&self) -> BTreeMap<String, String> {
        let body = self.bodies.lock()[0].clone();
        attributes(Request::decode(&body[..]).unwrap().resources.remove(0).resource.unwrap().attributes)
    }

    /// Whether a text occurs anywhere in the received bodies.
    pub fn holds(&self, text: &str) -> bool {
        self.bodies.lock().iter().any(|body| body.windows(text.len()).any(|part| part == text.as_bytes()))
    }
}

fn attributes(all: Vec<KeyValue>) -> BTreeMap<String, String> {
    let text = |any: Any| if any.text.is_empty() { any.number.to_string() } else { any.text };
    all.into_iter().map(|one| (one.key, text(one.value.unwrap_or_default()))).collect()
}

fn span(wire: Wire) -> Span {
    let hex = |bytes: &[u8]| data_encoding::HEXLOWER.encode(bytes);
    Span {
        trace: hex(&wire.trace),
        id: hex(&wire.id),
        parent: hex(&wire.parent),
        name: wire.name,
        kind: wire.kind,
        start: wire.start,
        end: wire.end,
        attributes: attributes(wire.attributes),
        error: wire.status.filter(|status| status.code == 2).map(|status| status.message),
    }
}

fn serve(stream: TcpStream, status: &str, tls: Option<Arc<ServerConfig>>) -> Option<Vec<u8>> {
    let stream: Box<dyn Both> = match tls {
        None => Box::new(stream),
        Some(config) => Box::new(StreamOwned::new(ServerConnection::new(config).unwrap(), stream)),
    };
    let mut stream = BufReader::new(stream);
    let (mut length, mut line, mut protobuf) = (0, String::new(), false);
    while stream.read_line(&mut line).ok()? > 2 {
        let lower = line.trim_end().to_ascii_lowercase();
        protobuf |= lower == "content-type: application/x-protobuf";
        if let Some(n) = lower.strip_prefix("content-length: ") {
            length = n.parse().unwrap();
        }
        line.clear();
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()?;
    assert!(protobuf, "OTLP as protobuf says so");
    let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    stream.get_mut().write_all(answer.as_bytes()).and_then(|()| stream.get_mut().flush()).ok()?;
    Some(body)
}
