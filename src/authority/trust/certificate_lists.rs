//! CRLs and KRLs of the certificate authorities of upstreams, made from the state of the fold.
//!
//! A list is signed within a second after a certificate under its CA ended before its time, and again when a tenth of its life is over. Looks
//! for ended certificates are at least a second apart, whatever number of revocations there are. A list's number is made of the ledger's head
//! and of a count; a start writes a record, so no later list has a lower number, also after a restart.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use super::upstream_ca::pem;
use crate::authority::Authority;
use mayfly_base::limits;
use mayfly_base::refusal::{Error, Fault};
use mayfly_credential::CredentialKind;
use mayfly_credential::certificates::is_upstream_ca;
use mayfly_credential::keyring::LoadedKey;
use mayfly_credential::ssh::krl::{KrlContent, RevokedUnderCa, krl};
use mayfly_credential::x509::{RevokedCertificate, UpstreamCa, crl, crl_url};
use mayfly_ledger::record::{Event, KeyPurpose, KeyState, Record, upstream_path};
use mayfly_ledger::state::{LiveCredential, ManagedKey, State, TaskPhase};
use mayfly_verify::seq::{CredentialId, Millis, Seq};

/// The places of a list's number below the ledger's head. A KRL's number has 64 bits and a head 53; nothing is recorded for 2,048 renewals in a
/// row, eight days, only if the server is idle, and then the next renewal waits.
const COUNT_BITS: u32 = 11;

/// A certificate that ended before its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct EndedCertificate {
    /// When it was found to have ended.
    since: Millis,
    /// The certificate's task is on hold.
    held: bool,
}

type EndedByKey = BTreeMap<Box<str>, BTreeMap<CredentialId, EndedCertificate>>;

/// A signed list as it is served.
#[derive(Clone, Debug)]
pub struct SignedList {
    /// The list.
    pub bytes: Arc<[u8]>,
    /// The list's number.
    pub number: u64,
    signed_at: Millis,
    /// The contents of the list.
    ended: EndedByKey,
    /// The CAs that it is of, and those of them that are compromised.
    authorities: Vec<Box<str>>,
}

/// The lists of all upstreams.
#[derive(Default)]
pub struct CertificateLists {
    /// CRLs by the key of their CA, and KRLs by the path of their upstream.
    published: ArcSwap<BTreeMap<Box<str>, SignedList>>,
    /// Counts the events that may have ended a certificate.
    changes: AtomicU64,
    /// The number of the list that was signed last.
    number: AtomicU64,
    /// The lock under which lists are looked at, one at a time.
    looking: tokio::sync::Mutex<LastLook>,
    /// Certificates of tests, which no record names.
    trials: Mutex<Vec<EndedTrial>>,
}

/// The last look for ended certificates.
#[derive(Default)]
struct LastLook {
    /// The value of the change counter; `None` if a list could not be signed.
    changes: Option<u64>,
    /// When it was, by the monotonic clock.
    at: u64,
    keys: Vec<(Box<str>, KeyState)>,
}

/// A certificate of a test that was revoked.
struct EndedTrial {
    key: Box<str>,
    id: CredentialId,
    since: Millis,
    ends: Millis,
}

impl CertificateLists {
    /// Notes a record that may have ended a certificate, or added a CA.
    pub(crate) fn follow(&self, record: &Record) {
        let ends_nothing = matches!(
            record.event,
            Some(
                Event::Issued(_)
                    | Event::TaskOpened(_)
                    | Event::TaskHeartbeats(_)
                    | Event::Authorized(_)
                    | Event::UsesReported(_)
                    | Event::Refused(_)
                    | Event::PolicyDiffered(_)
                    | Event::AuditRead(_)
                    | Event::SnapshotTaken(_)
                    | Event::LeaseOpened(_)
                    | Event::LeaseClosed(_)
            )
        );
        if !ends_nothing {
            self.changes.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// Adds the certificate of a test to the lists of its CA until it ends. Refused where there are too many.
    pub(crate) fn end_trial(&self, key: &str, id: CredentialId, since: Millis, ends: Millis) -> bool {
        let mut trials = self.trials.lock();
        trials.retain(|trial| trial.ends > since);
        if trials.len() >= limits::CERTIFICATE_TRIALS {
            return false;
        }
        trials.push(EndedTrial { key: key.into(), id, since, ends });
        self.changes.fetch_add(1, Ordering::AcqRel);
        true
    }

    /// The next number: higher than every number of this process, and of every earlier one, since the head grew at the start. `None` where
    /// renewals used up the numbers of this head.
    fn next_number(&self, head: Seq) -> Option<u64> {
        let least = head.as_u64() << COUNT_BITS;
        let end = least | ((1 << COUNT_BITS) - 1);
        let next = |last: u64| Some((last + 1).max(least)).filter(|next| *next <= end);
        let last = self.number.fetch_update(Ordering::AcqRel, Ordering::Acquire, next).ok()?;
        next(last)
    }
}

fn is_certificate(kind: u8) -> bool {
    CredentialKind::from_number(kind.into()).is_some_and(CredentialKind::is_certificate)
}

/// Whether a certificate ended before its time, and whether only for the time being.
fn ended(state: &State, live: &LiveCredential<'_>, now: Millis) -> Option<bool> {
    let Some(task) = state.tasks.at(live.task()) else { return Some(false) };
    if live.released() || state.rules.covers(&state.facts(live, task)).is_some() {
        return Some(false);
    }
    match state.tasks.phase(task, now) {
        TaskPhase::Over(_) | TaskPhase::PendingApproval => Some(false),
        TaskPhase::Held => Some(true),
        TaskPhase::Active => None,
    }
}

impl Authority {
    /// Signs the lists that are due. Called once a second; costs next to nothing where nothing has changed.
    pub async fn tend_certificate_lists(&self) -> Result<(), Error> {
        let lists = &self.certificate_lists;
        let mut last = lists.looking.lock().await;
        let (changes, now) = (lists.changes.load(Ordering::Acquire), self.system.wall());
        let keys = self.ledger.peek(|s| ca_keys(s).map(|(id, k)| (id.clone(), k.state)).collect::<Vec<_>>());
        let before = lists.published.load_full();
        if last.changes == Some(changes) && last.keys == keys && !before.values().any(|list| list.is_old(now)) {
            return Ok(());
        }
        // A list that could not be signed is tried again once a second, however often it is asked for.
        let since = self.system.steady().saturating_sub(last.at);
        if last.changes.is_none() && last.at > 0 && since < limits::CERTIFICATE_LISTS_MS {
            return Ok(());
        }
        last.at = self.system.steady();
        let head = self.ledger.settled(|s| s.head).await?;
        let ended = if keys.is_empty() { EndedByKey::new() } else { self.ended_certificates(now).await? };
        let cas = self.ledger.settled(|s| ca_keys(s).map(|(id, k)| (id.clone(), k.clone())).collect::<Vec<_>>()).await?;
        let mut all = BTreeMap::new();
        let mut whole = true;
        for (name, content) in contents(&cas, &ended) {
            let old = before.get(&name);
            if let Some(old) = old.filter(|old| !old.is_old(now) && old.says(&content)) {
                all.insert(name, old.clone());
                continue;
            }
            match self.sign_list(&name, content, head, now) {
                Ok(Some(signed)) => drop(all.insert(name, signed)),
                Ok(None) => {
                    whole = false;
                    all.extend(old.map(|old| (name, old.clone())));
                }
                Err(fault) => {
                    whole = false;
                    tracing::error!(%fault, list = %name, "a list of revoked certificates could not be signed; the last one stays");
                    all.extend(old.map(|old| (name, old.clone())));
                }
            }
        }
        lists.published.store(Arc::new(all));
        (last.changes, last.keys) = (whole.then_some(changes), keys);
        Ok(())
    }

    /// The unexpired certificates that ended before their time, by the key of their CA. Visits live credentials in pieces, so that issuing goes
    /// on; visits none where no upstream with a CA has any.
    async fn ended_certificates(&self, now: Millis) -> Result<EndedByKey, Error> {
        let lists = &self.certificate_lists;
        let known = lists.published.load_full();
        let since = |key: &str, id: &CredentialId| {
            let old = known.values().find_map(|list| list.ended.get(key)?.get(id));
            old.map_or(now, |old| old.since)
        };
        let mut found = EndedByKey::new();
        for trial in lists.trials.lock().iter().filter(|trial| trial.ends > now) {
            let entry = EndedCertificate { since: trial.since, held: false };
            found.entry(trial.key.clone()).or_default().insert(trial.id, entry);
        }
        let any = |s: &State| {
            let mut paths = ca_keys(s).map(|(_, k)| &*k.environment);
            paths.any(|path| path.rsplit('/').next().is_some_and(|upstream| s.credentials.of_upstream(upstream).0 > 0))
        };
        let mut at = 0;
        let mut more = self.ledger.settled(any).await?;
        while more {
            more = self
                .ledger
                .settled(|state| {
                    let end = (at + limits::LIST_WALK as u32).min(state.credentials.places());
                    let here = (at..end).filter_map(|slot| state.credentials.at(slot));
                    for live in here.filter(|live| is_certificate(live.kind()) && live.expires_at() > now) {
                        if let Some(held) = ended(state, &live, now) {
                            let entry = EndedCertificate { since: since(live.key(), &live.id()), held };
                            found.entry(live.key().into()).or_default().insert(live.id(), entry);
                        }
                    }
                    at = end;
                    end < state.credentials.places()
                })
                .await?;
            tokio::task::yield_now().await;
        }
        Ok(found)
    }

    /// Signs a list; `None` where it has to wait for its number, or where its CA is not loaded.
    fn sign_list(&self, name: &str, content: ListContent, head: Seq, now: Millis) -> Result<Option<SignedList>, Fault> {
        let loaded = |purpose, id: &str| self.keyring.get(purpose, id);
        let Some(signer) = loaded(content.purpose, &content.signer) else { return Ok(None) };
        let Some(number) = self.certificate_lists.next_number(head) else { return Ok(None) };
        let bytes = match content.purpose {
            KeyPurpose::SshCa => {
                let of = |(id, public): &(Box<str>, Vec<u8>)| RevokedUnderCa {
                    authority: public.clone(),
                    ended: content.ended.get(id).map(|all| all.keys().copied().collect()).unwrap_or_default(),
                };
                let authorities = content.publics.iter().map(of).collect();
                let said = KrlContent { authorities, compromised: content.compromised.iter().map(|(_, k)| k.clone()).collect() };
                krl(&said, &signer, number, &format!("mayfly {name}"), now)?
            }
            _ => {
                let entries = content.ended.values().flatten();
                let entries: Vec<RevokedCertificate> =
                    entries.map(|(id, e)| RevokedCertificate { id: *id, since: e.since, held: e.held }).collect();
                let url = self.crl_url_of(&signer).ok_or_else(|| Fault::new(format!("key {name} is of no upstream")))?;
                crl(&UpstreamCa::of(&signer)?, number.into(), &url, &entries, now)?
            }
        };
        let authorities = content.names();
        Ok(Some(SignedList { bytes: bytes.into(), number, signed_at: now, ended: content.ended, authorities }))
    }

    fn crl_url_of(&self, ca: &LoadedKey) -> Option<String> {
        let environment = ca.purpose().environment_of(ca.environment());
        let upstream = ca.environment().rsplit('/').next()?;
        Some(crl_url(&self.decider.issuer_of(environment), upstream, ca.id()))
    }

    /// The CRL of one CA of an upstream, DER; `None` if the upstream has no such CA.
    pub async fn upstream_crl(&self, environment: &str, upstream: &str, key: &str) -> Result<Option<Arc<[u8]>>, Error> {
        let Some(path) = upstream_path(environment, upstream) else { return Ok(None) };
        let ours = self.keyring.get(KeyPurpose::UpstreamCa, key).is_some_and(|ca| ca.environment() == path);
        if !ours { Ok(None) } else { self.list(key).await }
    }

    /// The CRLs of all CAs of an upstream, PEM; `None` if it has none.
    pub async fn upstream_crls(&self, environment: &str, upstream: &str) -> Result<Option<String>, Error> {
        let cas = match self.published_cas(environment, upstream).await {
            Ok(cas) => cas,
            Err(Error::Refusal(_)) => return Ok(None),
            Err(fault) => return Err(fault),
        };
        let mut all = String::new();
        for ca in cas.authorities.iter().filter(|ca| ca.purpose == KeyPurpose::UpstreamCa) {
            if let Some(der) = self.list(&ca.key).await? {
                all.push_str(&pem("X509 CRL", &der));
            }
        }
        Ok((!all.is_empty()).then_some(all))
    }

    /// The KRL of an upstream; `None` if it has no CA for SSH.
    pub async fn upstream_krl(&self, environment: &str, upstream: &str) -> Result<Option<Arc<[u8]>>, Error> {
        match upstream_path(environment, upstream) {
            Some(path) => self.list(&path).await,
            None => Ok(None),
        }
    }

    /// A list as it was signed last. One that was never signed, of a CA that was just made, is signed now.
    async fn list(&self, name: &str) -> Result<Option<Arc<[u8]>>, Error> {
        let known = || self.certificate_lists.published.load().get(name).map(|list| list.bytes.clone());
        if let Some(bytes) = known() {
            return Ok(Some(bytes));
        }
        self.tend_certificate_lists().await?;
        Ok(known())
    }

    /// The number of the list that was signed last for a CA's key, or for the path of an upstream.
    pub fn list_number(&self, name: &str) -> Option<u64> {
        self.certificate_lists.published.load().get(name).map(|list| list.number)
    }
}

fn ca_keys(state: &State) -> impl Iterator<Item = (&Box<str>, &ManagedKey)> {
    state.keys.iter().filter(|(_, key)| is_upstream_ca(key.purpose) && key.state != KeyState::Removed)
}

/// The contents of a list.
struct ListContent {
    purpose: KeyPurpose,
    /// The key that signs the list.
    signer: Box<str>,
    ended: EndedByKey,
    /// The CAs of a KRL with their public keys.
    publics: Vec<(Box<str>, Vec<u8>)>,
    /// Compromised CAs of a KRL.
    compromised: Vec<(Box<str>, Vec<u8>)>,
}

impl ListContent {
    fn names(&self) -> Vec<Box<str>> {
        let all = self.publics.iter().chain(&self.compromised).map(|(id, _)| id.clone());
        std::iter::once(self.signer.clone()).chain(all).collect()
    }
}

impl SignedList {
    /// Whether the list is to be signed again by its age, or because the clock went back.
    fn is_old(&self, now: Millis) -> bool {
        now >= self.signed_at.plus(limits::KRL_RENEWED_MS) || now < self.signed_at
    }

    /// Whether the list says this already. When a certificate ended does not count: that is when it was found.
    fn says(&self, content: &ListContent) -> bool {
        let same = |a: &BTreeMap<CredentialId, EndedCertificate>, b: &BTreeMap<CredentialId, EndedCertificate>| {
            a.len() == b.len() && a.iter().zip(b).all(|((id, x), (other, y))| id == other && x.held == y.held)
        };
        let ended = self.ended.len() == content.ended.len()
            && self.ended.iter().zip(&content.ended).all(|((key, a), (other, b))| key == other && same(a, b));
        ended && self.authorities == content.names()
    }
}

/// The lists that there are to be: a CRL for each X.509 CA, by its key, and a KRL for each upstream with an SSH CA, by its path.
fn contents(cas: &[(Box<str>, ManagedKey)], ended: &EndedByKey) -> BTreeMap<Box<str>, ListContent> {
    let mut all: BTreeMap<Box<str>, ListContent> = BTreeMap::new();
    let of = |id: &str| ended.get(id).map(|these| (Box::from(id), these.clone()));
    for (id, key) in cas {
        let compromised = key.state == KeyState::Compromised;
        match key.purpose {
            // The CRL of a compromised CA proves nothing.
            KeyPurpose::UpstreamCa if !compromised => {
                let content = ListContent {
                    purpose: key.purpose,
                    signer: id.clone(),
                    ended: of(id).into_iter().collect(),
                    publics: Vec::new(),
                    compromised: Vec::new(),
                };
                all.insert(id.clone(), content);
            }
            KeyPurpose::SshCa => {
                let one = all.entry(key.environment.clone()).or_insert_with(|| ListContent {
                    purpose: key.purpose,
                    signer: id.clone(),
                    ended: EndedByKey::new(),
                    publics: Vec::new(),
                    compromised: Vec::new(),
                });
                if compromised {
                    one.compromised.push((id.clone(), key.public.to_vec()));
                    continue;
                }
                one.ended.extend(of(id));
                one.publics.push((id.clone(), key.public.to_vec()));
                if key.state == KeyState::Active {
                    one.signer = id.clone();
                }
            }
            _ => {}
        }
    }
    // A list that only a compromised CA could sign waits for the next CA.
    all.retain(|_, content| content.purpose != KeyPurpose::SshCa || content.publics.iter().any(|(id, _)| *id == content.signer));
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn numbers_only_grow_also_over_restarts(steps in proptest::collection::vec((0u64..3, 0u32..20, any::<bool>()), 1..200)) {
            let (mut lists, mut head, mut last) = (CertificateLists::default(), 5u64, 0u64);
            for (records, lists_signed, restart) in steps {
                head += records;
                if restart {
                    // A start writes a record.
                    (lists, head) = (CertificateLists::default(), head + 1);
                }
                for _ in 0..lists_signed {
                    if let Some(number) = lists.next_number(Seq::from_u64(head).unwrap()) {
                        prop_assert!(number > last, "{number} follows {last}");
                        prop_assert_eq!(number >> COUNT_BITS, head);
                        last = number;
                    }
                }
            }
        }
    }

    #[test]
    fn a_head_has_its_count_of_numbers_and_no_more() {
        let lists = CertificateLists::default();
        let head = |n| Seq::from_u64(n).unwrap();
        let given = (0..5000).filter(|_| lists.next_number(head(7)).is_some()).count();
        assert_eq!(given, 1 << COUNT_BITS);
        assert_eq!(lists.next_number(head(8)), Some(8 << COUNT_BITS));
        assert_eq!(lists.next_number(head((1 << 53) - 1)), Some(((1 << 53) - 1) << COUNT_BITS));
    }
}
