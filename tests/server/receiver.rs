//! A receiver of webhooks on a port of this host, which answers as it is told: well, badly, without an end, or not at all.

use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::Value;

pub const SECRET: &[u8] = &[7; 32];

/// A received delivery: id, time, signatures and body, each as it was sent.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Got {
    pub id: String,
    pub time: String,
    pub signature: String,
    pub body: String,
    pub traceparent: String,
}

impl Got {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    pub fn kind(&self) -> String {
        self.json()["type"].as_str().unwrap().to_owned()
    }
}

/// The receiver's answer.
#[derive(Clone, PartialEq)]
pub enum Answer {
    /// The given bytes, and the end of the connection.
    Bytes(String),
    /// The first bytes, and then the second ones repeatedly for as long as the client reads.
    Endless(String, String),
    /// Nothing, for as long as the client waits.
    Nothing,
}

impl Answer {
    pub fn status(line: &str) -> Answer {
        Answer::Bytes(format!("HTTP/1.1 {line}\r\n\r\n"))
    }

    pub fn ok() -> Answer {
        Answer::status("204 No Content")
    }
}

trait Both: Read + Write {}
impl<T: Read + Write> Both for T {}

/// State shared by the receiver's connections.
struct Shared {
    got: Mutex<Vec<Got>>,
    answer: Mutex<Answer>,
    over: AtomicBool,
    /// Number of bytes answered.
    said: AtomicU64,
    tls: Option<Arc<ServerConfig>>,
}

pub struct Receiver {
    pub address: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Receiver {
    pub fn on(address: SocketAddr) -> Receiver {
        Receiver::start(address, None)
    }

    pub fn new() -> Receiver {
        Receiver::on(([127, 0, 0, 1], 0).into())
    }

    pub fn with_tls(config: ServerConfig) -> Receiver {
        Receiver::start(([127, 0, 0, 1], 0).into(), Some(Arc::new(config)))
    }

    fn start(address: SocketAddr, tls: Option<Arc<ServerConfig>>) -> Receiver {
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            got: Mutex::default(),
            answer: Mutex::new(Answer::ok()),
            over: AtomicBool::new(false),
            said: AtomicU64::new(0),
            tls,
        });
        let of = shared.clone();
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if of.over.load(Ordering::Relaxed) {
                    return;
                }
                let of = of.clone();
                std::thread::spawn(move || serve(stream.unwrap(), &of));
            }
        });
        Receiver { address, shared, thread: Some(thread) }
    }

    pub fn answers(&self, answer: Answer) {
        *self.shared.answer.lock() = answer;
    }

    pub fn got(&self) -> Vec<Got> {
        self.shared.got.lock().clone()
    }

    /// Number of bytes answered.
    pub fn said(&self) -> u64 {
        self.shared.said.load(Ordering::Relaxed)
    }

    /// Each event once, in the order of its first delivery.
    pub fn events(&self) -> Vec<Got> {
        let mut events: Vec<Got> = Vec::new();
        for got in self.got() {
            if !events.iter().any(|e| e.id == got.id) {
                events.push(got);
            }
        }
        events
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(self.address);
        let _ = self.thread.take().map(std::thread::JoinHandle::join);
    }
}

fn serve(stream: TcpStream, of: &Shared) {
    let stream: Box<dyn Both> = match &of.tls {
        None => Box::new(stream),
        Some(config) => Box::new(StreamOwned::new(ServerConnection::new(config.clone()).unwrap(), stream)),
    };
    let mut stream = BufReader::new(stream);
    let Some(one) = request(&mut stream) else { return };
    let answer = of.answer.lock().clone();
    let mut say = |bytes: &str| {
        let said = stream.get_mut().write_all(bytes.as_bytes()).and_then(|()| stream.get_mut().flush());
        of.said.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        said.is_ok()
    };
    match answer {
        Answer::Bytes(bytes) => {
            if bytes.starts_with("HTTP/1.1 2") {
                of.got.lock().push(one);
            }
            say(&bytes);
        }
        Answer::Endless(head, more) => {
            if !head.is_empty() {
                of.got.lock().push(one);
                say(&head);
            }
            let mut taken = true;
            while taken && !of.over.load(Ordering::Relaxed) {
                taken = say(&more);
            }
        }
        // Wait until the client disconnects.
        Answer::Nothing => drop(stream.read(&mut [0])),
    }
}

/// The posted delivery; `None` if nothing was posted.
fn request(stream: &mut BufReader<Box<dyn Both>>) -> Option<Got> {
    let (mut length, mut one) = (0, Got::default());
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).unwrap_or(0) == 0 {
            return None;
        }
        let Some((name, value)) = line.trim_end().split_once(": ") else {
            if line == "\r\n" {
                break;
            }
            continue;
        };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.parse().unwrap(),
            "webhook-id" => one.id = value.to_owned(),
            "webhook-timestamp" => one.time = value.to_owned(),
            "traceparent" => one.traceparent = value.to_owned(),
            "webhook-signature" => one.signature = value.to_owned(),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).unwrap();
    one.body = String::from_utf8(body).unwrap();
    Some(one)
}

/// Configures a webhook with this URL.
pub fn hook_at(dir: &Path, name: &str, url: &str, more: &str) {
    let secret = dir.join("hook.secret");
    std::fs::write(&secret, format!("whsec_{}\n", data_encoding::BASE64.encode(SECRET))).unwrap();
    std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o600)).unwrap();
    let config = dir.join("mayfly.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    let section = format!("\n[[webhooks]]\nname = \"{name}\"\nurl = \"{url}\"\nsecret_file = \"hook.secret\"\n{more}\n");
    std::fs::write(&config, text + &section).unwrap();
}

/// As [`hook_at`], for a receiver without TLS.
pub fn hook(dir: &Path, name: &str, address: SocketAddr, more: &str) {
    hook_at(dir, name, &format!("http://{address}/hook?k=1"), more);
}
