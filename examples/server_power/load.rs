//! The load: workloads and an operator at the same time, each recording acknowledged answers.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use mayfly::cli::dev::{DevSettings, DevWorld};
use mayfly::pb::mayfly::v1 as pb;
use mayfly::serve::client;
use mayfly::server::Addresses;
use mayfly::system::System;
use parking_lot::Mutex;
use tokio::task::JoinSet;
use tonic::transport::Channel;

use crate::names::{Acks, Ask, Named};
use crate::{Error, calls};

/// Credentials in each task; the task's number is the one before theirs.
const IN_TASK: u64 = 8;
/// Workers that open tasks, exchange in them and complete some.
const WORKERS: usize = 3;
/// Longest wait for the server.
const PATIENCE: Duration = Duration::from_secs(60);

struct Load {
    acks: Acks,
    agent: Channel,
    ci: Channel,
    mcp: Channel,
    operator: Channel,
    /// Credentials that stay, to be revoked one by one.
    alive: Mutex<Vec<(u64, String)>>,
    working: AtomicUsize,
}

pub fn run(dir: &Path, acks: &Path, names: &Path, rounds: usize) -> Result<(), Error> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let at = serving(dir).await?;
        // The existing world stays; only the SVIDs are issued again.
        let world = DevWorld::create(dir, &DevSettings::default())?;
        let load = Arc::new(Load {
            acks: Acks::new(acks, names)?,
            agent: world.channel("agent/demo", at.workload).await?,
            ci: world.channel("ci/demo", at.workload).await?,
            mcp: world.channel("mcp/echo", at.workload).await?,
            operator: client::unix(&dir.join("run/admin.sock")).await?,
            alive: Mutex::default(),
            working: AtomicUsize::new(WORKERS),
        });
        let mut all = JoinSet::new();
        for worker in 0..WORKERS {
            all.spawn(tasks(load.clone(), worker, rounds));
        }
        all.spawn(inline(load.clone()));
        all.spawn(given_back(load.clone()));
        all.spawn(revoked_one_by_one(load.clone()));
        all.spawn(revoked_by_caller(load.clone()));
        all.spawn(keys(load.clone()));
        while let Some(done) = all.join_next().await {
            done??;
        }
        load.acks.note(0, &Named::End { at: System::real().wall().0 })
    })
}

async fn serving(dir: &Path) -> Result<Addresses, Error> {
    for _ in 0..PATIENCE.as_millis() / 20 {
        if let Some(at) = DevWorld::addresses(dir) {
            return Ok(at);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Err("the server does not answer".into())
}

impl Load {
    fn goes_on(&self) -> bool {
        self.working.load(Ordering::SeqCst) > 0
    }

    async fn issue(&self, n: u64, caller: &Channel, ask: Option<Ask>) -> Result<String, Error> {
        self.acks.sent(n)?;
        let named = calls::exchange(caller, ask).await?;
        self.acks.answered(n, &named)?;
        match named {
            Named::Credential { id, .. } => Ok(id),
            _ => Err("no credential".into()),
        }
    }
}

/// Two of three tasks are completed, the third one stays.
async fn tasks(load: Arc<Load>, worker: usize, rounds: usize) -> Result<(), Error> {
    for round in 0..rounds {
        let first = load.acks.numbers(1 + IN_TASK);
        load.acks.sent(first)?;
        let task = calls::open(&load.agent).await?;
        load.acks.answered(first, &Named::Task { id: task.clone() })?;
        let mut made = Vec::new();
        for n in first + 1..=first + IN_TASK {
            let ask = Ask { task: task.clone(), request: format!("{worker}-{n}"), reference: n % 4 == 0 };
            made.push((n, load.issue(n, &load.agent, Some(ask)).await?));
        }
        if round % 3 == 2 {
            load.alive.lock().extend(made);
        } else {
            load.acks.ending(first, first + IN_TASK)?;
            calls::complete(&load.agent, &task).await?;
            load.acks.ended(first, first + IN_TASK)?;
        }
    }
    load.working.fetch_sub(1, Ordering::SeqCst);
    Ok(())
}

/// Credentials, each with an inline task that is opened in the same commit.
async fn inline(load: Arc<Load>) -> Result<(), Error> {
    while load.goes_on() {
        let n = load.acks.numbers(1);
        load.issue(n, &load.agent, None).await?;
    }
    Ok(())
}

async fn given_back(load: Arc<Load>) -> Result<(), Error> {
    while load.goes_on() {
        let n = load.acks.numbers(1);
        let id = load.issue(n, &load.ci, None).await?;
        load.acks.ending(n, n)?;
        calls::release(&load.ci, &id).await?;
        load.acks.ended(n, n)?;
    }
    Ok(())
}

/// Revokes half of the credentials that stay, so that some of them are there at the end.
async fn revoked_one_by_one(load: Arc<Load>) -> Result<(), Error> {
    while load.goes_on() {
        let next = load.alive.lock().pop().filter(|(n, _)| n % 2 == 0);
        if let Some((n, id)) = next {
            load.acks.ending(n, n)?;
            calls::revoke(&load.operator, pb::target::Target::CredentialId(id)).await?;
            load.acks.ended(n, n)?;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

/// Revokes all credentials of a caller at once, which also locks the caller; then lifts the lock and begins again.
async fn revoked_by_caller(load: Arc<Load>) -> Result<(), Error> {
    while load.goes_on() {
        let first = load.acks.numbers(4);
        for n in first..first + 3 {
            load.issue(n, &load.mcp, None).await?;
        }
        let lock = first + 3;
        load.acks.ending(first, first + 2)?;
        load.acks.sent(lock)?;
        let seq = calls::revoke(&load.operator, pb::target::Target::Caller(DevWorld::id("mcp/echo"))).await?;
        load.acks.ended(first, first + 2)?;
        load.acks.answered(lock, &Named::Lock { seq })?;
        if calls::exchange(&load.mcp, None).await.is_ok() {
            return Err("a caller that is locked out was issued a credential".into());
        }
        load.acks.ending(lock, lock)?;
        calls::lift(&load.operator, seq).await?;
        load.acks.ended(lock, lock)?;
    }
    Ok(())
}

/// Rotates the key of each purpose once during the load.
async fn keys(load: Arc<Load>) -> Result<(), Error> {
    for purpose in [pb::KeyPurpose::AccessToken, pb::KeyPurpose::Reference] {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let n = load.acks.numbers(1);
        load.acks.sent(n)?;
        let id = calls::rotate(&load.operator, purpose).await?;
        load.acks.answered(n, &Named::Key { id })?;
    }
    Ok(())
}
