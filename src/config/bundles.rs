//! Trust bundles from files, which are read again when they change.
//!
//! A change of a bundle is a record of the ledger. This module therefore only proposes changes: the caller writes the change to the ledger
//! and then replaces the bundles in effect. A proposal that is not in effect by the next poll is made again.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;

use super::files::{self, ContentDigest, FileProblem, PollSchedule};
use mayfly_base::limits;
use mayfly_identity::bundle::{self, Bundle, BundleDiff, Bundles};
use mayfly_identity::spiffe_id::TrustDomain;

/// A bundle in a file that is not in effect.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BundleFileProposal {
    /// The bundle, a valid successor of the one in effect.
    pub bundle: Arc<Bundle>,
    /// The difference from the bundle in effect.
    pub diff: BundleDiff,
    /// The file.
    pub path: PathBuf,
}

/// The result of polling a file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum BundleFilePoll {
    /// A bundle to write to the ledger.
    Proposal(BundleFileProposal),
    /// A file whose contents are not used; the bundle in effect stays.
    Problem(FileProblem),
}

/// The result of the last poll of a bundle file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum BundleFileState {
    /// The file holds the bundle in effect.
    InForce,
    /// The file holds another bundle, which is proposed or will be proposed.
    Differs,
    /// The file cannot be read, or its contents are not used.
    Unusable(FileProblem),
}

/// The bundle files, one for each trust domain.
pub struct BundleFiles {
    files: Vec<BundleFile>,
}

struct BundleFile {
    trust_domain: TrustDomain,
    path: PathBuf,
    read: Option<(ContentDigest, Result<Arc<Bundle>, FileProblem>)>,
    standing: BundleFileState,
}

impl BundleFiles {
    /// Files in PEM or SPIFFE JWKS, each with its trust domain.
    pub fn new(files: impl IntoIterator<Item = (TrustDomain, PathBuf)>) -> BundleFiles {
        let file = |(trust_domain, path)| BundleFile { trust_domain, path, read: None, standing: BundleFileState::Differs };
        BundleFiles { files: files.into_iter().map(file).collect() }
    }

    /// Reads all files, and returns all problems: for the start and for `server validate`.
    pub fn load(&mut self) -> Result<Bundles, Vec<FileProblem>> {
        let held = self.read()?;
        Bundles::new(held.into_iter().map(|(bundle, _)| bundle)).ok_or_else(|| {
            let what = format!("more than {} trust domains", limits::TRUST_DOMAINS);
            vec![FileProblem::new(&PathBuf::from("bundles"), what, "configure fewer")]
        })
    }

    /// The present contents of each file with its path, in the given order.
    pub fn read(&mut self) -> Result<Vec<(Arc<Bundle>, PathBuf)>, Vec<FileProblem>> {
        let (mut good, mut bad) = (Vec::new(), Vec::new());
        for file in &mut self.files {
            match file.current() {
                Ok((bundle, _)) => good.push((bundle, file.path.clone())),
                Err(problem) => bad.push(problem),
            }
        }
        if bad.is_empty() { Ok(good) } else { Err(bad) }
    }

    /// Reads all files again and compares them with the bundles in effect.
    pub fn poll(&mut self, in_force: &Bundles) -> Vec<BundleFilePoll> {
        self.files.iter_mut().filter_map(|file| file.poll(in_force)).collect()
    }

    /// The result of the last poll of each file, with its trust domain.
    pub fn standing(&self) -> impl Iterator<Item = (&TrustDomain, &Path, &BundleFileState)> {
        self.files.iter().map(|file| (&file.trust_domain, file.path.as_path(), &file.standing))
    }

    /// Polls for ever. Calls `each` for each proposal, and `all` after each poll. Drop the future to stop.
    pub async fn watch(
        mut self,
        polls: impl Into<PollSchedule>,
        in_force: Arc<ArcSwap<Bundles>>,
        (mut each, mut all): (impl FnMut(BundleFilePoll), impl FnMut(&BundleFiles)),
    ) {
        let mut polls = polls.into();
        loop {
            polls.next().await;
            let now = in_force.load_full();
            let polled = tokio::task::spawn_blocking(move || {
                let found = self.poll(&now);
                (self, found)
            });
            // The runtime is going down.
            let Ok((back, found)) = polled.await else { return };
            self = back;
            found.into_iter().for_each(&mut each);
            all(&self);
        }
    }
}

impl BundleFile {
    fn poll(&mut self, in_force: &Bundles) -> Option<BundleFilePoll> {
        match self.propose(in_force) {
            Ok((standing, proposal)) => {
                self.standing = standing;
                proposal.map(BundleFilePoll::Proposal)
            }
            Err(problem) => {
                let unusable = BundleFileState::Unusable(problem.clone());
                let known = std::mem::replace(&mut self.standing, unusable.clone()) == unusable;
                (!known).then_some(BundleFilePoll::Problem(problem))
            }
        }
    }

    fn propose(&mut self, in_force: &Bundles) -> Result<(BundleFileState, Option<BundleFileProposal>), FileProblem> {
        let (bundle, settled) = self.current()?;
        let old = in_force.get(self.trust_domain.as_str());
        if old.is_some_and(|old| **old == *bundle) {
            return Ok((BundleFileState::InForce, None));
        }
        if let Some(old) = old {
            let remedy =
                "the bundle in force stays; fetch the trust domain's current bundle, or remove the trust domain and add it anew";
            bundle::check_successor(old, &bundle).map_err(|defect| FileProblem::new(&self.path, defect, remedy))?;
        }
        let diff = bundle::diff(old.map(Arc::as_ref), Some(&bundle));
        // A file that is still being written lacks its end. Removing a root revokes credentials, so two consecutive reads must agree.
        if !diff.removed.is_empty() && !settled {
            return Ok((BundleFileState::Differs, None));
        }
        Ok((BundleFileState::Differs, Some(BundleFileProposal { bundle, diff, path: self.path.clone() })))
    }

    /// The present contents of the file, and whether the previous read found the same.
    fn current(&mut self) -> Result<(Arc<Bundle>, bool), FileProblem> {
        let (document, digest) = files::read(&self.path, limits::BUNDLE_BYTES)?;
        if let Some((seen, parsed)) = &self.read
            && *seen == digest
        {
            return parsed.clone().map(|bundle| (bundle, true));
        }
        let parsed = self.parse(&document);
        self.read = Some((digest, parsed.clone()));
        parsed.map(|bundle| (bundle, false))
    }

    fn parse(&self, document: &[u8]) -> Result<Arc<Bundle>, FileProblem> {
        if document.iter().all(u8::is_ascii_whitespace) {
            let remedy = "to trust nobody in this trust domain, write {\"keys\": []}";
            return Err(FileProblem::new(&self.path, "is empty", remedy));
        }
        let remedy = format!("it holds the CA certificates of {} in PEM, or its SPIFFE bundle in JSON", self.trust_domain);
        let parsed = Bundle::parse(self.trust_domain.clone(), document);
        parsed.map(Arc::new).map_err(|defect| FileProblem::new(&self.path, defect, &remedy))
    }
}
