//! The file with the certificate authorities that the operating system trusts.

use std::path::PathBuf;

/// The locations of the system's trusted roots: Debian, Fedora, SUSE, Alpine and others.
const SYSTEM_ROOTS: &[&str] =
    &["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem", "/etc/ssl/cert.pem"];

/// The file of the system's trusted roots.
pub fn system_roots() -> Option<PathBuf> {
    SYSTEM_ROOTS.iter().map(PathBuf::from).find(|path| path.is_file())
}
