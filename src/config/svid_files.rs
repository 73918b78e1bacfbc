//! The server's own certificate and key from files, which are read again when they change.

use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

pub use mayfly_client::tls_identity::{TlsIdentity, TlsIdentityDefect};

use super::files::{self, ContentDigest, FileProblem, PollSchedule};
use mayfly_base::limits;

/// The files of a certificate and its key, and their contents at the last poll.
pub struct SvidFiles {
    certificates: PathBuf,
    key: PathBuf,
    seen: Option<[ContentDigest; 2]>,
    said: Option<FileProblem>,
}

impl SvidFiles {
    /// Paths of two PEM files, which may be the same file.
    pub fn new(certificates: impl Into<PathBuf>, key: impl Into<PathBuf>) -> SvidFiles {
        SvidFiles { certificates: certificates.into(), key: key.into(), seen: None, said: None }
    }

    /// The file of the certificates.
    pub fn certificates(&self) -> &Path {
        &self.certificates
    }

    /// Reads both files.
    pub fn load(&mut self) -> Result<TlsIdentity, FileProblem> {
        let (certificates, key, digests) = self.read()?;
        let pair = self.pair(&certificates, &key)?;
        self.seen = Some(digests);
        self.said = None;
        Ok(pair)
    }

    /// Reads both files again. `None` if nothing changed, or if the same problem was returned before. After a problem the old pair stays in
    /// use; the expiry of the old pair is reported elsewhere.
    pub fn poll(&mut self) -> Option<Result<TlsIdentity, FileProblem>> {
        let outcome = self.read().and_then(|(certificates, key, digests)| {
            if self.seen == Some(digests) && self.said.is_none() {
                return Ok(None);
            }
            // If a poll happens between the replacement of the two files, the files do not match; the next poll finds both replaced.
            let pair = self.pair(&certificates, &key)?;
            self.seen = Some(digests);
            Ok(Some(pair))
        });
        match outcome {
            Ok(pair) => {
                self.said = None;
                pair.map(Ok)
            }
            Err(problem) if self.said.as_ref() == Some(&problem) => None,
            Err(problem) => {
                self.said = Some(problem.clone());
                Some(Err(problem))
            }
        }
    }

    /// Polls for ever, and calls `each` with new pairs and problems. Drop the future to stop.
    pub async fn watch(mut self, polls: impl Into<PollSchedule>, mut each: impl FnMut(Result<TlsIdentity, FileProblem>)) {
        let mut polls = polls.into();
        loop {
            polls.next().await;
            let polled = tokio::task::spawn_blocking(move || {
                let found = self.poll();
                (self, found)
            });
            // The runtime is going down.
            let Ok((back, found)) = polled.await else { return };
            self = back;
            if let Some(found) = found {
                each(found);
            }
        }
    }

    #[allow(clippy::type_complexity, reason = "the two texts and their digests, used in this file only")]
    fn read(&self) -> Result<(Zeroizing<Vec<u8>>, Zeroizing<Vec<u8>>, [ContentDigest; 2]), FileProblem> {
        let (certificates, a) = files::read(&self.certificates, limits::PEM_FILE_BYTES)?;
        let (key, b) = files::read(&self.key, limits::PEM_FILE_BYTES)?;
        Ok((certificates, key, [a, b]))
    }

    fn pair(&self, certificates: &[u8], key: &[u8]) -> Result<TlsIdentity, FileProblem> {
        TlsIdentity::from_pem(certificates, key).map_err(|defect| {
            let (path, remedy): (&Path, _) = match defect {
                TlsIdentityDefect::Certificates(_)
                | TlsIdentityDefect::CertificateMalformed
                | TlsIdentityDefect::ChainTooLong => {
                    (&self.certificates, "it holds the certificate and the CAs between it and the trust bundle, in PEM")
                }
                TlsIdentityDefect::KeyMismatch => (&self.key, "write the key that the certificate was made for, or both anew"),
                _ => (&self.key, "it holds one private key in PEM"),
            };
            FileProblem::new(path, defect, remedy)
        })
    }
}
