//! Export to syslog (RFC 5424): over TCP with octet counting (RFC 6587, section 3.4.1), over UDP (RFC 5426), to a local socket.
//!
//! Syslog has no acknowledgement: records that the kernel accepted and the receiver never read are lost with the connection. Export to a
//! file or a collector does not have this problem.

use std::io::{self, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use super::{ExportRecord, ExportSink};
use mayfly_base::limits;
use mayfly_config::config::Syslog;

/// Facility 13 (log audit), severity 6 (informational): RFC 5424, section 6.2.1.
const PRIORITY: u32 = 13 * 8 + 6;

enum Open {
    Tcp(TcpStream),
    Udp(UdpSocket),
    Unix(UnixDatagram),
}

/// The destination syslog.
pub struct SyslogSink {
    to: Syslog,
    host: String,
    open: Option<Open>,
    cut: u64,
}

/// Whether a datagram was too large for its socket: EMSGSIZE.
fn too_large(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::MSGSIZE.raw_os_error())
}

impl SyslogSink {
    /// A destination at this address.
    pub fn new(to: Syslog) -> SyslogSink {
        let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let host: String = name.chars().filter(char::is_ascii_graphic).take(255).collect();
        SyslogSink { to, host: if host.is_empty() { "-".to_owned() } else { host }, open: None, cut: 0 }
    }

    fn connect(&self) -> io::Result<Open> {
        let patience = Duration::from_millis(limits::EXPORT_CALL_MS);
        Ok(match &self.to {
            Syslog::Tcp(address) => {
                let stream = TcpStream::connect_timeout(&resolved(address)?, patience)?;
                stream.set_write_timeout(Some(patience))?;
                Open::Tcp(stream)
            }
            Syslog::Udp(address) => {
                let to = resolved(address)?;
                let socket = UdpSocket::bind(if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" })?;
                socket.connect(to)?;
                Open::Udp(socket)
            }
            Syslog::Unix(path) => {
                let socket = UnixDatagram::unbound()?;
                socket.set_write_timeout(Some(patience))?;
                socket.connect(path)?;
                Open::Unix(socket)
            }
        })
    }

    /// HEADER, no structured data, and the record as JSON, which is ASCII.
    fn message(&self, one: &ExportRecord) -> String {
        // MSGID has no spaces (section 6.2.7).
        let event = one.event.replace(' ', "-");
        format!("<{PRIORITY}>1 {} {} mayfly {} {event} - {}", one.at, self.host, std::process::id(), one.json)
    }

    fn send(&mut self, batch: &[ExportRecord]) -> io::Result<()> {
        if self.open.is_none() {
            self.open = Some(self.connect()?);
        }
        if matches!(self.open, Some(Open::Udp(_) | Open::Unix(_))) {
            return batch.iter().try_for_each(|one| self.send_datagram(one));
        }
        let messages: Vec<String> = batch.iter().map(|one| self.message(one)).collect();
        match &mut self.open {
            Some(Open::Tcp(stream)) => {
                let frames: String = messages.iter().map(|m| format!("{} {m}", m.len())).collect();
                stream.write_all(frames.as_bytes())?;
                stream.flush()
            }
            _ => Ok(()),
        }
    }

    /// Sends one record as one datagram; a record that is too large is replaced by its substitute ([`ExportRecord::cut`]).
    fn send_datagram(&mut self, one: &ExportRecord) -> io::Result<()> {
        let send = |message: String| match &self.open {
            Some(Open::Udp(socket)) => socket.send(message.as_bytes()).map(|_| ()),
            Some(Open::Unix(socket)) => socket.send(message.as_bytes()).map(|_| ()),
            _ => Ok(()),
        };
        match send(self.message(one)) {
            Err(error) if too_large(&error) => {
                send(self.message(&one.cut()))?;
                self.cut += 1;
                tracing::warn!(
                    event = one.event,
                    bytes = one.json.len(),
                    "a record is too large for a syslog datagram; only its seq is exported"
                );
                Ok(())
            }
            sent => sent,
        }
    }
}

/// The first address of a host name.
pub(super) fn resolved(address: &str) -> io::Result<std::net::SocketAddr> {
    let none = || io::Error::new(io::ErrorKind::NotFound, format!("{address}: there is no such host"));
    address.to_socket_addrs()?.next().ok_or_else(none)
}

impl ExportSink for SyslogSink {
    fn hand_over(&mut self, batch: &[ExportRecord]) -> io::Result<()> {
        self.send(batch).map_err(|e| {
            self.open = None;
            io::Error::new(e.kind(), format!("syslog {}: {e}", self.to))
        })
    }

    fn cut(&self) -> u64 {
        self.cut
    }
}
