//! A small OIDC issuer on loopback: a real HTTP server with a discovery document, a key set that can be rotated, withdrawn or corrupted,
//! and further paths that a test adds.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::signer::Signer;

/// A received request.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    pub method: String,
    /// The path with its query.
    pub path: String,
    pub headers: String,
    pub body: String,
}

/// An answer: status, further header lines, body.
pub type Answer = (u16, String, String);
type Handler = Arc<dyn Fn(&Asked) -> Answer + Send + Sync>;

#[derive(Default)]
struct Shared {
    keys: Vec<Value>,
    handlers: BTreeMap<String, Handler>,
    asked: Vec<Asked>,
}

/// The issuer.
pub struct Provider {
    /// `iss`: `http://127.0.0.1:PORT`.
    pub issuer: String,
    shared: Arc<Mutex<Shared>>,
    signer: Mutex<(String, Arc<Signer>)>,
}

/// An answer with JSON.
pub fn answer_json(value: &Value) -> Answer {
    (200, "Content-Type: application/json\r\n".into(), value.to_string())
}

pub fn seconds_now() -> u64 {
    mayfly::system::System::real().wall().seconds()
}

impl Provider {
    /// An issuer with one ES256 key, `k1`.
    pub fn start() -> Provider {
        Provider::signing("ES256")
    }

    /// An issuer with a key for another algorithm.
    pub fn signing(alg: &'static str) -> Provider {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let issuer = format!("http://{}", listener.local_addr().unwrap());
        let shared: Arc<Mutex<Shared>> = Arc::default();
        let ours = shared.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = ours.clone();
                std::thread::spawn(move || serve(stream, &shared));
            }
        });
        let provider = Provider { issuer, shared, signer: Mutex::new((String::new(), Arc::new(Signer::new(alg)))) };
        provider.rotate_to("k1", Signer::new(alg), true);
        let keys = provider.shared.clone();
        provider.lay("/keys", move |_| answer_json(&json!({"keys": keys.lock().unwrap().keys})));
        let document = provider.document();
        provider.lay("/.well-known/openid-configuration", move |_| answer_json(&document));
        provider
    }

    /// The discovery document.
    pub fn document(&self) -> Value {
        let at = |path: &str| format!("{}{path}", self.issuer);
        json!({
            "issuer": self.issuer, "jwks_uri": at("/keys"), "authorization_endpoint": at("/authorize"), "token_endpoint": at("/token"),
            "device_authorization_endpoint": at("/device"), "response_types_supported": ["code"],
            "subject_types_supported": ["public"], "id_token_signing_alg_values_supported": ["ES256"],
        })
    }

    /// Sets or replaces the handler of a path.
    pub fn lay(&self, path: &str, handler: impl Fn(&Asked) -> Answer + Send + Sync + 'static) {
        self.shared.lock().unwrap().handlers.insert(path.to_owned(), Arc::new(handler));
    }

    /// The requests received so far for a path.
    pub fn asked(&self, path: &str) -> Vec<Asked> {
        let shared = self.shared.lock().unwrap();
        shared.asked.iter().filter(|a| a.path.split('?').next() == Some(path)).cloned().collect()
    }

    /// Signs with another key from now on, which is published beside the previous ones if `publish` is set.
    pub fn rotate_to(&self, kid: &str, signer: Signer, publish: bool) {
        let mut jwk = signer.jwk();
        (jwk["kid"], jwk["use"], jwk["alg"]) = (kid.into(), "sig".into(), signer.alg.into());
        if publish {
            self.shared.lock().unwrap().keys.push(jwk);
        }
        *self.signer.lock().unwrap() = (kid.to_owned(), Arc::new(signer));
    }

    /// Stops publishing the key of that name.
    pub fn withdraw(&self, kid: &str) {
        self.shared.lock().unwrap().keys.retain(|key| key["kid"] != kid);
    }

    /// The published keys.
    pub fn jwks(&self) -> Value {
        json!({"keys": self.shared.lock().unwrap().keys})
    }

    /// Valid claims of a subject for an audience: issued now, for five minutes.
    pub fn claims(&self, sub: &str, aud: &str) -> Value {
        let now = seconds_now();
        json!({"iss": self.issuer, "sub": sub, "aud": aud, "iat": now, "exp": now + 300})
    }

    /// The current signing key, for handlers.
    pub fn signer(&self) -> (String, Arc<Signer>) {
        self.signer.lock().unwrap().clone()
    }

    /// A token over these claims, signed with the current key.
    pub fn token(&self, claims: &Value) -> String {
        let (kid, signer) = self.signer.lock().unwrap().clone();
        signer.token(&json!({"alg": signer.alg, "kid": kid, "typ": "JWT"}), claims)
    }

    /// As [`Provider::token`], with a changed header.
    pub fn token_with(&self, change: impl FnOnce(&mut Value), claims: &Value) -> String {
        let (kid, signer) = self.signer.lock().unwrap().clone();
        let mut header = json!({"alg": signer.alg, "kid": kid, "typ": "JWT"});
        change(&mut header);
        signer.token(&header, claims)
    }

    /// The issuer's section of a configuration, with further lines.
    pub fn section(&self, name: &str, environments: &[&str], more: &str) -> String {
        let issuer = &self.issuer;
        format!("\n[[oidc_issuers]]\nname = \"{name}\"\nissuer = \"{issuer}\"\nenvironments = {environments:?}\n{more}\n")
    }
}

fn serve(mut stream: TcpStream, shared: &Mutex<Shared>) {
    let Some(asked) = read(&mut stream) else { return };
    let path = asked.path.split('?').next().unwrap_or_default().to_owned();
    let handler = {
        let mut shared = shared.lock().unwrap();
        shared.asked.push(asked.clone());
        shared.handlers.get(&path).cloned()
    };
    let (status, headers, body) = handler.map_or((404, String::new(), "no such path".into()), |handler| handler(&asked));
    let head = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\nConnection: close\r\n{headers}\r\n", body.len());
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body.as_bytes()));
}

fn read(stream: &mut TcpStream) -> Option<Asked> {
    let (mut bytes, mut chunk) = (Vec::new(), [0; 4096]);
    let head = loop {
        if let Some(at) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
            break at + 4;
        }
        match stream.read(&mut chunk).ok()? {
            0 => return None,
            n => bytes.extend_from_slice(&chunk[..n]),
        }
    };
    let headers = String::from_utf8_lossy(&bytes[..head]).into_owned();
    let mut line = headers.lines().next()?.split(' ').map(str::to_owned);
    let (method, path) = (line.next()?, line.next()?);
    let length = |l: &str| l.to_ascii_lowercase().strip_prefix("content-length:").map(|n| n.trim().parse::<usize>());
    let length = headers.lines().find_map(length).and_then(Result::ok).unwrap_or(0);
    while bytes.len() < head + length {
        match stream.read(&mut chunk).ok()? {
            0 => break,
            n => bytes.extend_from_slice(&chunk[..n]),
        }
    }
    let body = String::from_utf8_lossy(&bytes[head..]).into_owned();
    Some(Asked { method, path, headers, body })
}
