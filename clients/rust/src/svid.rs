//! The client's SVID and the bundle that the server is verified with. Both are kept up to date while the client runs, so rotation needs no
//! restart.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use mayfly_verify::identity::bundle::{Bundle, Bundles};
use mayfly_verify::identity::sha256;
use mayfly_verify::identity::spiffe_id::TrustDomain;
use tokio::sync::watch;
use zeroize::Zeroizing;

use crate::error::Error;
use crate::limits;
use crate::settings::Identity;
use crate::tls::{CurrentBundles, CurrentCertificate};
use crate::tls_identity::TlsIdentity;
use crate::workload_api;

/// A consistent reading: the client's certificate and key, and the bundle of the server's trust domain.
pub(crate) struct SvidSnapshot {
    /// The client's certificate and key.
    pub pair: TlsIdentity,
    /// The bundle of the server's trust domain.
    pub bundle: Arc<Bundle>,
}

/// The current SVID and bundle, as TLS uses them at each handshake, with a signal for each change.
#[derive(Clone)]
pub struct SvidSource {
    /// The client's certificate and key.
    pub own: CurrentCertificate,
    /// The bundle of the server's trust domain.
    pub bundles: CurrentBundles,
    changed: watch::Sender<u64>,
}

impl SvidSource {
    /// Reads the identity for the first time and keeps it up to date in the background until the last receiver of changes is dropped. The
    /// first receiver is created here, before the background task checks whether any exists.
    pub async fn begin(identity: &Identity, domain: TrustDomain) -> Result<(SvidSource, watch::Receiver<u64>), Error> {
        match identity {
            Identity::Files { svid, key, bundle } => {
                let mut files = Files { svid: svid.clone(), key: key.clone(), bundle: bundle.clone(), domain, seen: None };
                let first = files.first().await.map_err(Error::Settings)?;
                let first = first.ok_or_else(|| Error::Settings("the SVID's files could not be read".to_owned()))?;
                let (held, changes) = SvidSource::of(first);
                tokio::spawn(files.watch(held.clone()));
                Ok((held, changes))
            }
            Identity::WorkloadApi { socket } => workload_api::begin(socket.clone(), domain).await,
        }
    }

    pub(crate) fn of(current: SvidSnapshot) -> (SvidSource, watch::Receiver<u64>) {
        let bundles = Bundles::new([current.bundle]).unwrap_or_default();
        let (changed, changes) = watch::channel(0);
        let own = Arc::new(ArcSwap::new(current.pair.certified_key().clone()));
        (SvidSource { own, bundles: Arc::new(ArcSwap::from_pointee(bundles)), changed }, changes)
    }

    /// Puts a new reading into effect and signals the change.
    pub(crate) fn set(&self, current: SvidSnapshot) {
        self.own.store(current.pair.certified_key().clone());
        self.bundles.store(Arc::new(Bundles::new([current.bundle]).unwrap_or_default()));
        self.changed.send_modify(|n| *n += 1);
    }

    /// Whether no receiver of changes is left.
    pub(crate) fn is_forgotten(&self) -> bool {
        self.changed.receiver_count() == 0
    }
}

struct Files {
    svid: PathBuf,
    key: PathBuf,
    bundle: PathBuf,
    domain: TrustDomain,
    seen: Option<[u8; 32]>,
}

impl Files {
    /// The first reading. In the middle of a rotation the certificate and the key may not match yet, so reading is retried.
    async fn first(&mut self) -> Result<Option<SvidSnapshot>, String> {
        for _ in 0..limits::HALVES {
            match self.read().await {
                Ok(found) => return Ok(found),
                Err(_) => tokio::time::sleep(limits::HALF).await,
            }
        }
        self.read().await
    }

    /// Reads the files; `None` where nothing has changed.
    async fn read(&mut self) -> Result<Option<SvidSnapshot>, String> {
        let (svid, key, bundle) = (bytes(&self.svid).await?, bytes(&self.key).await?, bytes(&self.bundle).await?);
        let digest = sha256(&[sha256(&svid), sha256(&key), sha256(&bundle)].concat());
        if self.seen == Some(digest) {
            return Ok(None);
        }
        let pair =
            TlsIdentity::from_pem(&svid, &key).map_err(|e| format!("{} and {}: {e}", self.svid.display(), self.key.display()))?;
        let bundle = Bundle::parse(self.domain.clone(), &bundle).map_err(|e| format!("{} {e}", self.bundle.display()))?;
        self.seen = Some(digest);
        Ok(Some(SvidSnapshot { pair, bundle: Arc::new(bundle) }))
    }

    /// Reads the files periodically. While a rotation is in progress the files may not match; the previous reading then stays in use.
    async fn watch(mut self, held: SvidSource) {
        while !held.is_forgotten() {
            tokio::time::sleep(limits::POLL).await;
            match self.read().await {
                Ok(None) => {}
                Ok(Some(current)) => held.set(current),
                Err(problem) => tracing::warn!(problem, "the SVID could not be reloaded; the old SVID stays in use"),
            }
        }
    }
}

/// Reads a whole file of bounded size. The content is wiped on drop.
async fn bytes(path: &Path) -> Result<Zeroizing<Vec<u8>>, String> {
    use tokio::io::AsyncReadExt as _;
    let cannot = |e: std::io::Error| format!("{} cannot be read: {e}", path.display());
    // A device or a pipe may have no end, and opening or reading it may never return.
    let found = tokio::fs::metadata(path).await.map_err(cannot)?;
    if !found.is_file() {
        return Err(format!("{} is not a regular file", path.display()));
    }
    let file = tokio::fs::File::open(path).await.map_err(cannot)?;
    let room = usize::try_from(found.len()).unwrap_or(limits::FILE_BYTES);
    // Reserved for the whole file: growing the buffer would leave copies of a key in memory.
    let mut out = Zeroizing::new(Vec::with_capacity(room.min(limits::FILE_BYTES) + 4096));
    file.take(limits::FILE_BYTES as u64 + 1).read_to_end(&mut out).await.map_err(cannot)?;
    if out.len() > limits::FILE_BYTES {
        return Err(format!("{} has more than {} bytes: is it the right file?", path.display(), limits::FILE_BYTES));
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    #[tokio::test]
    async fn what_has_no_end_is_not_read() {
        for path in ["/dev/zero", "/dev/null", "/"] {
            assert_eq!(super::bytes(Path::new(path)).await.unwrap_err(), format!("{path} is not a regular file"));
        }
    }
}
