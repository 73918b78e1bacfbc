//! TLS to upstreams: version 1.3, the host verified by the roots beside the secret of the upstream, or by those of the system.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::time_provider::TimeProvider;
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore};

use super::UpstreamAccess;
use mayfly_base::system::System;
use mayfly_base::system_roots::system_roots;
use mayfly_base::{bounded_file, limits};

/// The clock for checking the validity of certificates.
pub struct TlsClock(pub System);

impl fmt::Debug for TlsClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TlsClock")
    }
}

impl TimeProvider for TlsClock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_secs(self.0.wall().seconds())))
    }
}

impl UpstreamAccess {
    /// The configuration of a TLS client that verifies an upstream. The error says what is wrong with its roots.
    ///
    /// Reads files, and may take some milliseconds.
    pub fn tls(&self, upstream: &str) -> Result<Arc<ClientConfig>, String> {
        self.tls_with(upstream, None)
    }

    /// The certificates that may verify an upstream: those beside its secret, or those of the system. Some may be unusable.
    ///
    /// Reads files, and may take some milliseconds.
    pub fn trusted_roots(&self, upstream: &str) -> Result<Vec<CertificateDer<'static>>, String> {
        self.trusted_roots_with(upstream, None)
    }

    fn trusted_roots_with(&self, upstream: &str, server_ca: Option<&str>) -> Result<Vec<CertificateDer<'static>>, String> {
        match (self.roots(upstream).map_err(|e| e.to_string())?, server_ca) {
            (Some(pem), _) => roots_of(pem.as_bytes(), "the file of its roots"),
            (None, Some(pem)) => roots_of(pem.as_bytes(), "server_ca"),
            (None, None) => {
                let path = system_roots().ok_or("this host has no file of trusted roots, and there is none for the upstream")?;
                let pem = bounded_file::read(&path, limits::CA_FILE_BYTES).map_err(|e| format!("{}: {e}", path.display()))?;
                roots_of(&pem, &path.display().to_string())
            }
        }
    }

    /// As [`UpstreamAccess::tls`], with roots in PEM from the registration, which count only if the upstream has no file of roots: whoever
    /// changes a registration must not decide who receives a secret of this host. Connectors that send such a secret therefore give none.
    pub fn tls_with(&self, upstream: &str, server_ca: Option<&str>) -> Result<Arc<ClientConfig>, String> {
        let mut roots = RootCertStore::empty();
        for certificate in self.trusted_roots_with(upstream, server_ca)? {
            // A system's file may contain an unusable certificate; the others are still valid.
            let _ = roots.add(certificate);
        }
        if roots.is_empty() {
            return Err("the roots of the upstream have no CA certificate that can be used".to_owned());
        }
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_details(provider, Arc::new(TlsClock(self.system().clone())));
        let builder = builder.with_protocol_versions(&[&TLS13]).map_err(|e| e.to_string())?;
        let mut config = builder.with_root_certificates(roots).with_no_client_auth();
        config.resumption = rustls::client::Resumption::disabled();
        Ok(Arc::new(config))
    }
}

/// The certificates of a file of roots.
fn roots_of(pem: &[u8], of: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let all: Result<Vec<CertificateDer<'static>>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let all = all.map_err(|_| format!("{of} has a PEM section that is cut off"))?;
    match all.is_empty() {
        true => Err(format!("{of} has no CA certificate in PEM")),
        false => Ok(all),
    }
}
