//! Everything that one replica shares: the ledger, what is compiled from it, and what decisions are made with.
//!
//! The stories (`exchange`, `tasks`, `revoke`) are functions of this; `serve` calls them.

use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use tokio::sync::{Mutex, Notify, Semaphore, broadcast};

use crate::attest::Repeats;
use crate::credential::keyring::{Keyring, Sealer};
use crate::credential::status::Allocator;
use crate::feed::{Feed, Followers};
use crate::heartbeats::Heartbeats;
use crate::identity::bundle::Bundles;
use crate::intake::Intake;
use crate::ledger::record::{Aim, Event, Record};
use crate::ledger::state::{RequestKey, id_for};
use crate::ledger::{Batch, Committed, Ledger};
use crate::limits;
use crate::metrics::Counted;
use crate::oidc::Issuers;
use crate::own_domain::OwnDomain;
use crate::own_svid::OwnSvid;
use crate::peers::Peers;
use crate::policy::catalog::Catalog;
use crate::policy::decide::Decider;
use crate::rates::{PerSecond, Rates};
use crate::refusal::Fault;
use crate::refusals::Refusals;
use crate::seq::{CredentialId, Millis, TaskId};
use crate::system::System;
use crate::trace::{self, Tracer};
use crate::upstream::lease::{Elsewhere, Leases, OverLedger};
use crate::uses::Uses;

/// One replica of the issuing authority.
pub struct Authority {
    /// The ledger.
    pub ledger: Ledger,
    /// Policy sets and registrations, compiled.
    pub catalog: Catalog,
    /// What decisions share.
    pub decider: Decider,
    /// The bundles in force. Changed only after a record of the change is durable.
    pub bundles: Arc<ArcSwap<Bundles>>,
    /// The OIDC issuers whose tokens are taken.
    pub oidc: Arc<Issuers>,
    /// The trust domain that this server is the CA of, where there is one.
    pub own_domain: Option<OwnDomain>,
    /// The keys that sign and derive.
    pub keyring: Keyring,
    /// Opens and seals their private parts.
    pub sealer: Arc<dyn Sealer>,
    /// Places in status lists.
    pub status: Allocator,
    /// What stands at upstreams: made under leases, and undone.
    pub leases: Arc<Leases<OverLedger>>,
    /// Signs of life, gathered.
    pub heartbeats: Heartbeats,
    /// What followers are told.
    pub feed: Feed,
    /// Who follows.
    pub followers: Followers,
    /// Time and randomness.
    pub system: System,
    /// Local users who may act as operators over the Unix socket.
    pub admin_uids: Vec<u32>,
    /// One operator is all there is: over the local socket nobody else has to approve.
    pub single_operator: bool,
    /// What the server knows of itself, once it is started.
    pub own: OnceLock<Arc<OwnSvid>>,
    /// What an operator bounds. A reload of the configuration sets others.
    pub bounds: ArcSwap<Bounds>,
    /// How much is taken in.
    pub intake: Arc<Intake>,
    /// How often callers change what is no issuance. A reload of the configuration sets others.
    pub rates: ArcSwap<Rates>,
    /// Refusals, counted for the audit.
    pub refusals: Refusals,
    /// The newest logins of jobs, for those whose answer was lost.
    pub(crate) attested: Repeats,
    /// Uses, as servers of upstreams tell them.
    pub uses: Uses,
    /// Connections that are open.
    pub peers: Peers,
    /// Durable commits, for those who watch. One who lags more than `limits::WATCH_LAG` is told so.
    pub commits: broadcast::Sender<Arc<Batch>>,
    /// Whether the server stops: streams that would go on for ever end then, and with them their connections.
    pub ending: tokio::sync::watch::Sender<bool>,
    /// Questions that read history at once.
    pub questions: Arc<Semaphore>,
    /// How far the continuous export is, where there is one.
    pub exported: parking_lot::Mutex<Option<Exported>>,
    /// What is counted for metrics.
    pub counted: Counted,
    /// Which calls are traced.
    pub tracer: Arc<Tracer>,
    /// Those who tell webhooks, once the server is started.
    pub webhooks: OnceLock<Box<dyn crate::webhook::Tellers>>,
    /// Where the files of policies and registrations differ from the ledger, which counts.
    pub drift: ArcSwap<Vec<String>>,
    /// Those who read the ledger in order at once.
    pub readers: Arc<Semaphore>,
    /// One change of keys or bundles at a time: each is planned on what the one before left.
    pub(crate) changing: Mutex<()>,
    /// A signing key was revoked: another has to take its place.
    pub key_revoked: Notify,
    /// When this process began, by the wall clock and by the steady one.
    pub(crate) began: (Millis, u64),
}

/// How far a continuous export of the audit is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exported {
    /// Everything up to here was handed over.
    pub seq: crate::seq::Seq,
    /// Why it does not go on, where it does not.
    pub problem: String,
    /// Records since the start that were too large for the destination: only their seq and event were handed over.
    pub cut: u64,
}

/// What an authority is made with besides its ledger.
pub struct Parts {
    /// What decisions share.
    pub decider: Decider,
    /// The bundles in force.
    pub bundles: Arc<ArcSwap<Bundles>>,
    /// The OIDC issuers whose tokens are taken.
    pub oidc: Arc<Issuers>,
    /// The trust domain that this server is the CA of, where there is one.
    pub own_domain: Option<OwnDomain>,
    /// Opens and seals the private parts of keys.
    pub sealer: Arc<dyn Sealer>,
    /// Time and randomness.
    pub system: System,
    /// Local users who may act as operators.
    pub admin_uids: Vec<u32>,
    /// One operator is all there is.
    pub single_operator: bool,
    /// How long a follower may go without a fresh head, milliseconds.
    pub feed_max_age_ms: u64,
    /// What an operator bounds below the ceilings of `limits.rs`.
    pub bounds: Bounds,
    /// The kinds whose credentials are made at upstreams.
    pub elsewhere: Elsewhere,
    /// What an operator wants to know of calls.
    pub traced: trace::Wanted,
}

/// Bounds of one replica beside those of its ledger ([`Ledger::ceilings`]): at most those of `limits.rs`.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Rules in all, before callers' own acts that make one are refused.
    pub rules: usize,
    /// Rules that one caller's own acts hold in force.
    pub rules_per_caller: usize,
    /// How often one caller may change what is no issuance.
    pub rates: PerSecond,
    /// Registered followers.
    pub followers: usize,
    /// Registered followers of one caller.
    pub followers_per_caller: usize,
    /// Threads that decide.
    pub deciding: usize,
    /// Exchanges under way on one stream.
    pub stream_in_flight: usize,
    /// Oldest view that is decided on, milliseconds.
    pub view_max_age_ms: u64,
    /// Longest life that a JWT-SVID may have left, milliseconds.
    pub svid_max_ttl_ms: u64,
}

impl Default for Bounds {
    fn default() -> Bounds {
        Bounds {
            rules: limits::RULES,
            rules_per_caller: limits::RULES_PER_CALLER,
            rates: PerSecond::default(),
            followers: limits::FOLLOWERS,
            followers_per_caller: limits::FOLLOWERS_PER_CALLER,
            deciding: std::thread::available_parallelism().map_or(1, usize::from),
            stream_in_flight: limits::STREAM_IN_FLIGHT,
            view_max_age_ms: limits::VIEW_MAX_AGE_MS,
            svid_max_ttl_ms: limits::SVID_MAX_TTL_MS,
        }
    }
}

impl Authority {
    /// An authority over an open ledger. What is compiled and loaded follows the ledger from here on.
    pub fn new(ledger: Ledger, parts: Parts) -> Result<Arc<Authority>, Fault> {
        // The ledger wrote a record when it was opened: its durable head is a seq of this process.
        let status = Allocator::new(ledger.durable(), &parts.system.random32());
        let feed = Feed::new(ledger.durable());
        let began = (parts.system.wall(), parts.system.steady());
        let over = Arc::new(OverLedger::new(ledger.clone(), parts.system.clone()));
        let tracer = Tracer::new(parts.traced, parts.system.clone());
        let leases = Leases::new(over, parts.elsewhere, parts.system.clone());
        let authority = Arc::new(Authority {
            ledger,
            catalog: Catalog::new(&parts.decider.issuer),
            decider: parts.decider,
            bundles: parts.bundles,
            oidc: parts.oidc,
            own_domain: parts.own_domain,
            keyring: Keyring::default(),
            sealer: parts.sealer,
            status,
            leases,
            heartbeats: Heartbeats::default(),
            feed,
            followers: Followers::new(parts.feed_max_age_ms, (parts.bounds.followers, parts.bounds.followers_per_caller)),
            intake: Intake::new(parts.bounds.deciding),
            rates: ArcSwap::from_pointee(Rates::new(parts.bounds.rates, parts.system.clone())),
            bounds: ArcSwap::from_pointee(parts.bounds),
            system: parts.system,
            admin_uids: parts.admin_uids,
            single_operator: parts.single_operator,
            own: OnceLock::new(),
            refusals: Refusals::default(),
            attested: Repeats::default(),
            uses: Uses::default(),
            peers: Peers::default(),
            commits: broadcast::Sender::new(limits::WATCH_LAG),
            ending: tokio::sync::watch::Sender::new(false),
            questions: Arc::new(Semaphore::new(limits::HISTORY_QUESTIONS)),
            exported: parking_lot::Mutex::new(None),
            counted: Counted::default(),
            tracer,
            webhooks: OnceLock::new(),
            drift: ArcSwap::default(),
            readers: Arc::new(Semaphore::new(limits::READERS)),
            changing: Mutex::new(()),
            key_revoked: Notify::new(),
            began,
        });
        authority.ledger.peek(|state| authority.catalog.sync(state));
        authority.load_keys()?;
        authority.load_bundles()?;
        let weak = Arc::downgrade(&authority);
        authority.ledger.observe(move |batch| {
            if let Some(authority) = weak.upgrade() {
                authority.follow(batch);
            }
        });
        Ok(authority)
    }

    /// Keeps up with a durable commit.
    fn follow(&self, batch: &Arc<Batch>) {
        self.status.learn(batch.head);
        self.ledger.peek(|state| self.feed.take(batch, state));
        // Issuances alone: there is nothing to keep up with.
        let changes = || batch.records.iter().filter_map(Committed::change);
        if changes().any(|r| Catalog::concerns(r)) {
            self.ledger.peek(|state| self.catalog.sync(state));
        }
        if changes().any(|r| concerns_keys(r))
            && let Err(fault) = self.load_keys()
        {
            tracing::error!(%fault, "a key could not be loaded");
        }
        if changes().any(|r| revokes_a_key(r)) {
            self.key_revoked.notify_one();
        }
        let domains: Vec<&str> = changes().filter_map(|r| changed_domain(r)).collect();
        if !domains.is_empty()
            && let Err(fault) = self.load_bundles_of(|name| domains.contains(&name))
        {
            tracing::error!(%fault, "a bundle could not be loaded");
        }
        changes().for_each(|r| self.counted.count(r));
        if let Some(own) = &self.own_domain {
            changes().for_each(|r| own.follow(r));
        }
        self.leases.follow(changes().map(|r| &**r));
        // Nobody watches: that is no error.
        let _ = self.commits.send(batch.clone());
    }

    /// Other bounds from here on. How often a caller did something is counted anew where its rate is another.
    pub fn set_bounds(&self, bounds: Bounds) {
        let before = self.bounds.swap(Arc::new(bounds));
        self.followers.set_most((bounds.followers, bounds.followers_per_caller));
        if before.rates != bounds.rates {
            self.rates.store(Arc::new(Rates::new(bounds.rates, self.system.clone())));
        }
    }

    fn load_keys(&self) -> Result<(), Fault> {
        let keys = self.ledger.peek(|state| state.keys.clone());
        self.keyring.sync(&keys, &*self.ledger.store(), &*self.sealer)
    }

    /// Waits until the server stops.
    pub async fn ends(&self) {
        let _ = self.ending.subscribe().wait_for(|ends| *ends).await;
    }

    /// A fresh task id.
    pub fn new_task_id(&self) -> TaskId {
        TaskId::from_bytes(self.system.id16())
    }

    /// A fresh credential id, of one that answers a request of that name.
    pub fn new_credential_id(&self, request: Option<RequestKey>) -> CredentialId {
        id_for(request.as_ref(), self.system.id16())
    }
}

/// The trust domain whose bundle a record changes.
fn changed_domain(record: &Record) -> Option<&str> {
    match &record.event {
        Some(Event::BundleSet(e)) => Some(&e.trust_domain),
        _ => None,
    }
}

/// Whether a record changes which keys are in use.
fn concerns_keys(record: &Record) -> bool {
    match &record.event {
        Some(Event::KeyAdded(_) | Event::KeyChanged(_) | Event::GenerationBegun(_)) => true,
        _ => revokes_a_key(record),
    }
}

/// Whether a record takes a signing key out of use at once.
fn revokes_a_key(record: &Record) -> bool {
    match &record.event {
        Some(Event::Revoked(e)) => e.targets.iter().any(|t| matches!(t.aim, Some(Aim::SigningKey(_)))),
        _ => false,
    }
}
