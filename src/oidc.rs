//! The OIDC issuers that the configuration names, each with the keys that it published last. What fetches them is `sources::oidc`.
//!
//! A key that is not known is fetched once more, at a bounded rate. Everybody whose token needs it waits a moment for that one fetch, and is otherwise
//! told to try again: a key that an issuer has just published ends nobody's login. A key id that a fetch did not find is remembered for a while, so
//! that made-up ids do not use up the rate. An issuer that could not be reached for longer than `limits::OIDC_KEPT_MS` vouches for nothing.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use crate::identity::oidc::{self, Expect, Issuer, IssuerKeys, OidcDefect, VerifiedOidc};
use crate::limits;
use crate::system::System;

/// Why a token of an issuer is not taken.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NotTaken {
    /// The configuration names no such issuer.
    #[error("its issuer {0:?} is none that this server is configured with")]
    UnknownIssuer(String),
    /// A clause refuses it.
    #[error("{0}")]
    Defect(#[from] OidcDefect),
    /// The issuer's keys could not be fetched, now or for too long.
    #[error("the keys of issuer {0} are not at hand: it could not be reached")]
    NoKeys(String),
    /// The token's key is not known yet, and the issuer's keys are fetched again after so many milliseconds.
    #[error("its key is not among those of issuer {0} that were fetched just now; they are fetched again in {1} ms")]
    Later(String, u64),
}

impl NotTaken {
    /// After how long the same token may be taken; `None` where it never will be.
    pub fn retry(&self) -> Option<Duration> {
        match self {
            NotTaken::UnknownIssuer(_) | NotTaken::Defect(_) => None,
            NotTaken::NoKeys(_) => Some(Duration::from_millis(limits::OIDC_NO_KEYS_RETRY_MS)),
            NotTaken::Later(_, ms) => Some(Duration::from_millis(*ms)),
        }
    }
}

/// What is known of one issuer.
pub struct Known {
    /// What the configuration says of it.
    pub issuer: Arc<Issuer>,
    held: Mutex<Held>,
    wanted: Notify,
    /// Fetches that ended, well or not.
    fetched: watch::Sender<u64>,
}

#[derive(Default)]
struct Held {
    keys: Arc<IssuerKeys>,
    /// When they were fetched, by the steady clock; `None` before the first time.
    good_at: Option<u64>,
    /// When the last fetch began.
    began: Option<u64>,
    /// A fetch was asked for or is under way.
    under_way: bool,
    /// Key ids that a fetch did not find, each with the time of that, the oldest first.
    missing: VecDeque<(String, u64)>,
}

/// What asking for a key that is not known came to.
enum Fetched {
    /// There are other keys to look at. `own`: fetched after it was asked for, and not for somebody before.
    Anew { own: bool },
    /// A fetch did not find it, a while ago at most.
    Missing,
    /// Not fetched now: after so many milliseconds.
    Later(u64),
}

/// Every issuer that the configuration names. A reload of the configuration replaces all of them at once.
pub struct Issuers {
    all: ArcSwap<Vec<Arc<Known>>>,
    system: System,
}

impl Issuers {
    /// With no keys yet.
    pub fn new(issuers: impl IntoIterator<Item = Issuer>, system: System) -> Issuers {
        let all = issuers.into_iter().map(|issuer| Arc::new(Known::new(issuer, Held::default())));
        Issuers { all: ArcSwap::from_pointee(all.collect()), system }
    }

    /// Takes the place of those before. `keeps`: its keys come from where they came from, so those at hand stay.
    pub fn replace(&self, issuers: impl IntoIterator<Item = (Issuer, bool)>) {
        let before = self.all.load_full();
        let next = issuers.into_iter().map(|(issuer, keeps)| {
            let old = before.iter().find(|known| keeps && known.issuer.issuer == issuer.issuer);
            let held = old.map(|known| {
                let held = known.held.lock();
                Held { keys: held.keys.clone(), good_at: held.good_at, began: held.began, ..Held::default() }
            });
            Arc::new(Known::new(issuer, held.unwrap_or_default()))
        });
        self.all.store(Arc::new(next.collect()));
    }

    /// All of them, in the order of the configuration.
    pub fn all(&self) -> Vec<Arc<Known>> {
        self.all.load().to_vec()
    }

    /// The one of this `iss`.
    pub fn find(&self, iss: &str) -> Option<Arc<Known>> {
        self.all.load().iter().find(|known| known.issuer.issuer == iss).cloned()
    }

    /// The one of this short name.
    pub fn named(&self, name: &str) -> Option<Arc<Known>> {
        self.all.load().iter().find(|known| known.issuer.name == name).cloned()
    }

    /// Accepts a token of one of them that is for one of these audiences, or says why not. It may wait for keys, bounded.
    pub async fn verify(&self, token: &str, audiences: &[&str]) -> Result<(Arc<Issuer>, VerifiedOidc), NotTaken> {
        let iss = oidc::peek_issuer(token).ok_or(OidcDefect::Malformed)?;
        let known = self.find(&iss).ok_or(NotTaken::UnknownIssuer(iss.chars().take(limits::NAME_BYTES).collect()))?;
        let expect = |now| Expect { audiences, now, leeway_ms: limits::CLOCK_SKEW_MS };
        let name = || known.issuer.name.clone();
        let mut last = false;
        loop {
            let no = match known.keys(&self.system) {
                Some(keys) => match oidc::verify(token, &known.issuer, &keys, &expect(self.system.wall())) {
                    Ok(verified) => return Ok((known.issuer.clone(), verified)),
                    Err(OidcDefect::UnknownKid) => NotTaken::Defect(OidcDefect::UnknownKid),
                    Err(defect) => return Err(NotTaken::Defect(defect)),
                },
                None => NotTaken::NoKeys(name()),
            };
            let kid = oidc::peek_kid(token).unwrap_or_default();
            if last {
                if matches!(no, NotTaken::Defect(_)) {
                    known.misses(&kid, &self.system);
                }
                return Err(no);
            }
            match known.fetch(&kid, &self.system).await {
                Fetched::Anew { own } => last = own,
                Fetched::Missing => return Err(no),
                Fetched::Later(_) if matches!(no, NotTaken::NoKeys(_)) => return Err(no),
                Fetched::Later(ms) => return Err(NotTaken::Later(name(), ms)),
            }
        }
    }
}

impl Known {
    fn new(issuer: Issuer, held: Held) -> Known {
        Known { issuer: Arc::new(issuer), held: Mutex::new(held), wanted: Notify::new(), fetched: watch::Sender::new(0) }
    }

    /// Its keys, unless they are too old.
    pub fn keys(&self, system: &System) -> Option<Arc<IssuerKeys>> {
        let held = self.held.lock();
        let age = system.steady().saturating_sub(held.good_at?);
        (age <= limits::OIDC_KEPT_MS).then(|| held.keys.clone())
    }

    /// Until somebody needs a key that is not known.
    pub async fn wanted(&self) {
        self.wanted.notified().await;
    }

    /// A fetch begins.
    pub fn begin(&self, system: &System) {
        let mut held = self.held.lock();
        (held.began, held.under_way) = (Some(system.steady()), true);
    }

    /// A fetch ended, with keys or without.
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

    /// Waits for the fetch that is under way, or has the keys fetched unless that was done just now.
    async fn fetch(&self, kid: &str, system: &System) -> Fetched {
        let mut fetched = self.fetched.subscribe();
        let now = system.steady();
        let own = {
            let mut held = self.held.lock();
            held.missing.retain(|(_, at)| now.saturating_sub(*at) < limits::OIDC_MISSING_MS);
            if held.missing.iter().any(|(missing, _)| missing == kid) {
                return Fetched::Missing;
            }
            let since = held.began.map(|began| now.saturating_sub(began));
            match since.filter(|since| *since < limits::OIDC_REFETCH_MS) {
                _ if held.under_way => false,
                Some(since) => return Fetched::Later(limits::OIDC_REFETCH_MS - since),
                None => {
                    (held.began, held.under_way) = (Some(now), true);
                    self.wanted.notify_one();
                    true
                }
            }
        };
        let wait = Duration::from_millis(limits::OIDC_WAIT_MS);
        match tokio::time::timeout(wait, fetched.changed()).await {
            Ok(Ok(())) => Fetched::Anew { own },
            // It takes longer than anybody waits.
            _ => Fetched::Later(limits::OIDC_WAIT_MS),
        }
    }

    /// A fetch of its own did not find a key of this id.
    fn misses(&self, kid: &str, system: &System) {
        let kid: String = kid.chars().take(limits::NAME_BYTES).collect();
        let mut held = self.held.lock();
        if held.missing.len() >= limits::OIDC_MISSING {
            held.missing.pop_front();
        }
        held.missing.push_back((kid, system.steady()));
    }
}
