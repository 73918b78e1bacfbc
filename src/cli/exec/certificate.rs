//! The files of a certificate: in a private directory that exists as long as the program, with a key that exists nowhere else.

use std::fs::{DirBuilder, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::super::certified_key::NewCertifiedKey;
use super::super::error::CliError;
use super::super::show::issued::IssuedAnswerView;
use mayfly_base::system::System;

/// A certificate with its key, as files.
pub(super) struct CertificateFiles {
    directory: PathBuf,
    /// The files, to be removed with the directory.
    names: Vec<&'static str>,
    /// The variables, by what follows the name of the upstream: that of the file which clients are given first, then the others.
    variables: Vec<(&'static str, String)>,
}

impl Drop for CertificateFiles {
    fn drop(&mut self) {
        for name in &self.names {
            let _ = std::fs::remove_file(self.directory.join(name));
        }
        let _ = std::fs::remove_dir(&self.directory);
    }
}

impl CertificateFiles {
    /// The path that clients are given first.
    pub fn main(&self) -> &str {
        self.variables.first().map_or("", |(_, path)| path)
    }

    /// The part of the variable's name after that of the upstream.
    pub fn ending(&self) -> &'static str {
        self.variables.first().map_or("", |(ending, _)| ending)
    }

    /// The other variables.
    pub fn others(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.variables.iter().skip(1).map(|(ending, path)| (*ending, path.as_str()))
    }

    fn make(system: &System) -> std::io::Result<CertificateFiles> {
        // The runtime directory of a user is in memory, and is the user's alone.
        let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|dir| dir.is_absolute() && dir.is_dir());
        let parent = runtime.unwrap_or_else(std::env::temp_dir);
        let directory = parent.join(format!("mayfly-certificate-{}", super::super::show::hex(&system.random16())));
        DirBuilder::new().mode(0o700).create(&directory)?;
        Ok(CertificateFiles { directory, names: Vec::new(), variables: Vec::new() })
    }

    fn put(&mut self, name: &'static str, text: &str) -> std::io::Result<String> {
        let path = self.directory.join(name);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        self.names.push(name);
        file.write_all(text.as_bytes())?;
        let shown = Path::to_str(&path).map(str::to_owned);
        shown.ok_or_else(|| std::io::Error::other("the directory for temporary files has a name that is not UTF-8"))
    }
}

/// Writes a certificate with its key. `None` for other credentials.
pub(super) fn files(
    answer: &IssuedAnswerView,
    key: Option<NewCertifiedKey>,
    system: &System,
) -> Result<Option<CertificateFiles>, CliError> {
    let failed = |e: std::io::Error| CliError::Local(format!("the files of a certificate: {e}"));
    let Some(key) = key else { return Ok(None) };
    let mut files = CertificateFiles::make(system).map_err(failed)?;
    let mut put = |name, text: &str| files.put(name, text).map_err(failed);
    let variables = match answer {
        IssuedAnswerView::Certificate { chain_pem, root_pem, .. } => {
            let (certificate, private) = (put("tls.crt", chain_pem)?, put("tls.key", &key.private)?);
            vec![("CERT", certificate), ("KEY", private), ("CA", put("ca.crt", root_pem)?)]
        }
        // ssh finds the certificate beside the key.
        IssuedAnswerView::SshCertificate { certificate, .. } => {
            let (identity, certificate) = (put("id", &key.private)?, put("id-cert.pub", &format!("{certificate}\n"))?);
            vec![("SSH_KEY", identity), ("SSH_CERT", certificate)]
        }
        _ => return Ok(None),
    };
    files.variables = variables;
    Ok(Some(files))
}

#[cfg(test)]
mod tests {
    use super::*;
    use mayfly_proto::mayfly::v1 as pb;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn the_files_are_the_users_alone_and_go_with_the_program() {
        let system = System::real();
        let answer = IssuedAnswerView::SshCertificate {
            certificate: "ssh-ed25519-cert-v01@openssh.com AAAA cred".to_owned(),
            authority: String::new(),
            principals: vec!["deploy".to_owned()],
            krl_url: String::new(),
        };
        let key = NewCertifiedKey::of_kind(pb::CredentialKind::Ssh, &system).unwrap();
        let made = files(&answer, key, &system).unwrap().unwrap();
        assert_eq!(made.ending(), "SSH_KEY");
        let (key, certificate) = (PathBuf::from(made.main()), PathBuf::from(made.others().next().unwrap().1));
        assert_eq!(format!("{}-cert.pub", key.display()), certificate.display().to_string());
        for path in [&key, &certificate] {
            assert_eq!(std::fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
        }
        let directory = key.parent().unwrap().to_owned();
        assert_eq!(std::fs::metadata(&directory).unwrap().permissions().mode() & 0o777, 0o700);
        drop(made);
        assert!(!directory.exists());
        assert!(files(&answer, None, &system).unwrap().is_none());
    }
}
