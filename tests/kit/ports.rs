//! Loopback ports that stay reserved for a test while nothing listens at them: for a server that is killed and comes back at the same
//! address, and for an address where nothing listens.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};

/// Below 32768, where the system's range of ports for outgoing connections begins (`net.ipv4.ip_local_port_range`): an outgoing connection
/// might take a port in the moment that a server releases it.
const FIRST: u16 = 20_000;
const LAST: u16 = 31_990;

/// Consecutive ports. By convention the holder of a number's UDP port owns the number until its process ends, in every language of these
/// tests.
pub struct Ports {
    first: u16,
    _held: Vec<UdpSocket>,
}

impl Ports {
    /// Reserves this many free ports for as long as this value lives.
    pub fn hold(many: u16) -> Ports {
        // Different processes begin their search at different ports.
        let begin = (std::process::id() % 97) as u16 * 120;
        let all = (FIRST..LAST).step_by(usize::from(many));
        let found = all.clone().skip(usize::from(begin / many)).chain(all).find_map(|first| {
            let numbers = first..first + many;
            let held = numbers.clone().map(|port| UdpSocket::bind(local(port))).collect::<Result<Vec<_>, _>>().ok()?;
            numbers.map(|port| TcpListener::bind(local(port))).collect::<Result<Vec<_>, _>>().ok()?;
            Some(Ports { first, _held: held })
        });
        found.expect("free ports below 32768")
    }

    /// The address of one of the ports.
    pub fn at(&self, nth: u16) -> SocketAddr {
        local(self.first + nth)
    }
}

fn local(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}
