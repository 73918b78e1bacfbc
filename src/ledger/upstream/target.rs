//! The normal form of an upstream's address.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use mayfly_base::limits;

/// The normal form of a target's URL: scheme and host in lower case, an address in its usual spelling, the scheme's default port left out, no
/// slash or dot at the end. Two spellings of one target must not count as two targets. `None` for a text without scheme or host, or with a
/// user, query or fragment.
pub fn target_url(text: &str) -> Option<String> {
    if text.len() > limits::NAME_BYTES * 4 || text.contains(['@', '?', '#', '%', '\\']) || !text.is_ascii() {
        return None;
    }
    let uri: http::Uri = text.parse().ok()?;
    let scheme = uri.scheme_str()?.to_ascii_lowercase();
    let host = usual_host(uri.host()?.trim_end_matches('.').to_ascii_lowercase());
    if host.is_empty() || uri.path().split('/').any(|s| s == "." || s == "..") {
        return None;
    }
    let usual = match scheme.as_str() {
        "https" => Some(443),
        "http" => Some(80),
        "postgres" | "postgresql" => Some(5432),
        "mysql" => Some(3306),
        "redis" => Some(6379),
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

/// A host with an address in its usual spelling; a name stays as it is.
fn usual_host(host: String) -> String {
    let inner = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    match inner {
        Some(inner) => match inner.parse::<Ipv6Addr>().map(|ip| ip.to_canonical()) {
            Ok(IpAddr::V4(ip)) => ip.to_string(),
            Ok(IpAddr::V6(ip)) => format!("[{ip}]"),
            Err(_) => host,
        },
        None => ipv4(&host).map_or(host, |ip| ip.to_string()),
    }
}

/// An IPv4 address in one of the spellings that resolvers take (inet_aton): one to four parts, of which the last fills the rest of the
/// address, each decimal, octal with a leading 0, or hexadecimal with a leading 0x.
fn ipv4(host: &str) -> Option<Ipv4Addr> {
    let parts: Vec<u64> = host.split('.').map(part).collect::<Option<_>>()?;
    let (last, first) = parts.split_last().filter(|(_, first)| first.len() < 4)?;
    let high = first.iter().try_fold(0u64, |all, part| (*part < 256).then_some(all << 8 | part))?;
    let bits = 32 - 8 * first.len();
    (*last < 1 << bits).then(|| high << bits | last).and_then(|address| u32::try_from(address).ok()).map(Ipv4Addr::from)
}

fn part(text: &str) -> Option<u64> {
    let (digits, radix) = match text.strip_prefix("0x") {
        Some("") => return Some(0),
        Some(hex) => (hex, 16),
        None if text.len() > 1 && text.starts_with('0') => (text, 8),
        None => (text, 10),
    };
    // A sign is none of an address.
    digits.bytes().all(|b| b.is_ascii_hexdigit()).then(|| u64::from_str_radix(digits, radix).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::target_url;

    #[test]
    fn an_address_has_one_spelling() {
        for other in [
            "127.1",
            "127.0.1",
            "2130706433",
            "0x7f.1",
            "0177.0.0.1",
            "0x7f000001",
            "127.0.0.1.",
            "[::ffff:127.0.0.1]",
            "[::FFFF:7f00:1]",
        ] {
            assert_eq!(target_url(&format!("https://{other}:8443/a")).as_deref(), Some("https://127.0.0.1:8443/a"), "{other}");
        }
        assert_eq!(target_url("https://[0:0:0:0:0:0:0:1]/").as_deref(), Some("https://[::1]"));
        assert_eq!(target_url("https://[2001:DB8::0:1]:443").as_deref(), Some("https://[2001:db8::1]"));
        // Names, and what is no address.
        for name in
            ["127.0.0.1.example.org", "0x7g.1", "1.2.3.4.5", "256.1.1.1", "127.16777216", "4294967296", "a1", "08.1", "beef"]
        {
            assert_eq!(target_url(&format!("https://{name}")), Some(format!("https://{name}")), "{name}");
        }
    }
}
