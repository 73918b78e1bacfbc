//! Ports of loopback that stay with a test while nobody listens at them: for a server that is killed and comes back at the same address, and
//! for an address where nobody is.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};

/// Below 32768, from where on the system gives ports to outgoing connections (`net.ipv4.ip_local_port_range`): one of those may have a
/// port in the moment that a server lets it go.
const FIRST: u16 = 20_000;
const LAST: u16 = 31_990;

/// Ports in a row. Whoever has the UDP port of a number has the number, in every language that these tests are written in, until its
/// process ends.
pub struct Ports {
    first: u16,
    _held: Vec<UdpSocket>,
}

impl Ports {
    /// So many, free now, and nobody else's for as long as this lives.
    pub fn hold(many: u16) -> Ports {
        // Processes begin to look at different places.
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

    /// The address of one of them.
    pub fn at(&self, nth: u16) -> SocketAddr {
        local(self.first + nth)
    }
}

fn local(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}
