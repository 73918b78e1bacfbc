//! The destination of the audit export.

use std::fmt;
use std::path::{Path, PathBuf};

use super::values::{Conflict, Values};
use mayfly_base::document::url::WebUrl;

/// A destination of the continuous export.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExportDestination {
    /// `audit.export_file`
    File(PathBuf),
    /// `audit.export_syslog`
    Syslog(Syslog),
    /// `audit.export_otlp`
    Otlp(Collector),
}

/// The address of a syslog.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Syslog {
    /// Host and port.
    Tcp(String),
    /// Host and port.
    Udp(String),
    /// A socket of this host.
    Unix(PathBuf),
}

impl fmt::Display for Syslog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Syslog::Tcp(address) => write!(f, "tcp://{address}"),
            Syslog::Udp(address) => write!(f, "udp://{address}"),
            Syslog::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// An OpenTelemetry collector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Collector {
    /// The URL to which requests are posted.
    pub url: WebUrl,
    /// The roots for verifying the collector: `audit.export_ca`. `None`: those of the system.
    pub ca: Option<PathBuf>,
}

fn has_port(address: &str) -> bool {
    address.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok_and(|p| p > 0))
}

fn syslog(text: &str) -> Option<Syslog> {
    if let Some(path) = text.strip_prefix("unix:") {
        return path.starts_with('/').then(|| Syslog::Unix(path.into()));
    }
    let (kind, address) = text.split_once("://").filter(|(_, address)| has_port(address) && !address.contains('/'))?;
    match kind {
        "tcp" => Some(Syslog::Tcp(address.to_owned())),
        "udp" => Some(Syslog::Udp(address.to_owned())),
        _ => None,
    }
}

/// The configured destination; at most one may be set.
pub(super) fn export(values: &Values, base: &Path, conflict: &mut Conflict<'_>) -> Option<ExportDestination> {
    const KEYS: [&str; 3] = ["audit.export_file", "audit.export_syslog", "audit.export_otlp"];
    let [file, syslog_to, otlp] = KEYS;
    let mut found = Vec::new();
    found.extend(values.path(file, base).map(|path| (file, Some(ExportDestination::File(path)))));
    found.extend(values.text(syslog_to).map(|text| (syslog_to, syslog(&text).map(ExportDestination::Syslog))));
    let ca = values.path("audit.export_ca", base);
    if let (Some(_), None) = (&ca, values.text(otlp)) {
        conflict("audit.export_ca", "audit.export_ca is set, and audit.export_otlp is not", "it is for that alone: leave it out");
    }
    let collector = |text: &str| WebUrl::parse(text).map(|url| ExportDestination::Otlp(Collector { url, ca: ca.clone() }));
    found.extend(values.text(otlp).map(|text| (otlp, collector(&text))));
    for (key, to) in &found {
        if to.is_none() {
            let form = match *key == otlp {
                true => "https://HOST/v1/logs (http on this host only)",
                false => "tcp://HOST:PORT, udp://HOST:PORT or unix:/PATH",
            };
            conflict(key, &format!("{key} is not of the form {form}"), "write it in that form");
        }
    }
    if let [(one, _), (other, _), ..] = &found[..] {
        conflict(
            other,
            &format!("{one} and {other} are both set"),
            "leave one of them out: one place says how far the export is",
        );
    }
    found.into_iter().next().and_then(|(_, to)| to)
}
