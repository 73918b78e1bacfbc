//! The OIDC issuers that the configuration names, each with the keys that it published last. What fetches them is `sources::oidc`.
//!
//! A key that is not known is fetched once more, at a bounded rate; who asked waits for that a moment. An issuer that could not be reached
//! for longer than `limits::OIDC_KEPT_MS` vouches for nothing.

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
                Held { keys: held.keys.clone(), good_at: held.good_at, began: held.began }
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
        let first = match known.keys(&self.system) {
            Some(keys) => oidc::verify(token, &known.issuer, &keys, &expect(self.system.wall())).map_err(NotTaken::Defect),
            None => Err(NotTaken::NoKeys(known.issuer.name.clone())),
        };
        match first {
            Err(NotTaken::Defect(OidcDefect::UnknownKid) | NotTaken::NoKeys(_)) if known.fetch(&self.system).await => {
                let keys = known.keys(&self.system).ok_or(NotTaken::NoKeys(known.issuer.name.clone()))?;
                let verified = oidc::verify(token, &known.issuer, &keys, &expect(self.system.wall()))?;
                Ok((known.issuer.clone(), verified))
            }
            other => other.map(|verified| (known.issuer.clone(), verified)),
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
        self.held.lock().began = Some(system.steady());
    }

    /// A fetch ended, with keys or without.
    pub fn end(&self, keys: Option<IssuerKeys>, system: &System) {
        if let Some(keys) = keys {
            let mut held = self.held.lock();
            held.keys = Arc::new(keys);
            held.good_at = Some(system.steady());
        }
        self.fetched.send_modify(|n| *n += 1);
    }

    /// Has the keys fetched, unless that was done just now, and waits for the end of it. Whether there is anything new to look at.
    async fn fetch(&self, system: &System) -> bool {
        let mut fetched = self.fetched.subscribe();
        let now = system.steady();
        {
            let mut held = self.held.lock();
            if held.began.is_some_and(|began| now.saturating_sub(began) < limits::OIDC_REFETCH_MS) {
                return false;
            }
            held.began = Some(now);
        }
        self.wanted.notify_one();
        let wait = Duration::from_millis(limits::OIDC_WAIT_MS);
        tokio::time::timeout(wait, fetched.changed()).await.is_ok_and(|changed| changed.is_ok())
    }
}
