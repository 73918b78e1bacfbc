//! Tests that a pass costs only the leases that are due, and that leases that end by time alone are due at that time.

use std::sync::atomic::Ordering;

use super::*;
use crate::testing::{grant, plain};
use mayfly_ledger::record::{LeaseOpened, TaskExtended, TaskHeartbeats, TaskOpened};

fn told<T>(answer: Result<T, Error>) -> T {
    answer.map_err(|e| e.to_string()).unwrap()
}

async fn undo_due(process: &Process) {
    told(process.leases.undo_due().await);
}

async fn put(process: &Process, event: Event) {
    let head = process.disk.log.lock().state.head;
    told(process.disk.commit(vec![Record::new(Author::LocalUid(0), event).decided_at(head)]).await);
}

/// Issues in a task, with a lifetime of `ttl_ms`, and returns the account's name. Retries, because a busy machine may be too slow for the
/// short times of these tests.
async fn issue(process: &Process, task: [u8; 16], ttl_ms: u64) -> String {
    for _ in 0..100 {
        let now = process.disk.now();
        let mut parts = plain(CredentialKind::Postgres.number(), now, process.disk.log.lock().state.head);
        (parts.request, parts.draft.task, parts.draft.expires_at) = (None, task.to_vec(), now.0 + ttl_ms);
        let mut minted = match process.leases.mint(grant(parts), 1).await {
            Ok(minted) => minted,
            Err(Error::Refusal(no)) if [Reason::UpstreamFailed, Reason::NotReady].contains(&no.reason) => continue,
            Err(no) => panic!("{no}"),
        };
        let receipt = told(process.disk.commit(minted.records()).await);
        match minted.reveal(receipt).unwrap().into_parts().2 {
            crate::CredentialMaterial::Database { user, .. } => return user,
            _ => panic!("no login"),
        }
    }
    panic!("the machine is too slow")
}

/// Puts leases with live credentials straight into the ledger, without accounts upstream.
async fn stand(process: &Process, count: u32) {
    for n in 0..count {
        let (now, head) = (process.disk.now(), process.disk.log.lock().state.head);
        let id = |kind: u8| [&[kind; 12][..], &n.to_be_bytes()].concat();
        let opened = LeaseOpened {
            lease: id(7),
            credential: id(8),
            task: TASK.to_vec(),
            upstream: "echo".into(),
            kind: CredentialKind::Postgres.number(),
            handle: format!("stands {n}"),
            ends_at: 0,
            terms: String::new(),
        };
        let mut issued = plain(CredentialKind::Postgres.number(), now, head).draft;
        (issued.lease, issued.credential) = (id(7), id(8));
        let records = [Event::LeaseOpened(opened), Event::Issued(issued)];
        let records = records.map(|event| Record::new(Author::SpiffeId(AGENT.into()), event).decided_at(head));
        told(process.disk.commit(records.to_vec()).await);
    }
}

async fn open(process: &Process, task: [u8; 16], parent: &[u8], deadline_ms: u64, heartbeat: u64) {
    let now = process.disk.now().0;
    let opened = TaskOpened {
        task: task.to_vec(),
        parent: parent.to_vec(),
        owner: Some(crate::testing::owner()),
        opener: AGENT.into(),
        environment: "dev".into(),
        opened_at: now,
        deadline: now + deadline_ms,
        max_deadline: now + if parent.is_empty() { 600_000 } else { deadline_ms },
        policy_version: 1,
        heartbeat,
        ..Default::default()
    };
    put(process, Event::TaskOpened(opened.into())).await;
}

/// Runs the undo worker until an account no longer exists at the upstream.
async fn until_gone(server: &Server, process: &Process, name: &str) {
    let began = System::real().steady();
    while server.alive().contains(name) {
        undo_due(process).await;
        tokio::time::sleep(Duration::from_millis(5)).await;
        assert!(System::real().steady() - began < 20_000, "{name} is still there");
    }
}

#[tokio::test]
async fn what_stands_is_not_looked_at_before_it_is_due() {
    let (server, process) = fresh(Life::of(u64::MAX)).await;
    stand(&process, limits::LEASES_LOOK as u32 + 50).await;
    let name = issue(&process, TASK, 300_000).await;
    undo_due(&process).await;
    let reads = || process.disk.reads.load(Ordering::Relaxed);
    let before = reads();
    for _ in 0..10 {
        undo_due(&process).await;
    }
    assert_eq!(reads(), before, "nothing is due");

    // One credential is released: its lease is checked, and no other.
    let credential = lease_of(&process, &name).unwrap().1.credential;
    put(&process, Event::Released(CredentialReleased { credential: credential.as_bytes().to_vec(), keep_until: u64::MAX })).await;
    told(process.leases.undo_due().await);
    assert!(reads() <= before + 2, "{} reads for one", reads() - before);
    until_gone(&server, &process, &name).await;
    assert_eq!(open_leases(&process), limits::LEASES_LOOK + 50);
}

#[tokio::test]
async fn after_a_start_what_ended_meanwhile_is_undone_and_what_stands_stays() {
    let (server, process) = fresh(Life::of(u64::MAX)).await;
    let (stays, goes) = (issue(&process, TASK, 300_000).await, issue(&process, TASK, 300_000).await);
    let credential = lease_of(&process, &goes).unwrap().1.credential;
    put(&process, Event::Released(CredentialReleased { credential: credential.as_bytes().to_vec(), keep_until: u64::MAX })).await;
    let again = Process::start(process.commits(), &server, Life::of(u64::MAX));
    drop(process);
    until_gone(&server, &again, &goes).await;
    assert_eq!(server.alive(), [stays].into());
}

#[tokio::test]
async fn what_time_alone_ends_is_undone_when_it_ends() {
    let (server, process) = fresh(Life::of(u64::MAX)).await;
    // A credential's own expiry.
    let began = process.disk.now();
    let name = issue(&process, TASK, 400).await;
    until_gone(&server, &process, &name).await;
    assert!(process.disk.now().since(began) >= 400, "not before its end");
    // A missed heartbeat of a parent task.
    open(&process, [31; 16], &[], 300_000, 400).await;
    open(&process, [32; 16], &[31; 16], 250_000, 0).await;
    let name = issue(&process, [32; 16], 200_000).await;
    until_gone(&server, &process, &name).await;
    // A missed heartbeat after one that arrived.
    open(&process, [33; 16], &[], 300_000, 400).await;
    let name = issue(&process, [33; 16], 200_000).await;
    tokio::time::sleep(Duration::from_millis(250)).await;
    let beats = TaskHeartbeats { tasks: vec![vec![33; 16]], all: false, away_since: 0 };
    put(&process, Event::TaskHeartbeats(beats)).await;
    tokio::time::sleep(Duration::from_millis(250)).await;
    undo_due(&process).await;
    assert!(server.alive().contains(&name), "it showed life");
    until_gone(&server, &process, &name).await;
}

/// Moves a task's deadline to this many milliseconds from now.
async fn put_off(process: &Process, task: [u8; 16], ms: u64) {
    let now = process.disk.now().0;
    let extended =
        TaskExtended { task: task.to_vec(), deadline: now + ms, decided_at: now, policy_version: 1, ..Default::default() };
    put(process, Event::TaskExtended(extended)).await;
}

#[tokio::test]
async fn a_deadline_that_moved_is_the_one_that_counts() {
    let (server, process) = fresh(Life::of(u64::MAX)).await;
    open(&process, [41; 16], &[], 400, 0).await;
    let name = issue(&process, [41; 16], 300).await;
    put_off(&process, [41; 16], 60_000).await;
    let longer = issue(&process, [41; 16], 50_000).await;
    until_gone(&server, &process, &name).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    undo_due(&process).await;
    assert_eq!(server.alive(), [longer.clone()].into(), "its task goes on");
    put(&process, Event::TaskClosed(mayfly_ledger::record::TaskClosed { task: vec![41; 16], outcome: 1, ..Default::default() }))
        .await;
    until_gone(&server, &process, &longer).await;
}
