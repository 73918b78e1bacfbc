//! The network address of an upstream.
//!
//! Mayfly connects only to the host that a registration names, and only to addresses that a database or a service of an organization can
//! have. A name that resolves to a loopback address is refused unless the registration says so with `localhost` or a loopback address: a
//! registration could otherwise reach services that listen on loopback because they trust everybody there. Addresses of the link are refused
//! always, because cloud providers serve machine credentials at 169.254.169.254 and fe80::/10. No connector follows a redirect.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use mayfly_base::limits;
use tokio::net::TcpStream;

/// The address of an upstream.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UpstreamAddress {
    /// The host, as the registration names it, without the brackets of an IPv6 address.
    pub host: String,
    /// The port.
    pub port: u16,
}

/// Why an upstream was not connected to.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The name has no address.
    #[error("{host} has no address: {why}")]
    Unresolved {
        /// The name.
        host: String,
        /// The resolver's error.
        why: io::Error,
    },
    /// The name has an address that no upstream may have.
    #[error("{host} resolves to {address}, {why}")]
    Refused {
        /// The name.
        host: String,
        /// The address.
        address: IpAddr,
        /// The reason, for example that the address is link-local.
        why: &'static str,
    },
    /// No address was reached.
    #[error("{host}:{port} was not reached: {why}")]
    Unreached {
        /// The name.
        host: String,
        /// The port.
        port: u16,
        /// The error of the last address.
        why: io::Error,
    },
    /// The time limit passed.
    #[error("{host}:{port} did not answer within {ms} ms")]
    TooSlow {
        /// The name.
        host: String,
        /// The port.
        port: u16,
        /// The time limit.
        ms: u64,
    },
}

impl UpstreamAddress {
    /// The host and port of a registration's target. `usual`: the port of a target without one.
    pub fn of(target: &str, usual: u16) -> Option<UpstreamAddress> {
        let (_, rest) = target.split_once("://")?;
        let authority = rest.split('/').next()?;
        let (host, port) = match authority.strip_prefix('[') {
            Some(rest) => {
                let (host, port) = rest.split_once(']')?;
                (host, port.strip_prefix(':'))
            }
            None => match authority.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (authority, None),
            },
        };
        let port = port.map_or(Some(usual), |port| port.parse().ok())?;
        (!host.is_empty()).then(|| UpstreamAddress { host: host.to_owned(), port })
    }

    /// Whether the host names this machine itself: `localhost`, or a loopback address.
    pub fn is_loopback(&self) -> bool {
        self.host == "localhost" || self.host.parse::<IpAddr>().is_ok_and(|address| canonical(address).is_loopback())
    }

    /// Connects within `limits::UPSTREAM_CONNECT_MS`.
    pub async fn connect(&self) -> Result<TcpStream, ConnectError> {
        let ms = limits::UPSTREAM_CONNECT_MS;
        let slow = || ConnectError::TooSlow { host: self.host.clone(), port: self.port, ms };
        tokio::time::timeout(Duration::from_millis(ms), self.connect_at_leisure()).await.unwrap_or_else(|_| Err(slow()))
    }

    /// The addresses of the host, checked, within `limits::UPSTREAM_CONNECT_MS`: for a client that connects by itself and must resolve no
    /// name of its own.
    pub async fn resolve(&self) -> Result<Vec<IpAddr>, ConnectError> {
        let ms = limits::UPSTREAM_CONNECT_MS;
        let slow = || ConnectError::TooSlow { host: self.host.clone(), port: self.port, ms };
        let found =
            tokio::time::timeout(Duration::from_millis(ms), self.checked_addresses()).await.unwrap_or_else(|_| Err(slow()))?;
        Ok(found.into_iter().map(|address| address.ip()).collect())
    }

    async fn checked_addresses(&self) -> Result<Vec<SocketAddr>, ConnectError> {
        let unresolved = |why| ConnectError::Unresolved { host: self.host.clone(), why };
        let found = tokio::net::lookup_host((self.host.as_str(), self.port)).await.map_err(unresolved)?;
        let found: Vec<SocketAddr> = found.take(limits::UPSTREAM_ADDRESSES).collect();
        // A name with one refused address is refused as a whole, so that the order of the addresses does not matter.
        match found.iter().find_map(|at| Some((at.ip(), refused(at.ip(), self.is_loopback())?))) {
            Some((address, why)) => Err(ConnectError::Refused { host: self.host.clone(), address, why }),
            None => Ok(found),
        }
    }

    async fn connect_at_leisure(&self) -> Result<TcpStream, ConnectError> {
        let found = self.checked_addresses().await?;
        let mut last = io::Error::new(io::ErrorKind::NotFound, "there is no address");
        for address in found {
            match TcpStream::connect(address).await {
                Ok(stream) => {
                    stream.set_nodelay(true).map_err(|why| self.unreached(why))?;
                    return Ok(stream);
                }
                Err(why) => last = why,
            }
        }
        Err(self.unreached(last))
    }

    fn unreached(&self, why: io::Error) -> ConnectError {
        ConnectError::Unreached { host: self.host.clone(), port: self.port, why }
    }
}

/// An IPv4 address that is written as an IPv6 address counts as what it is: mapped (RFC 4291, section 2.5.5.2), compatible (2.5.5.1), or
/// translated by NAT64 under its well-known prefix (RFC 6052, section 2.1).
fn canonical(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address.to_canonical() else { return address.to_canonical() };
    match v6.segments() {
        // `::` and `::1` are addresses of IPv6.
        [0, 0, 0, 0, 0, 0, 0, 0..=1] => IpAddr::V6(v6),
        [0, 0, 0, 0, 0, 0, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
            Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)).into()
        }
        _ => IpAddr::V6(v6),
    }
}

/// Why an address may not be connected to.
fn refused(address: IpAddr, loopback: bool) -> Option<&'static str> {
    let address = canonical(address);
    if address.is_unspecified() || address.is_multicast() {
        return Some("which is no address of a server");
    }
    if address.is_loopback() != loopback {
        return Some(match loopback {
            true => "which is not this host",
            false => "which is this host: a registration says so with localhost, 127.0.0.1 or [::1]",
        });
    }
    let link_local = match address {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast() || v4.octets() == METADATA_V4,
        IpAddr::V6(v6) => v6.segments()[0] & 0xffc0 == 0xfe80 || v6 == METADATA_V6,
    };
    link_local.then_some("which is an address of the link, where clouds serve the credentials of machines")
}

/// Outside 169.254.0.0/16: the metadata service of Alibaba Cloud.
const METADATA_V4: [u8; 4] = [100, 100, 100, 200];
/// Outside fe80::/10: the metadata service of AWS.
const METADATA_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_and_port_are_taken_from_the_target() {
        let of = |target| UpstreamAddress::of(target, 5432).map(|a| (a.host, a.port));
        assert_eq!(of("postgres://db.example/orders"), Some(("db.example".to_owned(), 5432)));
        assert_eq!(of("postgres://db.example:6432/orders"), Some(("db.example".to_owned(), 6432)));
        assert_eq!(of("postgres://[::1]:6432/orders"), Some(("::1".to_owned(), 6432)));
        assert_eq!(of("postgres://[::1]"), Some(("::1".to_owned(), 5432)));
        for wrong in ["db.example", "postgres:///orders", "postgres://db.example:x/orders", "postgres://[::1/orders"] {
            assert_eq!(of(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn addresses_that_no_upstream_has_are_refused() {
        let refused = |text: &str, loopback| refused(text.parse().unwrap(), loopback).is_some();
        for bad in [
            "169.254.169.254",
            "::ffff:169.254.169.254",
            "64:ff9b::169.254.169.254",
            "::169.254.169.254",
            "64:ff9b::127.0.0.1",
            "::127.0.0.1",
            "fe80::1",
            "febf::1",
            "fd00:ec2::254",
            "100.100.100.200",
            "0.0.0.0",
            "::",
            "224.0.0.1",
            "ff02::1",
            "255.255.255.255",
            "127.0.0.1",
            "::1",
            "::ffff:127.0.0.1",
        ] {
            assert!(refused(bad, false), "{bad}");
        }
        for good in ["64:ff9b::10.0.0.5", "10.0.0.5", "192.168.1.1", "203.0.113.7", "fd12:3456::1", "2001:db8::1"] {
            assert!(!refused(good, false), "{good}");
            assert!(refused(good, true), "{good} is not loopback");
        }
        assert!(!refused("127.0.0.1", true) && !refused("::1", true));
    }

    #[tokio::test]
    async fn a_loopback_address_must_be_named_as_one() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let at = |host: &str| UpstreamAddress { host: host.to_owned(), port };
        assert!(at("127.0.0.1").connect().await.is_ok());
        assert!(at("127.0.0.1").is_loopback() && at("::1").is_loopback() && at("localhost").is_loopback());
        assert!(!at("db.example").is_loopback() && !at("127.0.0.1.example").is_loopback());
    }
}
