//! The OIDC issuers of the configuration, each with the keys that it published last. `mayfly_config::oidc` fetches the keys.
//!
//! An unknown key id triggers another fetch, at a bounded rate. All callers whose token needs the key wait briefly for that one fetch, and
//! are otherwise told to try again, so that a newly published key fails no login. A key id that a fetch did not find is remembered for a
//! while, so that invented ids do not use up the rate. The keys of an issuer that could not be reached for longer than
//! `limits::OIDC_KEPT_MS` are not used.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use mayfly_base::limits;
use mayfly_base::system::System;
use mayfly_identity::oidc::{self, Issuer, IssuerKeys, OidcDefect, OidcTokenRequirements, VerifiedOidc};

/// Why a token is not accepted.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TokenRejection {
    /// The configuration names no such issuer.
    #[error("its issuer {0:?} is not configured on this server")]
    UnknownIssuer(String),
    /// The token violates a clause.
    #[error("{0}")]
    Defect(#[from] OidcDefect),
    /// The issuer's keys could not be fetched, or are too old.
    #[error("the keys of issuer {0} are not available: the issuer could not be reached")]
    NoKeys(String),
    /// The token's key is unknown, and the issuer's keys are fetched again after this many milliseconds.
    #[error("its key is not among those of issuer {0} that were fetched just now; they are fetched again in {1} ms")]
    Later(String, u64),
}

impl TokenRejection {
    /// After how long the same token may be accepted; `None` if it never will be.
    pub fn retry(&self) -> Option<Duration> {
        match self {
            TokenRejection::UnknownIssuer(_) | TokenRejection::Defect(_) => None,
            TokenRejection::NoKeys(_) => Some(Duration::from_millis(limits::OIDC_NO_KEYS_RETRY_MS)),
            TokenRejection::Later(_, ms) => Some(Duration::from_millis(*ms)),
        }
    }
}

/// The state of one issuer.
pub struct IssuerState {
    /// The configuration of the issuer.
    pub issuer: Arc<Issuer>,
    held: Mutex<FetchedKeys>,
    wanted: Notify,
    /// The number of fetches that ended, successfully or not.
    fetched: watch::Sender<u64>,
}

#[derive(Default)]
struct FetchedKeys {
    keys: Arc<IssuerKeys>,
    /// When the keys were fetched, by the monotonic clock; `None` before the first success.
    good_at: Option<u64>,
    /// When the last fetch began.
    began: Option<u64>,
    /// A fetch was requested or is in progress.
    under_way: bool,
    /// Key ids that a fetch did not find, with the time of that fetch, oldest first.
    missing: VecDeque<(String, u64)>,
}

/// The result of requesting an unknown key.
enum KeyFetchResult {
    /// The keys were fetched. `own`: the fetch began after this request, and not for an earlier one.
    Anew { own: bool },
    /// A recent fetch did not find the key.
    Missing,
    /// The keys are not fetched now, but after this many milliseconds.
    Later(u64),
}

/// All issuers of the configuration. A reload of the configuration replaces them at once.
pub struct Issuers {
    all: ArcSwap<Vec<Arc<IssuerState>>>,
    system: System,
}

impl Issuers {
    /// Creates the issuers, without keys.
    pub fn new(issuers: impl IntoIterator<Item = Issuer>, system: System) -> Issuers {
        let all = issuers.into_iter().map(|issuer| Arc::new(IssuerState::new(issuer, FetchedKeys::default())));
        Issuers { all: ArcSwap::from_pointee(all.collect()), system }
    }

    /// Replaces the issuers. The flag tells whether the source of an issuer's keys is unchanged; its present keys are then kept.
    pub fn replace(&self, issuers: impl IntoIterator<Item = (Issuer, bool)>) {
        let before = self.all.load_full();
        let next = issuers.into_iter().map(|(issuer, keeps)| {
            let old = before.iter().find(|known| keeps && known.issuer.issuer == issuer.issuer);
            let held = old.map(|known| {
                let held = known.held.lock();
                FetchedKeys { keys: held.keys.clone(), good_at: held.good_at, began: held.began, ..FetchedKeys::default() }
            });
            Arc::new(IssuerState::new(issuer, held.unwrap_or_default()))
        });
        self.all.store(Arc::new(next.collect()));
    }

    /// All issuers in the order of the configuration.
    pub fn all(&self) -> Vec<Arc<IssuerState>> {
        self.all.load().to_vec()
    }

    /// The issuer with this `iss`.
    pub fn find(&self, iss: &str) -> Option<Arc<IssuerState>> {
        self.all.load().iter().find(|known| known.issuer.issuer == iss).cloned()
    }

    /// The issuer with this short name.
    pub fn named(&self, name: &str) -> Option<Arc<IssuerState>> {
        self.all.load().iter().find(|known| known.issuer.name == name).cloned()
    }

    /// Verifies a token of one of the issuers for one of these audiences, or returns why it is not accepted. Waits for keys for a bounded
    /// time.
    pub async fn verify(&self, token: &str, audiences: &[&str]) -> Result<(Arc<Issuer>, VerifiedOidc), TokenRejection> {
        let iss = oidc::peek_issuer(token).ok_or(OidcDefect::Malformed)?;
        let known = self.find(&iss).ok_or(TokenRejection::UnknownIssuer(iss.chars().take(limits::NAME_BYTES).collect()))?;
        let expect = |now| OidcTokenRequirements { audiences, now, leeway_ms: limits::CLOCK_SKEW_MS };
        let name = || known.issuer.name.clone();
        let mut last = false;
        loop {
            let no = match known.keys(&self.system) {
                Some(keys) => match oidc::verify(token, &known.issuer, &keys, &expect(self.system.wall())) {
                    Ok(verified) => return Ok((known.issuer.clone(), verified)),
                    Err(OidcDefect::UnknownKid) => TokenRejection::Defect(OidcDefect::UnknownKid),
                    Err(defect) => return Err(TokenRejection::Defect(defect)),
                },
                None => TokenRejection::NoKeys(name()),
            };
            let kid = oidc::peek_kid(token).unwrap_or_default();
            if last {
                if matches!(no, TokenRejection::Defect(_)) {
                    known.misses(&kid, &self.system);
                }
                return Err(no);
            }
            match known.fetch(&kid, &self.system).await {
                KeyFetchResult::Anew { own } => last = own,
                KeyFetchResult::Missing => return Err(no),
                KeyFetchResult::Later(_) if matches!(no, TokenRejection::NoKeys(_)) => return Err(no),
                KeyFetchResult::Later(ms) => return Err(TokenRejection::Later(name(), ms)),
            }
        }
    }
}

impl IssuerState {
    fn new(issuer: Issuer, held: FetchedKeys) -> IssuerState {
        IssuerState { issuer: Arc::new(issuer), held: Mutex::new(held), wanted: Notify::new(), fetched: watch::Sender::new(0) }
    }

    /// The issuer's keys, unless they are too old.
    pub fn keys(&self, system: &System) -> Option<Arc<IssuerKeys>> {
        let held = self.held.lock();
        let age = system.steady().saturating_sub(held.good_at?);
        (age <= limits::OIDC_KEPT_MS).then(|| held.keys.clone())
    }

    /// Waits until a token needs an unknown key.
    pub async fn wanted(&self) {
        self.wanted.notified().await;
    }

    /// Notes that a fetch begins.
    pub fn begin(&self, system: &System) {
        let mut held = self.held.lock();
        (held.began, held.under_way) = (Some(system.steady()), true);
    }

    /// Notes that a fetch ended, with keys or without.
    pub fn end(&self, keys: Option<IssuerKeys>, system: &System) {
        {
            let mut held = self.held.lock();
            held.under_way = false;
            if let Some(keys) = keys {
                held.keys = Arc::new(keys);
                held.good_at = Some(system.steady());
            }
        }
        self.fetched.send_modify(|n| *n += 1);
    }

    /// Waits for the fetch in progress, or requests one unless the rate does not permit it.
    async fn fetch(&self, kid: &str, system: &System) -> KeyFetchResult {
        let mut fetched = self.fetched.subscribe();
        let now = system.steady();
        let own = {
            let mut held = self.held.lock();
            held.missing.retain(|(_, at)| now.saturating_sub(*at) < limits::OIDC_MISSING_MS);
            if held.missing.iter().any(|(missing, _)| missing == kid) {
                return KeyFetchResult::Missing;
            }
            let since = held.began.map(|began| now.saturating_sub(began));
            match since.filter(|since| *since < limits::OIDC_REFETCH_MS) {
                _ if held.under_way => false,
                Some(since) => return KeyFetchResult::Later(limits::OIDC_REFETCH_MS - since),
                None => {
                    (held.began, held.under_way) = (Some(now), true);
                    self.wanted.notify_one();
                    true
                }
            }
        };
        let wait = Duration::from_millis(limits::OIDC_WAIT_MS);
        match tokio::time::timeout(wait, fetched.changed()).await {
            Ok(Ok(())) => KeyFetchResult::Anew { own },
            // The fetch takes longer than a caller waits.
            _ => KeyFetchResult::Later(limits::OIDC_WAIT_MS),
        }
    }

    /// Notes that a fetch requested for this key id did not find it.
    fn misses(&self, kid: &str, system: &System) {
        let kid: String = kid.chars().take(limits::NAME_BYTES).collect();
        let mut held = self.held.lock();
        if held.missing.len() >= limits::OIDC_MISSING {
            held.missing.pop_front();
        }
        held.missing.push_back((kid, system.steady()));
    }
}
