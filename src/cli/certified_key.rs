//! The key that a certificate is for: given by the user as a CSR or an SSH public key, or made here.

use std::path::{Path, PathBuf};

use clap::Args;
use rcgen::{CertificateParams, KeyPair};
use zeroize::Zeroizing;

use super::CommandContext;
use super::args;
use super::error::CliError;
use mayfly_base::atomic_file::{self, PRIVATE};
use mayfly_base::limits;
use mayfly_base::system::System;
use mayfly_credential::ssh;
use mayfly_proto::mayfly::v1::{self as pb, exchange_request::PublicKey};

/// The options for the key of a certificate.
#[derive(Args)]
pub struct CertifiedKeyArgs {
    /// File with a certificate request (PKCS #10, PEM or DER), for kind x509; only its key is taken from it
    #[arg(long, value_name = "FILE", conflicts_with_all = ["ssh_key", "new_key"])]
    csr: Option<PathBuf>,
    /// File with an SSH public key, like id_ed25519.pub, for kind ssh
    #[arg(long, value_name = "FILE", conflicts_with = "new_key")]
    ssh_key: Option<PathBuf>,
    /// Make a new key for the certificate, and write it to this file, readable by its owner only; the certificate is written to FILE.crt for
    /// kind x509, and to FILE-cert.pub for kind ssh, unless --to names another file
    #[arg(long, value_name = "FILE")]
    new_key: Option<PathBuf>,
}

/// A key that was made here.
pub struct NewCertifiedKey {
    /// The private key: PKCS #8 in PEM, or in OpenSSH's form.
    pub private: Zeroizing<String>,
    /// The field of the request.
    pub public: PublicKey,
}

impl NewCertifiedKey {
    /// Makes a key for a kind; `None` for a kind that is for no key.
    pub fn of_kind(kind: pb::CredentialKind, system: &System) -> Result<Option<NewCertifiedKey>, CliError> {
        match kind {
            pb::CredentialKind::X509 => {
                let wrong = |e: rcgen::Error| CliError::ours(format!("a key could not be made: {e}"));
                let pair = KeyPair::generate().map_err(wrong)?;
                let private = Zeroizing::new(pair.serialize_pem());
                let request = CertificateParams::default().serialize_request(&pair).map_err(wrong)?;
                let public = PublicKey::CertificateRequest(request.der().to_vec().into());
                Ok(Some(NewCertifiedKey { private, public }))
            }
            pb::CredentialKind::Ssh => {
                let (private, public) = ssh::new_key(system, "mayfly").map_err(CliError::ours)?;
                Ok(Some(NewCertifiedKey { private, public: PublicKey::SshPublicKey(public) }))
            }
            _ => Ok(None),
        }
    }
}

/// A new key, and its file.
pub struct KeyFile {
    key: NewCertifiedKey,
    path: PathBuf,
    kind: pb::CredentialKind,
}

impl KeyFile {
    /// The file of the certificate: beside the key, where OpenSSH looks for it.
    pub fn certificate_file(&self) -> PathBuf {
        let ending = if self.kind == pb::CredentialKind::Ssh { "-cert.pub" } else { ".crt" };
        let mut name = self.path.clone().into_os_string();
        name.push(ending);
        name.into()
    }

    /// Writes the private key.
    pub fn write(&self, run: &CommandContext) -> Result<(), CliError> {
        let failed = |e| CliError::Local(format!("{}: {e}", self.path.display()));
        atomic_file::write(&self.path, self.key.private.as_bytes(), PRIVATE, &run.system).map_err(failed)?;
        run.out.say(format_args!(
            "the key is in {}, the certificate in {}",
            self.path.display(),
            self.certificate_file().display()
        ));
        Ok(())
    }
}

impl CertifiedKeyArgs {
    /// Whether a key is named.
    pub fn is_given(&self) -> bool {
        self.csr.is_some() || self.ssh_key.is_some() || self.new_key.is_some()
    }

    /// Whether a key is to be made.
    pub fn makes_key(&self) -> bool {
        self.new_key.is_some()
    }

    /// Puts the key into a request whose kind is known. Returns the key if it was made here.
    pub fn fill(&self, request: &mut pb::ExchangeRequest, run: &CommandContext) -> Result<Option<KeyFile>, CliError> {
        let kind = request.kind();
        if let Some(path) = &self.csr {
            request.public_key = Some(PublicKey::CertificateRequest(certificate_request(path)?.into()));
        }
        if let Some(path) = &self.ssh_key {
            let line = args::read_text(path, limits::SSH_KEY_BYTES)?.to_string();
            if line.contains("PRIVATE KEY") {
                let what = format!("--ssh-key {}: this is a private key; name the file of the public key", path.display());
                return Err(CliError::Usage(format!("{what}, which ends in .pub")));
            }
            request.public_key = Some(PublicKey::SshPublicKey(line));
        }
        let Some(path) = &self.new_key else {
            let missing = request.public_key.is_none();
            return match kind {
                pb::CredentialKind::X509 if missing => {
                    Err(CliError::Usage("a certificate is for a key: name --csr FILE, or --new-key FILE to make one".to_owned()))
                }
                pb::CredentialKind::Ssh if missing => {
                    let what = "a certificate is for a key: name --ssh-key FILE.pub, or --new-key FILE to make one";
                    Err(CliError::Usage(what.to_owned()))
                }
                _ => Ok(None),
            };
        };
        if std::fs::symlink_metadata(path).is_ok() {
            let what = format!("--new-key {}: the file exists; a key is not replaced", path.display());
            return Err(CliError::Usage(what));
        }
        let none = || CliError::Usage("--new-key is for kinds x509 and ssh".to_owned());
        let key = NewCertifiedKey::of_kind(kind, &run.system)?.ok_or_else(none)?;
        request.public_key = Some(key.public.clone());
        Ok(Some(KeyFile { key, path: path.clone(), kind }))
    }
}

/// Reads a certificate request, PEM or DER.
fn certificate_request(path: &Path) -> Result<Vec<u8>, CliError> {
    let bytes = args::read(path, 2 * limits::CSR_BYTES)?;
    if !bytes.starts_with(b"-----") {
        return Ok(bytes.to_vec());
    }
    use rustls_pki_types::pem::PemObject as _;
    let request = rustls_pki_types::CertificateSigningRequestDer::from_pem_slice(&bytes);
    let wrong = |_| CliError::Usage(format!("--csr {}: is no certificate request in PEM", path.display()));
    request.map(|request| request.as_ref().to_vec()).map_err(wrong)
}
