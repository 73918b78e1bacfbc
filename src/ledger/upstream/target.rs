//! The normal form of an upstream's address.

use mayfly_base::limits;

/// The normal form of a target's URL: scheme and host in lower case, the scheme's default port left out, no slash or dot at the end. Two
/// spellings of one target must not count as two targets. `None` for a text without scheme or host, or with a user, query or fragment.
pub fn target_url(text: &str) -> Option<String> {
    if text.len() > limits::NAME_BYTES * 4 || text.contains(['@', '?', '#', '%', '\\']) || !text.is_ascii() {
        return None;
    }
    let uri: http::Uri = text.parse().ok()?;
    let scheme = uri.scheme_str()?.to_ascii_lowercase();
    let host = uri.host()?.trim_end_matches('.').to_ascii_lowercase();
    if host.is_empty() || uri.path().split('/').any(|s| s == "." || s == "..") {
        return None;
    }
    let usual = match scheme.as_str() {
        "https" => Some(443),
        "http" => Some(80),
        "postgres" | "postgresql" => Some(5432),
        "ssh" => Some(22),
        _ => None,
    };
    // http::Uri silently drops a port above 65535, so the port is parsed here.
    let port: Option<u16> = match uri.authority()?.as_str().strip_prefix(uri.host()?)? {
        "" => None,
        port => Some(port.strip_prefix(':')?.parse().ok()?),
    };
    let port = port.filter(|p| Some(*p) != usual).map(|p| format!(":{p}")).unwrap_or_default();
    let path: String = uri.path().split('/').filter(|s| !s.is_empty()).flat_map(|s| ["/", s]).collect();
    Some(format!("{scheme}://{host}{port}{path}"))
}
