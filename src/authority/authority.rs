//! The shared state of one replica: the ledger, the policies and registrations compiled from it, and everything that decisions use.
//!
//! The operations (`exchange`, `tasks`, `revoke`, …) are methods of [`Authority`], which `mayfly_api` calls.

use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use tokio::sync::{Mutex, Notify, Semaphore, broadcast};

use crate::admission::admission_queue::AdmissionQueue;
use crate::admission::peers::ConnectionCounter;
use crate::admission::rate_limits::{CallerRates, RateLimits};
use crate::admission::refusals::RefusalLog;
use crate::audit::audit_reads::AuditReads;
use crate::audit::use_reports::UseReports;
use crate::exchange::ExchangePath;
use crate::metrics::EventCounters;
use crate::metrics::calls::CallMetrics;
use crate::metrics::exchanges::ExchangeMetrics;
use crate::metrics::handshakes::HandshakeMetrics;
use crate::people::attestation::CiLoginCache;
use crate::people::oidc_issuers::Issuers;
use crate::revocation::feed::{Feed, Followers};
use crate::secrets::SecretRotations;
use crate::source_health::{SourceHealth, SourceKind, SourceState};
use crate::tasks::heartbeats::Heartbeats;
use crate::trust::certificate_lists::CertificateLists;
use crate::trust::own_domain::OwnDomain;
use crate::trust::own_svid::OwnSvid;
use mayfly_base::limits;
use mayfly_base::refusal::Fault;
use mayfly_base::system::System;
use mayfly_base::trace::{self, Tracer};
use mayfly_credential::keyring::{Keyring, Sealer};
use mayfly_credential::lease::{ConnectorSettings, LeaseDriver, ReplicaLedger, UndoSecrets};
use mayfly_credential::sign_in::UpstreamConnection;
use mayfly_credential::status_list::StatusListAllocator;
use mayfly_identity::bundle::Bundles;
use mayfly_ledger::record::{Event, Record, RecordedTarget};
use mayfly_ledger::state::{RequestKey, id_for};
use mayfly_ledger::{Batch, CommittedRecord, Ledger, State};
use mayfly_policy::catalog::Catalog;
use mayfly_policy::decide::Decider;
use mayfly_verify::seq::{CredentialId, Millis, TaskId};

/// One replica of the issuing authority.
pub struct Authority {
    /// The ledger.
    pub ledger: Ledger,
    /// The compiled policy sets and registrations.
    pub catalog: Catalog,
    /// The state that decisions share.
    pub decider: Decider,
    /// The trust bundles in effect. They are replaced only after a record of the change is durable.
    pub bundles: Arc<ArcSwap<Bundles>>,
    /// The OIDC issuers whose tokens are accepted.
    pub oidc: Arc<Issuers>,
    /// The trust domain that this server is the CA of, if there is one.
    pub own_domain: Option<OwnDomain>,
    /// The lists of revoked certificates of the CAs of upstreams.
    pub certificate_lists: CertificateLists,
    /// The keys that sign tokens and derive secrets.
    pub keyring: Arc<Keyring>,
    /// Seals and opens the private keys.
    pub sealer: Arc<dyn Sealer>,
    /// Allocates indices in status lists.
    pub status: StatusListAllocator,
    /// The leases: creates and removes objects at upstreams.
    pub leases: Arc<LeaseDriver<ReplicaLedger>>,
    /// Coalesces heartbeats.
    pub heartbeats: Heartbeats,
    /// The feed of revocation events.
    pub feed: Feed,
    /// The registered followers.
    pub followers: Followers,
    /// Time and randomness.
    pub system: System,
    /// The local uids that may act as operators over the Unix socket.
    pub admin_uids: Vec<u32>,
    /// The server has a single operator: actions over the local socket need no second person.
    pub single_operator: bool,
    /// The server's own SVID, once the server is started.
    pub own: OnceLock<Arc<OwnSvid>>,
    /// The configured bounds. A reload of the configuration replaces them.
    pub bounds: ArcSwap<AuthorityLimits>,
    /// Which code answers exchanges.
    pub exchange_path: ExchangePath,
    /// The admission queue, which bounds the load.
    pub intake: Arc<AdmissionQueue>,
    /// The rates of a caller's changes other than issuances. A reload of the configuration replaces them.
    pub rates: ArcSwap<RateLimits>,
    /// The refusals, counted for the audit log.
    pub refusals: RefusalLog,
    /// The latest logins of jobs, for jobs that did not receive the answer.
    pub(crate) attested: CiLoginCache,
    /// The uses that servers of upstreams report.
    pub uses: UseReports,
    /// The open connections.
    pub peers: ConnectionCounter,
    /// Broadcasts durable commits to watchers. A watcher that lags by more than `limits::WATCH_LAG` gets an error.
    pub commits: broadcast::Sender<Arc<Batch>>,
    /// Whether the server is stopping: endless streams then end, so that their connections can close.
    pub ending: tokio::sync::watch::Sender<bool>,
    /// Bounds the concurrent queries that read history.
    pub questions: Arc<Semaphore>,
    /// Bounds the concurrent compilations of policy sets for callers.
    pub(crate) compilations: Arc<Semaphore>,
    /// The progress of the continuous export, if there is one.
    pub exported: parking_lot::Mutex<Option<ExportProgress>>,
    /// The counters of metrics.
    pub counted: EventCounters,
    /// Selects the calls that are traced.
    pub tracer: Arc<Tracer>,
    /// The senders of webhooks, once the server is started.
    pub webhooks: OnceLock<Box<dyn crate::webhook::WebhookSenders>>,
    /// The differences between the files of policies and registrations and the ledger, which is authoritative.
    pub drift: ArcSwap<Vec<String>>,
    /// The grants of people at authorization servers, as of the last look.
    pub(crate) connections: ArcSwap<Vec<UpstreamConnection>>,
    /// Calls by method and code.
    pub call_metrics: Arc<CallMetrics>,
    /// Exchanges by environment, upstream and outcome.
    pub exchange_metrics: ExchangeMetrics,
    /// The refused handshakes, counted.
    pub refused_handshakes: Arc<HandshakeMetrics>,
    /// Reads of the audit that are counted and not yet recorded.
    pub audit_reads: AuditReads,
    /// Files and services that are read again while the server runs, and whether each can be read.
    pub source_health: Arc<SourceHealth>,
    /// Bounds the concurrent readers that read the ledger in order.
    pub readers: Arc<Semaphore>,
    /// Serializes changes of keys and bundles, each of which is planned on the result of the one before.
    pub(crate) changing: Mutex<()>,
    /// Notified when a signing key is revoked, so that another key takes its place at once.
    pub key_revoked: Notify,
    /// The rotation of static secrets.
    pub rotations: SecretRotations,
    /// The start of this process by the wall clock and by the monotonic clock.
    pub began: (Millis, u64),
}

/// The progress of a continuous export of the audit log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExportProgress {
    /// Everything up to this sequence number was exported.
    pub seq: mayfly_verify::seq::Seq,
    /// Why the export is stuck; empty if it is not.
    pub problem: String,
    /// The number of records since the start that were too large for the destination; only their sequence number and event were exported.
    pub cut: u64,
}

/// The parts that an authority is made of, besides its ledger.
pub struct AuthorityParts {
    /// The state that decisions share.
    pub decider: Decider,
    /// The trust bundles in effect.
    pub bundles: Arc<ArcSwap<Bundles>>,
    /// The OIDC issuers whose tokens are accepted.
    pub oidc: Arc<Issuers>,
    /// The trust domain that this server is the CA of, if there is one.
    pub own_domain: Option<OwnDomain>,
    /// Seals and opens the private keys.
    pub sealer: Arc<dyn Sealer>,
    /// Time and randomness.
    pub system: System,
    /// The local uids that may act as operators.
    pub admin_uids: Vec<u32>,
    /// The server has a single operator.
    pub single_operator: bool,
    /// How long a follower may go without a fresh head, milliseconds.
    pub feed_max_age_ms: u64,
    /// The bounds that the operator sets below the ceilings of `limits.rs`.
    pub bounds: AuthorityLimits,
    /// The credential kinds whose credentials are made at upstreams.
    pub connectors: ConnectorSettings,
    /// The tracing that the operator configured.
    pub traced: trace::TracerSettings,
    /// Which code answers exchanges; a server leaves it at its default.
    pub exchange_path: ExchangePath,
}

/// The bounds of one replica besides those of its ledger ([`Ledger::ceilings`]); at most those of `limits.rs`.
#[derive(Clone, Copy, Debug)]
pub struct AuthorityLimits {
    /// The number of revocation rules in total at which callers' own changes that make a rule are refused.
    pub rules: usize,
    /// The number of rules in effect that one caller's own changes may make; beyond it, the caller is locked.
    pub rules_per_caller: usize,
    /// The rate of one caller's changes other than issuances.
    pub rates: CallerRates,
    /// The number of registered followers.
    pub followers: usize,
    /// The number of registered followers of one caller.
    pub followers_per_caller: usize,
    /// The number of threads that decide.
    pub deciding: usize,
    /// The number of exchanges in progress on one stream.
    pub stream_in_flight: usize,
    /// The maximum age of a view that a decision may use, milliseconds.
    pub view_max_age_ms: u64,
    /// The maximum remaining lifetime of a JWT-SVID, milliseconds.
    pub svid_max_ttl_ms: u64,
}

impl Default for AuthorityLimits {
    fn default() -> AuthorityLimits {
        AuthorityLimits {
            rules: limits::RULES,
            rules_per_caller: limits::RULES_PER_CALLER,
            rates: CallerRates::default(),
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
    /// Creates an authority over an open ledger. Its compiled and loaded state follows the ledger from then on.
    pub fn new(ledger: Ledger, parts: AuthorityParts) -> Result<Arc<Authority>, Fault> {
        // Opening the ledger wrote a record, so its durable head is a sequence number of this process.
        let status = StatusListAllocator::new(ledger.durable(), &parts.system.random32());
        let feed = Feed::new(ledger.durable());
        let began = (parts.system.wall(), parts.system.steady());
        let over = Arc::new(ReplicaLedger::new(ledger.clone(), parts.system.clone()));
        let tracer = Tracer::new(parts.traced, parts.system.clone());
        let keyring = Arc::new(Keyring::default());
        let leases = {
            let of_store = ledger.clone();
            let secrets = UndoSecrets::new(move || of_store.store(), parts.sealer.clone());
            LeaseDriver::new(over, parts.connectors, (keyring.clone(), secrets), parts.system.clone())
        };
        let authority = Arc::new(Authority {
            ledger,
            catalog: Catalog::new(&parts.decider.issuer),
            decider: parts.decider,
            bundles: parts.bundles,
            oidc: parts.oidc,
            own_domain: parts.own_domain,
            certificate_lists: CertificateLists::default(),
            keyring,
            sealer: parts.sealer,
            status,
            leases,
            heartbeats: Heartbeats::default(),
            feed,
            followers: Followers::new(parts.feed_max_age_ms, (parts.bounds.followers, parts.bounds.followers_per_caller)),
            exchange_path: parts.exchange_path,
            intake: AdmissionQueue::new(parts.bounds.deciding),
            rates: ArcSwap::from_pointee(RateLimits::new(parts.bounds.rates, parts.system.clone())),
            bounds: ArcSwap::from_pointee(parts.bounds),
            system: parts.system,
            admin_uids: parts.admin_uids,
            single_operator: parts.single_operator,
            own: OnceLock::new(),
            refusals: RefusalLog::default(),
            attested: CiLoginCache::default(),
            uses: UseReports::default(),
            peers: ConnectionCounter::default(),
            commits: broadcast::Sender::new(limits::WATCH_LAG),
            ending: tokio::sync::watch::Sender::new(false),
            questions: Arc::new(Semaphore::new(limits::HISTORY_QUESTIONS)),
            compilations: Arc::new(Semaphore::new(limits::POLICY_COMPILATIONS)),
            exported: parking_lot::Mutex::new(None),
            counted: EventCounters::default(),
            tracer,
            webhooks: OnceLock::new(),
            drift: ArcSwap::default(),
            connections: ArcSwap::default(),
            call_metrics: Arc::default(),
            exchange_metrics: ExchangeMetrics::default(),
            refused_handshakes: Arc::default(),
            audit_reads: AuditReads::default(),
            source_health: Arc::default(),
            readers: Arc::new(Semaphore::new(limits::READERS)),
            changing: Mutex::new(()),
            key_revoked: Notify::new(),
            rotations: SecretRotations::default(),
            began,
        });
        authority.ledger.peek(|state| authority.compile(state));
        authority.load_keys()?;
        authority.load_bundles()?;
        let vault: std::sync::Weak<Authority> = Arc::downgrade(&authority);
        authority.leases.vault().fill(vault);
        let weak = Arc::downgrade(&authority);
        authority.ledger.observe(move |batch| {
            if let Some(authority) = weak.upgrade() {
                authority.follow(batch);
            }
        });
        Ok(authority)
    }

    fn compile(&self, state: &State) {
        self.catalog.sync(state);
        let compiled = self.catalog.now();
        let registered = compiled.upstreams().map(|r| (r.upstream.name.as_str(), r.upstream.environment.as_str()));
        self.exchange_metrics.sync(registered);
    }

    /// Updates the compiled and loaded state after a durable commit.
    fn follow(&self, batch: &Arc<Batch>) {
        self.status.learn(batch.head);
        self.ledger.peek(|state| self.feed.take(batch, state));
        // A commit of issuances alone changes none of that state.
        let changes = || batch.records.iter().filter_map(CommittedRecord::change);
        if changes().any(|r| Catalog::concerns(r)) {
            self.ledger.peek(|state| self.compile(state));
        }
        if changes().any(|r| concerns_keys(r))
            && let Err(fault) = self.load_keys()
        {
            tracing::error!(%fault, "a key could not be loaded");
        }
        // A registration may need a key that its environment does not have yet.
        if changes().any(|r| revokes_a_key(r) || matches!(r.event, Some(Event::UpstreamSet(_)))) {
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
        changes().for_each(|r| self.certificate_lists.follow(r));
        self.leases.follow(changes().map(|r| &**r));
        // An error means that there are no watchers.
        let _ = self.commits.send(batch.clone());
    }

    /// Replaces the bounds. The counts of a caller's changes start anew where the rate has changed.
    pub fn set_bounds(&self, bounds: AuthorityLimits) {
        let before = self.bounds.swap(Arc::new(bounds));
        self.followers.set_most((bounds.followers, bounds.followers_per_caller));
        if before.rates != bounds.rates {
            self.rates.store(Arc::new(RateLimits::new(bounds.rates, self.system.clone())));
        }
    }

    /// The files and services that the server reads again while it runs, including its own SVID, and whether each can be read now.
    pub fn sources(&self) -> Vec<SourceState> {
        let own = self.own.get().map(|own| {
            let renewing = own.renewing();
            let (problem, since) = (renewing.problem, renewing.since);
            SourceState { kind: SourceKind::OwnSvid, name: String::new(), place: own.place().to_owned(), problem, since }
        });
        own.into_iter().chain(self.source_health.all()).collect()
    }

    fn load_keys(&self) -> Result<(), Fault> {
        let keys = self.ledger.peek(|state| state.keys.clone());
        self.keyring.sync(&keys, &*self.ledger.store(), &*self.sealer)
    }

    /// Waits until the server stops.
    pub async fn ends(&self) {
        let _ = self.ending.subscribe().wait_for(|ends| *ends).await;
    }

    /// A new task id.
    pub fn new_task_id(&self) -> TaskId {
        TaskId::from_bytes(self.system.id16())
    }

    /// A new credential id, for a credential that answers the request `request`.
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
        Some(Event::Revoked(e)) => e.targets.iter().any(|t| matches!(t.aim, Some(RecordedTarget::SigningKey(_)))),
        _ => false,
    }
}
