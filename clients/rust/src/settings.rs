//! Settings: the server's address and the client's identity.

use std::path::PathBuf;
use std::time::Duration;

use mayfly_verify::identity::spiffe_id::SpiffeId;

use crate::error::Error;
use crate::limits;

/// The source of the client's SVID and of the bundle for verifying the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identity {
    /// PEM files, read again when they change.
    Files {
        /// The client's SVID and its chain.
        svid: PathBuf,
        /// The SVID's private key.
        key: PathBuf,
        /// The bundle of the server's trust domain, PEM or SPIFFE JWKS.
        bundle: PathBuf,
    },
    /// The SPIFFE Workload API at a Unix socket.
    WorkloadApi {
        /// The socket.
        socket: PathBuf,
    },
}

/// The settings of a client.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `HOST:PORT` of the server's listener for workloads.
    pub address: String,
    /// The SPIFFE ID that the server must have. Its trust domain selects the bundle.
    pub server_id: SpiffeId,
    /// The client's identity.
    pub identity: Identity,
    /// The default task, for requests that name none: the task that a stdio server was started for.
    pub task: Option<String>,
    /// Send exchanges over one stream, for high rates. That costs a tenth of separate calls, but all exchanges share one connection.
    pub streaming: bool,
    /// How long a shared credential without holders is kept before it is released. Default 5 s.
    pub idle: Duration,
    /// Returns the caller's trace context as a W3C `traceparent`, which mayfly continues. Called in the caller's task for each exchange
    /// that is a call of its own.
    pub traceparent: Option<fn() -> Option<String>>,
}

impl Settings {
    /// Settings with default values.
    pub fn new(address: &str, server_id: SpiffeId, identity: Identity) -> Settings {
        let address = address.strip_prefix("https://").unwrap_or(address).trim_end_matches('/').to_owned();
        Settings { address, server_id, identity, task: None, streaming: false, idle: limits::IDLE, traceparent: None }
    }

    /// Settings from the environment variables that the command line uses too: `MAYFLY_ADDRESS`, `MAYFLY_SERVER_ID`, then either
    /// `MAYFLY_SVID`, `MAYFLY_KEY` and `MAYFLY_BUNDLE`, or `SPIFFE_ENDPOINT_SOCKET`; and optionally `MAYFLY_TASK`.
    pub fn from_env() -> Result<Settings, Error> {
        Settings::from_names(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
    }

    /// The same, with a function that looks up the variables.
    pub fn from_names(value: impl Fn(&str) -> Option<String>) -> Result<Settings, Error> {
        let wrong = |text: String| Err(Error::Settings(text));
        let Some(address) = value("MAYFLY_ADDRESS") else {
            return wrong("MAYFLY_ADDRESS is not set: HOST:PORT of mayfly's listener for workloads".to_owned());
        };
        let Some(id) = value("MAYFLY_SERVER_ID") else {
            return wrong(
                "MAYFLY_SERVER_ID is not set: the SPIFFE ID of the mayfly server, like spiffe://example.org/mayfly".to_owned(),
            );
        };
        let server_id = match SpiffeId::parse(&id) {
            Ok(id) => id,
            Err(e) => return wrong(format!("MAYFLY_SERVER_ID {id:?} is no SPIFFE ID: {e}")),
        };
        // `MAYFLY_SVID_KEY` is the variable's name in some deployments.
        let key = value("MAYFLY_KEY").or_else(|| value("MAYFLY_SVID_KEY"));
        let identity = match (value("MAYFLY_SVID"), key, value("MAYFLY_BUNDLE"), value("SPIFFE_ENDPOINT_SOCKET")) {
            (Some(svid), Some(key), Some(bundle), _) => {
                Identity::Files { svid: svid.into(), key: key.into(), bundle: bundle.into() }
            }
            (None, None, None, Some(socket)) => Identity::WorkloadApi { socket: socket_path(&socket)? },
            (None, None, None, None) => {
                return wrong("no SVID: set MAYFLY_SVID, MAYFLY_KEY and MAYFLY_BUNDLE, or SPIFFE_ENDPOINT_SOCKET".to_owned());
            }
            _ => return wrong("set all of MAYFLY_SVID, MAYFLY_KEY and MAYFLY_BUNDLE, or none of them".to_owned()),
        };
        Ok(Settings { task: value("MAYFLY_TASK"), ..Settings::new(&address, server_id, identity) })
    }
}

/// Parses `unix:///path` or `unix:/path` (SPIFFE Workload Endpoint, section 4).
fn socket_path(text: &str) -> Result<PathBuf, Error> {
    let path = text.strip_prefix("unix://").or_else(|| text.strip_prefix("unix:"));
    match path.filter(|p| p.starts_with('/')) {
        Some(path) => Ok(path.into()),
        None => Err(Error::Settings(format!("SPIFFE_ENDPOINT_SOCKET {text:?} is not unix:/PATH"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [(&str, &str); 6] = [
        ("MAYFLY_ADDRESS", "https://localhost:7143"),
        ("MAYFLY_SERVER_ID", "spiffe://a.example/mayfly"),
        ("MAYFLY_SVID", "s.pem"),
        ("MAYFLY_KEY", "k.pem"),
        ("MAYFLY_BUNDLE", "b.pem"),
        ("SPIFFE_ENDPOINT_SOCKET", "unix:///run/agent.sock"),
    ];

    fn of(names: &[&str]) -> Result<Settings, Error> {
        Settings::from_names(|name| ALL.iter().find(|(n, _)| *n == name && names.contains(n)).map(|(_, v)| (*v).to_owned()))
    }

    #[test]
    fn files_come_before_the_workload_api_and_half_of_them_is_an_error() {
        let all = of(&ALL.map(|(name, _)| name)).unwrap();
        assert_eq!(all.address, "localhost:7143");
        assert!(matches!(all.identity, Identity::Files { .. }));
        let api = of(&["MAYFLY_ADDRESS", "MAYFLY_SERVER_ID", "SPIFFE_ENDPOINT_SOCKET"]).unwrap();
        assert_eq!(api.identity, Identity::WorkloadApi { socket: "/run/agent.sock".into() });
        for missing in [
            &["MAYFLY_SERVER_ID", "SPIFFE_ENDPOINT_SOCKET"][..],
            &["MAYFLY_ADDRESS", "SPIFFE_ENDPOINT_SOCKET"],
            &["MAYFLY_ADDRESS", "MAYFLY_SERVER_ID"],
            &["MAYFLY_ADDRESS", "MAYFLY_SERVER_ID", "MAYFLY_SVID", "SPIFFE_ENDPOINT_SOCKET"],
        ] {
            assert!(matches!(of(missing), Err(Error::Settings(_))), "{missing:?}");
        }
        assert!(socket_path("tcp:127.0.0.1:1").is_err());
    }
}
