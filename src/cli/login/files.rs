//! The files of a login: in a private directory beside the context file, written completely or not at all.

use std::fs;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use super::super::args;
use super::super::context::default_path;
use super::super::error::CliError;
use mayfly_api::people::LoginAnswer;
use mayfly_base::atomic_file::{self, PRIVATE};
use mayfly_base::limits;
use mayfly_base::system::System;
use mayfly_identity::anchor::TrustAnchor;
use mayfly_identity::sha256;
use mayfly_identity::svid::PeerChain;
use mayfly_verify::seq::Millis;

/// The directory of a context's login: that of `config.toml` is `config.login/`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LoginFiles {
    folder: PathBuf,
}

fn failed<'a>(what: &'a str, path: &'a Path) -> impl Fn(std::io::Error) -> CliError + 'a {
    move |e| CliError::Local(format!("{}: cannot be {what}: {e}", path.display()))
}

impl LoginFiles {
    /// The login directory of a context file, or of the default one.
    pub fn beside(context: Option<&Path>) -> Result<LoginFiles, CliError> {
        let path = context.map(Path::to_owned).or_else(default_path);
        let path = path.ok_or_else(|| CliError::Usage("where is the login to be kept? set HOME, or name --config".to_owned()))?;
        Ok(LoginFiles { folder: path.with_extension("login") })
    }

    /// The path of the certificate.
    pub fn svid(&self) -> PathBuf {
        self.folder.join("svid.pem")
    }

    /// The path of its private key.
    pub fn key(&self) -> PathBuf {
        self.folder.join("key.pem")
    }

    /// The stored certificate, in DER.
    fn certificate(&self) -> Result<Option<Vec<u8>>, CliError> {
        let path = self.svid();
        if !path.exists() {
            return Ok(None);
        }
        let pem = args::read_regular(&path, limits::PEM_FILE_BYTES)?;
        let chain = PeerChain::from_pem(&pem).map_err(|e| CliError::Local(format!("{} {e}", path.display())))?;
        Ok(chain.certificates().first().map(|cert| cert.to_vec()))
    }

    /// When the certificate expires; `None` if nobody is signed in.
    pub fn ends(&self) -> Option<Millis> {
        let der = self.certificate().ok().flatten()?;
        TrustAnchor::from_der(&der).map(|cert| cert.not_after())
    }

    /// Whether the certificate has expired.
    pub fn ended(&self, now: Millis) -> bool {
        self.ends().is_some_and(|end| end <= now)
    }

    /// The serial number of the certificate, without the zero byte that DER puts before a set high bit.
    pub(super) fn serial(&self) -> Result<Option<Vec<u8>>, CliError> {
        let Some(der) = self.certificate()? else { return Ok(None) };
        let (_, cert) =
            X509Certificate::from_der(&der).map_err(|_| CliError::Local("the login's certificate cannot be read".to_owned()))?;
        Ok(Some(cert.raw_serial().iter().copied().skip_while(|b| *b == 0).collect()))
    }

    /// Checks that a login can be stored before its token is used: creates the directory, and writes and removes a file there.
    pub fn prepare(&self, system: &System) -> Result<(), CliError> {
        self.private_folder()?;
        let probe = self.folder.join(data_encoding::HEXLOWER.encode(&system.random16()));
        self.put(&probe, b"", system)?;
        remove(&probe)
    }

    fn private_folder(&self) -> Result<(), CliError> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.folder).map_err(failed("made", &self.folder))?;
        // The directory may have existed with wider permissions.
        fs::set_permissions(&self.folder, fs::Permissions::from_mode(0o700)).map_err(failed("made private", &self.folder))
    }

    /// Stores a login. The certificate in the server's answer must be for the client's own key; a certificate for another key is useless or
    /// an attack.
    pub fn write(&self, made: &LoginAnswer, key: &str, spki: &[u8], system: &System) -> Result<(), CliError> {
        for_our_key(made, spki)?;
        self.private_folder()?;
        // The certificate is removed first and written last, so that a certificate is never stored beside a key that it does not match.
        remove(&self.svid())?;
        self.put(&self.key(), key.as_bytes(), system)?;
        self.put(&self.svid(), made.certificate.as_bytes(), system)
    }

    /// Stores a renewed certificate of the existing key. The file is replaced atomically, so that a reader always finds a certificate.
    pub fn renew(&self, made: &LoginAnswer, spki: &[u8], system: &System) -> Result<(), CliError> {
        for_our_key(made, spki)?;
        self.put(&self.svid(), made.certificate.as_bytes(), system)
    }

    fn put(&self, path: &Path, bytes: &[u8], system: &System) -> Result<(), CliError> {
        atomic_file::write(path, bytes, PRIVATE, system).map_err(failed("written", path))
    }

    /// Removes the files of the login.
    pub(super) fn remove(&self) -> Result<(), CliError> {
        remove(&self.svid())?;
        remove(&self.key())
    }
}

fn for_our_key(made: &LoginAnswer, spki: &[u8]) -> Result<(), CliError> {
    let chain = PeerChain::from_pem(made.certificate.as_bytes());
    let chain = chain.map_err(|e| CliError::Local(format!("the server's certificate {e}")))?;
    let ours = chain.certificates().first().and_then(|der| TrustAnchor::from_der(der));
    match ours.is_some_and(|cert| *cert.key() == sha256(spki)) {
        true => Ok(()),
        false => Err(CliError::Local("the server's certificate is for another key than ours".to_owned())),
    }
}

fn remove(path: &Path) -> Result<(), CliError> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(failed("deleted", path)(e)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(key: &rcgen::KeyPair) -> LoginAnswer {
        let cert = rcgen::CertificateParams::default().self_signed(key).unwrap();
        let (credential, spiffe_id) = (String::new(), String::new());
        LoginAnswer { credential, seq: 1, spiffe_id, certificate: cert.pem(), expires_at: 0 }
    }

    #[test]
    fn a_login_is_kept_for_its_owner_alone_and_only_with_the_key_that_it_is_for() {
        use rcgen::PublicKeyData as _;
        let folder = tempfile::tempdir().unwrap();
        let kept = LoginFiles::beside(Some(&folder.path().join("config.toml"))).unwrap();
        assert_eq!(kept.svid(), folder.path().join("config.login/svid.pem"));
        assert!(kept.ends().is_none());
        let (key, other) = (rcgen::KeyPair::generate().unwrap(), rcgen::KeyPair::generate().unwrap());
        let system = System::real();
        kept.prepare(&system).unwrap();
        assert_eq!(fs::read_dir(folder.path().join("config.login")).unwrap().count(), 0, "nothing is left of the look");
        let blocked = LoginFiles::beside(Some(&folder.path().join("file/config.toml"))).unwrap();
        fs::write(folder.path().join("file"), "").unwrap();
        assert!(blocked.prepare(&system).is_err(), "a login that cannot be kept is not asked for");
        let spki = key.subject_public_key_info();
        assert!(kept.write(&made(&other), &key.serialize_pem(), &spki, &system).is_err());
        assert!(!kept.svid().exists() && !kept.key().exists());
        fs::create_dir_all(kept.svid().parent().unwrap()).unwrap();
        kept.write(&made(&key), &key.serialize_pem(), &spki, &system).unwrap();
        for path in [kept.svid(), kept.key()] {
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600, "{path:?}");
        }
        assert_eq!(fs::metadata(kept.svid().parent().unwrap()).unwrap().permissions().mode() & 0o777, 0o700);
        assert!(!kept.ended(Millis(0)) && kept.serial().unwrap().is_some());
        kept.remove().unwrap();
        kept.remove().unwrap();
        assert!(!kept.svid().exists() && !kept.key().exists());
    }
}
