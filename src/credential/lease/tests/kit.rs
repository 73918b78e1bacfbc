//! A process that can be killed at any of its steps: an in-memory ledger, a remote kind over the real test server, and a step counter.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::super::{
    ConnectorSettings, LeaseConcurrency, LeaseDriver, LeaseLedger, LeaseStatus, LeaseTiming, UndoSecrets, standing,
};
use super::account::{dropped, gone, login, made};
use super::server::{Server, call};
use crate::connector::{
    ConnectorFuture, MakeError, MintOrder, RepeatResponse, UndoError, UndoOrder, UpstreamConnector, UpstreamConnectors,
    UpstreamCredential, UpstreamHandle,
};
use crate::testing::{TestLog, grant, plain};
use crate::{CredentialKind, CredentialMaterial, MintedCredential, Novelty};
use mayfly_base::refusal::Error;
use mayfly_base::system::System;
use mayfly_ledger::Receipt;
use mayfly_ledger::record::Record;
use mayfly_ledger::state::{Lease, State};
use mayfly_ledger::upstream::access::{AccessError, AccessLevel, AccessQuery, GrantedAccess};
use mayfly_policy::grant::Grant;
use mayfly_verify::seq::Millis;

pub const TIMING: LeaseTiming =
    LeaseTiming { make_ms: 120, call_ms: 120, left_ms: 260, retry_min_ms: 2, retry_max_ms: 20, look_ms: 5 };
pub fn connectors(remotes: UpstreamConnectors, timing: LeaseTiming) -> ConnectorSettings {
    ConnectorSettings { remotes, timing, places: LeaseConcurrency::default(), issuer: String::new() }
}

/// Well above `server::LATE`, also on a busy machine.
pub const SETTLES_MS: u64 = 250;

/// The lifetime of a process: it ends after a given number of steps.
#[derive(Clone)]
pub struct Life {
    taken: Arc<AtomicU64>,
    last: u64,
    over: watch::Sender<bool>,
}

impl Life {
    pub fn of(last: u64) -> Life {
        Life { taken: Arc::default(), last, over: watch::Sender::new(false) }
    }

    /// A point at which the process can be killed. A killed process takes no further step.
    pub async fn step(&self) {
        if self.taken.fetch_add(1, Ordering::SeqCst) + 1 >= self.last {
            self.over.send_replace(true);
            std::future::pending::<()>().await;
        }
    }

    pub fn taken(&self) -> u64 {
        self.taken.load(Ordering::SeqCst)
    }

    /// Completes when the process ends.
    pub async fn over(&self) {
        let _ = self.over.subscribe().wait_for(|over| *over).await;
    }
}

/// The ledger of one process.
pub struct Disk {
    pub log: Mutex<TestLog>,
    /// How often the state was read.
    pub reads: AtomicU64,
    follows: OnceLock<Weak<LeaseDriver<Disk>>>,
    life: Life,
    system: System,
}

impl LeaseLedger for Disk {
    async fn commit(&self, records: Vec<Record>) -> Result<Receipt, Error> {
        self.life.step().await;
        let (verdict, head) = {
            let mut log = self.log.lock();
            log.time = self.system.wall();
            // Void records are written too, as with several writers; the fold decides about them.
            let verdict = log.put(records.clone()).into_iter().collect::<Result<Vec<_>, _>>();
            (verdict, log.state.head)
        };
        if let (Ok(_), Some(leases)) = (&verdict, self.follows.get().and_then(Weak::upgrade)) {
            leases.follow(records.iter());
        }
        self.life.step().await;
        verdict.map_err(Error::Refusal)?;
        Ok(Receipt::for_test(head, &records))
    }

    async fn settled<T: Send>(&self, read: impl FnOnce(&State) -> T + Send) -> Result<T, Error> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        Ok(read(&self.log.lock().state))
    }

    fn now(&self) -> Millis {
        self.system.wall()
    }
}

/// The remote kind: an account named after the lease.
pub struct Accounts {
    server: Server,
    life: Life,
}

impl Accounts {
    async fn call(&self, word: &str, name: &str) -> Result<String, String> {
        self.life.step().await;
        let answer = call(self.server.address, &format!("{word} {name}"), async || self.life.step().await).await;
        self.life.step().await;
        answer.map_err(|e| e.to_string())
    }
}

impl UpstreamConnector for Accounts {
    fn kind(&self) -> CredentialKind {
        CredentialKind::Postgres
    }

    fn describe(&self, _: &AccessQuery<'_>) -> Result<GrantedAccess, AccessError> {
        Ok(GrantedAccess { levels: [AccessLevel::Unknown].into(), ..GrantedAccess::default() })
    }

    fn name(&self, order: &MintOrder<'_>) -> Result<UpstreamHandle, MakeError> {
        Ok(UpstreamHandle { handle: format!("mayfly_{}", order.lease), ends_at: Millis(0), terms: String::new() })
    }

    fn make<'a>(&'a self, order: &'a MintOrder<'a>) -> ConnectorFuture<'a, Result<UpstreamCredential, MakeError>> {
        Box::pin(async move { made(self.call("MAKE", order.handle).await, login(order.handle)) })
    }

    fn undo<'a>(&'a self, order: &'a UndoOrder<'a>) -> ConnectorFuture<'a, Result<(), UndoError>> {
        Box::pin(async move { dropped(self.call("DROP", &order.lease.handle).await) })
    }

    fn is_gone<'a>(&'a self, order: &'a UndoOrder<'a>) -> ConnectorFuture<'a, Result<bool, UndoError>> {
        Box::pin(async move { gone(self.call("HAS", &order.lease.handle).await) })
    }

    fn settles_ms(&self) -> u64 {
        SETTLES_MS
    }

    fn again<'a>(&'a self, order: &'a MintOrder<'a>) -> ConnectorFuture<'a, Result<RepeatResponse, MakeError>> {
        Box::pin(async move {
            Ok(RepeatResponse::Same(UpstreamCredential { answer: login(order.handle), irrevocable: false, ends_at: None }))
        })
    }
}

impl Accounts {
    pub fn at(server: &Server, life: Life) -> Arc<Accounts> {
        Arc::new(Accounts { server: server.clone(), life })
    }
}

/// A process. Dropping it loses everything that it holds in memory.
pub struct Process {
    pub disk: Arc<Disk>,
    pub leases: Arc<LeaseDriver<Disk>>,
    pub life: Life,
}

impl Process {
    /// Starts a process on the commits of a ledger.
    pub fn start(commits: Vec<Bytes>, server: &Server, life: Life) -> Process {
        let accounts = Accounts::at(server, life.clone());
        Process::with(commits, accounts, UndoSecrets::default(), life)
    }

    /// As [`Process::start`], with another kind.
    pub fn with(commits: Vec<Bytes>, remote: Arc<dyn UpstreamConnector>, secrets: UndoSecrets, life: Life) -> Process {
        let system = System::real();
        let log = TestLog::replayed(commits, system.wall());
        let (reads, follows) = (AtomicU64::default(), OnceLock::new());
        let disk = Arc::new(Disk { log: Mutex::new(log), reads, follows, life: life.clone(), system: system.clone() });
        let leases = LeaseDriver::new(
            disk.clone(),
            connectors(UpstreamConnectors::default().with(remote), TIMING),
            (Arc::default(), secrets),
            system,
        );
        disk.follows.set(Arc::downgrade(&leases)).unwrap_or_else(|_| panic!("set once"));
        Process { disk, leases, life }
    }

    pub fn grant(&self) -> Grant {
        let log = self.disk.log.lock();
        let mut parts = plain(CredentialKind::Postgres.number(), self.disk.now(), log.state.head);
        parts.request = None;
        grant(parts)
    }

    /// Runs an exchange: make, commit, reveal. Returns the name of the account that the caller received.
    pub async fn exchange(&self, before_commit: impl AsyncFnOnce(&MintedCredential)) -> Result<String, Error> {
        let mut minted = self.leases.mint(self.grant(), 1).await?;
        before_commit(&minted).await;
        let receipt = self.disk.commit(minted.records()).await?;
        let (_, summary, answer) = minted.reveal(receipt)?.into_parts();
        assert_eq!(summary.about.novelty, Novelty::New);
        match answer {
            CredentialMaterial::Database { user, .. } => Ok(user),
            _ => panic!("no login"),
        }
    }

    pub fn commits(&self) -> Vec<Bytes> {
        self.disk.log.lock().commits.clone()
    }

    /// The accounts that belong to live credentials.
    pub fn somebodys(&self) -> std::collections::BTreeSet<String> {
        let log = self.disk.log.lock();
        let now = self.disk.now();
        let live = |l: &&std::sync::Arc<Lease>| standing(&log.state, l, now, TIMING.left_ms) == LeaseStatus::Somebodys;
        log.state.leases.values().filter(live).map(|l| l.handle.to_string()).collect()
    }

    /// The number of open leases without a live credential.
    pub fn unfinished(&self) -> usize {
        let open = self.disk.log.lock().state.leases.len();
        open - self.somebodys().len()
    }

    /// Runs until no lease is left to undo.
    pub async fn clean_up(&self) {
        let limit = std::time::Duration::from_secs(20);
        let done = tokio::time::timeout(limit, async {
            while self.unfinished() > 0 {
                let wait = self.leases.undo_due().await.map_err(|e| e.to_string()).unwrap();
                tokio::time::sleep(std::time::Duration::from_millis(wait.clamp(1, 5))).await;
            }
        });
        let listed = match done.await {
            Ok(()) => return,
            Err(_) => self.leases.list(None, 100).await.map_err(|e| e.to_string()).unwrap(),
        };
        panic!("not undone: {listed:?}");
    }
}
