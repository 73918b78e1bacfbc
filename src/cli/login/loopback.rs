//! The loopback redirect listener of a native app (RFC 8252, section 7.3): a local port that accepts one authorization response, with the
//! expected state.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use zeroize::Zeroizing;

use super::super::error::CliError;
use super::super::out::escape::for_terminal;

/// Maximum size of a request's head: a code, a state, and the headers that browsers add.
const HEAD_BYTES: usize = 16 * 1024;
/// The time limit for the head on one connection.
const READ: Duration = Duration::from_secs(5);
/// The path of the redirect URI.
const PATH: &str = "/callback";

/// A port that waits for the browser.
pub struct Loopback {
    listener: TcpListener,
    port: u16,
}

/// The content of a request.
enum Callback {
    /// The authorization code.
    Code(Zeroizing<String>),
    /// The provider refused.
    Refused(String),
    /// Any other request, which is answered and has no effect.
    Nothing(&'static str),
}

impl Loopback {
    /// Binds a port on an IP address, not a name, so that no name resolution can lead elsewhere (RFC 8252, section 8.3).
    pub async fn bind() -> Result<Loopback, CliError> {
        let failed =
            |e: std::io::Error| CliError::Local(format!("no local port could be opened for the browser's redirect: {e}"));
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.map_err(failed)?;
        let port = listener.local_addr().map_err(failed)?.port();
        Ok(Loopback { listener, port })
    }

    /// The redirect URI for the provider.
    pub fn redirect_uri(&self) -> String {
        format!("http://127.0.0.1:{}{PATH}", self.port)
    }

    /// Waits for the code of a request with this state. `issuer`: the `iss` that the redirect has, if it has one; empty: it is not compared.
    /// Other requests are refused and have no effect.
    pub async fn code(&self, state: &str, issuer: &str) -> Result<Zeroizing<String>, CliError> {
        loop {
            let Ok((mut tcp, _)) = self.listener.accept().await else { continue };
            let Ok(Ok(target)) = tokio::time::timeout(READ, target(&mut tcp)).await else { continue };
            let came = parse_callback(&target, state, issuer);
            let (status, text) = match &came {
                Callback::Code(_) => ("200 OK", "You are signed in. Close this window and go back to the terminal."),
                Callback::Refused(_) => ("200 OK", "You are not signed in. The terminal says why."),
                Callback::Nothing(why) => ("400 Bad Request", *why),
            };
            let answer = format!(
                "HTTP/1.1 {status}\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: {}\r\ncache-control: no-store\r\n\
                 referrer-policy: no-referrer\r\nconnection: close\r\n\r\n{text}",
                text.len()
            );
            // Whether the browser reads the answer does not matter.
            let _ = tcp.write_all(answer.as_bytes()).await;
            let _ = tcp.shutdown().await;
            match came {
                Callback::Code(code) => return Ok(code),
                Callback::Refused(why) => return Err(CliError::Local(format!("the provider refused: {}", for_terminal(&why)))),
                Callback::Nothing(_) => {}
            }
        }
    }
}

/// The target of a request, once its head is complete.
async fn target(tcp: &mut TcpStream) -> std::io::Result<Zeroizing<String>> {
    let mut head = Zeroizing::new(Vec::with_capacity(HEAD_BYTES));
    let mut piece = Zeroizing::new([0; 1024]);
    while !head.windows(4).any(|w| w == b"\r\n\r\n") {
        let read = tcp.read(&mut *piece).await?;
        if read == 0 || head.len() + read > HEAD_BYTES {
            return Err(std::io::ErrorKind::InvalidData.into());
        }
        head.extend_from_slice(piece.get(..read).unwrap_or_default());
    }
    let text = std::str::from_utf8(&head).map_err(|_| std::io::ErrorKind::InvalidData)?;
    let target = text.strip_prefix("GET ").and_then(|rest| rest.split(' ').next()).unwrap_or_default();
    Ok(Zeroizing::new(target.to_owned()))
}

fn parse_callback(target: &str, state: &str, issuer: &str) -> Callback {
    let Some(query) = target.strip_prefix(PATH).and_then(|rest| rest.strip_prefix('?')) else {
        return Callback::Nothing("nothing is here");
    };
    let value = |name: &str| {
        let mut all = query.split('&').filter_map(|pair| pair.split_once('=')).filter(|(key, _)| *key == name);
        let one = all.next().and_then(|(_, value)| decoded(value));
        // A repeated parameter marks a forged response.
        if all.next().is_some() { None } else { one }
    };
    if value("state").as_deref() != Some(state) {
        return Callback::Nothing("this is not the answer that is waited for");
    }
    // A response of another provider, in a mix-up attack (RFC 9207, section 2.4).
    if !issuer.is_empty() && value("iss").is_some_and(|iss| iss != issuer) {
        return Callback::Nothing("this is another provider's answer");
    }
    match (value("code"), value("error")) {
        (Some(code), None) => Callback::Code(Zeroizing::new(code)),
        (_, Some(error)) => Callback::Refused(value("error_description").map_or(error.clone(), |why| format!("{error}: {why}"))),
        (None, None) => Callback::Nothing("there is no code in this answer"),
    }
}

/// Decodes a value of a query (application/x-www-form-urlencoded).
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(b) = rest.next() {
        bytes.push(match b {
            b'+' => b' ',
            b'%' => {
                let digits = [rest.next()?, rest.next()?];
                *data_encoding::HEXUPPER_PERMISSIVE.decode(&digits).ok()?.first()?
            }
            other => other,
        });
    }
    String::from_utf8(bytes).ok()
}

/// Encodes a value for a query or form.
pub fn encoded(text: &str) -> String {
    text.bytes()
        .map(|b| match b {
            b if b.is_ascii_alphanumeric() || b"-._~".contains(&b) => char::from(b).to_string(),
            b => format!("%{b:02X}"),
        })
        .collect()
}

/// Encodes a query or form.
pub fn form(pairs: &[(&str, &str)]) -> String {
    pairs.iter().map(|(name, value)| format!("{name}={}", encoded(value))).collect::<Vec<_>>().join("&")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_answer_that_is_waited_for_counts() {
        let issuer = "https://idp.example";
        let code = |target: &str| match parse_callback(target, "st", issuer) {
            Callback::Code(code) => Some(code.to_string()),
            _ => None,
        };
        assert_eq!(code("/callback?code=a%2Fb+c&state=st").as_deref(), Some("a/b c"));
        assert_eq!(code("/callback?state=st&iss=https%3A%2F%2Fidp.example&code=x").as_deref(), Some("x"));
        for wrong in [
            "/callback?code=x",
            "/callback?code=x&state=",
            "/callback?code=x&state=other",
            "/callback?code=x&state=st&state=st",
            "/callback?code=x&code=y&state=st",
            "/callback?code=x&state=st&iss=https%3A%2F%2Fother.example",
            "/callback?state=st",
            "/callback?code=%zz&state=st",
            "/callback?error=access_denied&state=st",
            "/other?code=x&state=st",
            "/callback",
            "",
        ] {
            assert_eq!(code(wrong), None, "{wrong}");
        }
        let refused = parse_callback("/callback?error=access_denied&error_description=no+way&state=st", "st", issuer);
        assert!(matches!(refused, Callback::Refused(why) if why == "access_denied: no way"));
    }

    #[test]
    fn what_is_written_into_a_query_is_read_back() {
        for text in ["", "plain", "a b&c=d/e?f#g%h", "\u{e4}\u{1f600}"] {
            assert_eq!(decoded(&encoded(text)).as_deref(), Some(text));
        }
        assert_eq!(form(&[("a", "1"), ("b", "x y")]), "a=1&b=x%20y");
    }

    #[tokio::test]
    async fn a_stranger_at_the_port_changes_nothing() {
        let port = Loopback::bind().await.unwrap();
        let at = port.redirect_uri();
        let address = at.trim_start_matches("http://").split('/').next().unwrap().to_owned();
        let visit = |target: &'static str| {
            let address = address.clone();
            async move {
                let mut tcp = TcpStream::connect(address).await.unwrap();
                tcp.write_all(format!("GET {target} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes()).await.unwrap();
                let mut said = String::new();
                tcp.read_to_string(&mut said).await.unwrap();
                said
            }
        };
        let visits = async {
            assert!(visit("/favicon.ico").await.starts_with("HTTP/1.1 400"));
            assert!(visit("/callback?code=stolen&state=guess").await.starts_with("HTTP/1.1 400"));
            assert!(visit("/callback?code=right&state=st").await.starts_with("HTTP/1.1 200"));
        };
        let (code, ()) = tokio::join!(port.code("st", "https://idp.example"), visits);
        assert_eq!(&*code.unwrap(), "right");
    }
}
