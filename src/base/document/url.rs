//! URLs that mayfly connects to: https, or http on this host.

use core::net::IpAddr;

use http::Uri;

use crate::limits;

/// An accepted URL. It contains no user and no fragment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebUrl {
    text: String,
    /// Whether the scheme is https.
    pub https: bool,
    /// The host, lower case, without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
    /// The path and the query.
    pub path: String,
}

impl WebUrl {
    /// Parses a URL. `None`: it is invalid, or plain http to another host.
    pub fn parse(text: &str) -> Option<WebUrl> {
        let plain = text.bytes().all(|b| b.is_ascii_graphic()) && !text.contains(['@', '#', '\\']);
        if !plain || text.len() > limits::SPIFFE_ID_BYTES {
            return None;
        }
        let uri: Uri = text.parse().ok()?;
        let (https, usual) = match uri.scheme_str()?.to_ascii_lowercase().as_str() {
            "https" => (true, 443),
            "http" => (false, 80),
            _ => return None,
        };
        // http::Uri silently drops a port above 65535, so the port after the host is parsed here.
        let port = match uri.authority()?.as_str().strip_prefix(uri.host()?)? {
            "" => usual,
            port => port.strip_prefix(':')?.parse().ok()?,
        };
        let host = uri.host()?.trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
        let loopback = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
        let path = uri.path_and_query().map_or_else(|| "/".to_owned(), ToString::to_string);
        let good = !host.is_empty() && (https || loopback);
        good.then(|| WebUrl { text: text.to_owned(), https, host, port, path })
    }

    /// The URL as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The URL without the query, which may be a secret.
    pub fn shown(&self) -> &str {
        self.text.split('?').next().unwrap_or_default()
    }

    /// The value of the `Host` header.
    pub fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        match (self.https, self.port) {
            (true, 443) | (false, 80) => host,
            (_, port) => format!("{host}:{port}"),
        }
    }

    /// Whether another URL has the same origin: scheme, host and port.
    pub fn same_origin(&self, other: &WebUrl) -> bool {
        (self.https, &self.host, self.port) == (other.https, &other.host, other.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_https_or_on_this_host() {
        let url = WebUrl::parse("https://Hooks.example.org/a?key=b").unwrap();
        assert_eq!((url.host.as_str(), url.port, url.path.as_str()), ("hooks.example.org", 443, "/a?key=b"));
        assert_eq!((url.shown(), url.authority().as_str()), ("https://Hooks.example.org/a", "hooks.example.org"));
        let url = WebUrl::parse("http://[::1]:8080").unwrap();
        assert_eq!((url.host.as_str(), url.port, url.path.as_str()), ("::1", 8080, "/"));
        assert_eq!(url.authority(), "[::1]:8080");
        for bad in [
            "http://example.org/",
            "http://10.0.0.1/",
            "ftp://127.0.0.1/",
            "https://user:pass@example.org/",
            "https://example.org/#a",
            "https://example.org:70000/",
            "https://example.org:/",
            "https://example.org/a b",
            "http://127.0.0.1.example.org/",
            "/path",
            "",
        ] {
            assert!(WebUrl::parse(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn two_are_at_one_place_whatever_is_asked_there() {
        let url = |text| WebUrl::parse(text).unwrap();
        assert!(url("https://example.org/a").same_origin(&url("https://EXAMPLE.org:443/b?c")));
        for other in ["https://example.org:444/a", "https://www.example.org/a", "http://localhost/a"] {
            assert!(!url("https://example.org/a").same_origin(&url(other)), "{other}");
        }
    }
}
