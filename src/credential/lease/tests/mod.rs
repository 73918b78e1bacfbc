//! Kills a process at every step, against a real server that fails in every way, and checks that no account exists without a live
//! credential.

mod account;
mod by_secret;
mod due;
mod kit;
mod listing;
mod real;
mod server;

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::task::JoinSet;

use kit::{Life, Process, SETTLES_MS, TIMING};
use server::{Server, Wrong};

use super::*;
use crate::testing::{AGENT, TASK, TestLog};
use mayfly_base::refusal::Reason;
use mayfly_ledger::record::{Author, CredentialReleased, TargetsRevoked, TaskHeld};
use mayfly_ledger::revocation::Target;
use mayfly_policy::grant::TaskPath;
use mayfly_verify::seq::TaskId;

async fn fresh(life: Life) -> (Server, Process) {
    let server = Server::start().await;
    let commits = TestLog::new(System::real().wall()).commits;
    let process = Process::start(commits, &server, life);
    (server, process)
}

fn revoke(target: Target) -> Record {
    let revoked =
        TargetsRevoked { targets: vec![target.to_record()], issued_only: true, keep_until: u64::MAX, ..Default::default() };
    Record::new(Author::LocalUid(0), Event::Revoked(revoked))
}

fn reason<T>(no: Result<T, Error>) -> Reason {
    match no.map(|_| ()) {
        Err(Error::Refusal(no)) => no.reason,
        other => panic!("{other:?}"),
    }
}

fn lease_of(process: &Process, handle: &str) -> Option<(LeaseId, Lease)> {
    let log = process.disk.log.lock();
    log.state.leases.iter().find(|(_, l)| *l.handle == *handle).map(|(id, l)| (*id, Lease::clone(l)))
}

#[test]
fn the_page_about_adding_a_kind_shows_the_connector_of_these_tests() {
    let page = include_str!("../../../../docs/adding-a-kind.md");
    let shown = page.split("```rust\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    assert!(shown.lines().count() > 20 && include_str!("kit.rs").contains(shown), "the page and kit.rs differ");
}

/// A typical run: two credentials that stay, one whose caller disconnects, one that is void, one that is revoked and undone. Returns the
/// accounts that callers received, and the one of them that was revoked.
async fn a_life(process: &Process, told: &parking_lot::Mutex<Vec<String>>, gone: &parking_lot::Mutex<Option<String>>) {
    let exchange = || process.exchange(async |_| ());
    for _ in 0..2 {
        if let Ok(name) = exchange().await {
            told.lock().push(name);
        }
    }
    // The caller disconnects after the credential was made and before anything was proposed.
    if let Ok(minted) = process.leases.mint(process.grant(), 1).await {
        drop(minted);
    }
    // Decided before a revocation and proposed after it: void.
    let void = process.exchange(async |_| {
        let _ = process.disk.commit(vec![revoke(Target::Upstream("echo".into()))]).await;
    });
    assert!(void.await.is_err());
    process.clean_up().await;
    let survivors = exchange().await;
    if let Ok(name) = survivors {
        let credential = lease_of(process, &name).map(|(_, l)| l.credential);
        told.lock().push(name.clone());
        *gone.lock() = Some(name);
        if let Some(credential) = credential {
            let _ = process.disk.commit(vec![revoke(Target::Credential(credential))]).await;
        }
    }
    process.clean_up().await;
}

/// One run: killed at step `kill`, with the given failures of the upstream; then a restart that runs to the end.
async fn run(kill: u64, wrong: Vec<(&'static str, Vec<Wrong>)>) -> u64 {
    let (server, process) = fresh(Life::of(kill)).await;
    server.shared.lock().wrong = wrong.iter().cloned().collect();
    let (told, gone) = (parking_lot::Mutex::new(Vec::new()), parking_lot::Mutex::new(None));
    let life = process.life.clone();
    tokio::select! {
        biased;
        () = life.over() => {}
        () = a_life(&process, &told, &gone) => {}
    }
    let (commits, steps) = (process.commits(), life.taken());
    drop(process);

    let again = Process::start(commits, &server, Life::of(u64::MAX));
    again.clean_up().await;
    let what = format!("killed at {kill} with {wrong:?}");
    assert_eq!(server.alive(), again.somebodys(), "{what}: what is alive is somebody's, and what is somebody's is alive");
    // The whole upstream was revoked in the middle. Live leases were issued after that, or in a run that never reached the revocation.
    let open = again.disk.log.lock().state.leases.len();
    assert_eq!(open, again.somebodys().len(), "{what}");
    // No late call creates an account.
    tokio::time::sleep(server::LATE * 2).await;
    assert_eq!(server.alive(), again.somebodys(), "{what}: later");
    // After everything is revoked, nothing remains.
    again.disk.commit(vec![revoke(Target::Everything)]).await.map_err(|e| e.to_string()).unwrap();
    again.clean_up().await;
    assert_eq!((server.alive(), open_leases(&again)), (BTreeSet::new(), 0), "{what}: at the end");
    steps
}

fn open_leases(process: &Process) -> usize {
    process.disk.log.lock().state.leases.len()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_every_step_it_leaves_no_orphan() {
    let ways: Vec<Vec<(&'static str, Vec<Wrong>)>> = vec![
        vec![],
        vec![("MAKE", vec![Wrong::LosesAnswer, Wrong::IsLate])],
        vec![("MAKE", vec![Wrong::IsSlow, Wrong::Refuses, Wrong::IsLate]), ("DROP", vec![Wrong::HangsUp])],
        vec![("DROP", vec![Wrong::IsLate, Wrong::Lies, Wrong::Refuses, Wrong::LosesAnswer]), ("HAS", vec![Wrong::HangsUp])],
    ];
    let (mut runs, mut all) = (JoinSet::new(), 0);
    for way in ways {
        let steps = run(u64::MAX, way.clone()).await;
        assert!(steps > 40, "{steps} steps are too few to mean anything");
        for kill in 1..=steps {
            if runs.len() >= 24 {
                runs.join_next().await.unwrap().unwrap();
            }
            let way = way.clone();
            runs.spawn(async move { run(kill, way).await });
            all += 1;
        }
    }
    while let Some(done) = runs.join_next().await {
        done.unwrap();
    }
    println!("{all} lives, each killed at another step");
}

#[tokio::test]
async fn what_is_handed_out_stays_until_it_ends_and_a_hold_is_no_end() {
    let (server, process) = fresh(Life::of(u64::MAX)).await;
    let names: Vec<String> = {
        let mut names = Vec::new();
        for _ in 0..3 {
            names.push(process.exchange(async |_| ()).await.map_err(|e| e.to_string()).unwrap());
        }
        names
    };
    let held = TaskHeld { task: TASK.to_vec(), rank: 3, reason: String::new() };
    process.disk.commit(vec![Record::new(Author::LocalUid(0), Event::TaskHeld(held))]).await.map_err(|e| e.to_string()).unwrap();
    tokio::time::sleep(Duration::from_millis(TIMING.left_ms + 50)).await;
    process.leases.undo_due().await.map_err(|e| e.to_string()).unwrap();
    assert_eq!(server.alive(), names.iter().cloned().collect());

    let credential = lease_of(&process, &names[0]).unwrap().1.credential;
    let released = CredentialReleased { credential: credential.as_bytes().to_vec(), keep_until: u64::MAX };
    let record = Record::new(Author::SpiffeId(AGENT.into()), Event::Released(released));
    process.disk.commit(vec![record]).await.map_err(|e| e.to_string()).unwrap();
    process.clean_up().await;
    assert_eq!(server.alive(), names[1..].iter().cloned().collect(), "given back");
    process.disk.commit(vec![revoke(Target::Task(TaskId::from_bytes(TASK)))]).await.map_err(|e| e.to_string()).unwrap();
    process.clean_up().await;
    assert!(server.alive().is_empty(), "the task is over");
}

#[tokio::test]
async fn an_issuance_that_comes_after_its_lease_was_given_up_is_void() {
    let (server, process) = fresh(Life::of(u64::MAX)).await;
    // The records are handed out and then the caller disconnects: it is unknown whether they reach the ledger.
    let mut minted = process.leases.mint(process.grant(), 1).await.map_err(|e| e.to_string()).unwrap();
    let credential = minted.id();
    let records = minted.records();
    drop(minted);
    process.clean_up().await;
    assert!(server.alive().is_empty());
    assert_eq!(reason(process.disk.commit(records).await), Reason::DecidedOnOldState, "its lease is closed");

    // The same, but the issuance is barred before its records arrive.
    let mut minted = process.leases.mint(process.grant(), 1).await.map_err(|e| e.to_string()).unwrap();
    let late = minted.id();
    let records = minted.records();
    drop(minted);
    let barred = process.leases.bar(late);
    barred.await.map_err(|e| e.to_string()).unwrap();
    assert_eq!(reason(process.disk.commit(records).await), Reason::Revoked, "barred before it came");
    process.clean_up().await;
    let log = process.disk.log.lock();
    for id in [credential, late] {
        assert!(log.state.rules.get(&Target::Credential(id)).is_some());
        assert!(log.state.credentials.get(&id).is_none());
    }
}

#[tokio::test]
async fn what_was_never_proposed_makes_no_rule_and_what_was_refused_says_so() {
    let (server, process) = fresh(Life::of(u64::MAX)).await;
    server.shared.lock().wrong = [("MAKE", vec![Wrong::Refuses])].into();
    assert_eq!(reason(process.exchange(async |_| ()).await), Reason::UpstreamFailed);
    drop(process.leases.mint(process.grant(), 1).await);
    process.clean_up().await;
    assert!(process.disk.log.lock().state.rules.is_empty());
    let ends: BTreeSet<i32> = closings(&process).iter().map(|c| c.end).collect();
    assert_eq!(ends, [LeaseEnd::NeverMade as i32, LeaseEnd::Undone as i32].into());
    assert_eq!(server.shared.lock().made, 1);
}

fn closings(process: &Process) -> Vec<LeaseClosed> {
    let commits = process.commits();
    let records = commits.iter().flat_map(|c| mayfly_ledger::commit::Commit::from_bytes(c).unwrap().records);
    let closed = records.filter_map(|r| match r.event {
        Some(Event::LeaseClosed(e)) => Some(e),
        _ => None,
    });
    closed.collect()
}

#[tokio::test]
async fn a_task_opened_inline_stands_or_falls_with_what_is_made_in_it() {
    use crate::testing::{grant, owner, plain};
    use mayfly_ledger::record::TaskOpened;
    let (server, process) = fresh(Life::of(u64::MAX)).await;
    let parts = |n: u8| {
        let now = process.disk.now();
        let mut parts = plain(5, now, process.disk.log.lock().state.head);
        parts.request = None;
        parts.draft.task = vec![n; 16];
        parts.path = TaskPath::New { tasks: vec![TaskId::from_bytes([n; 16])], owners: vec![owner()] };
        parts.opens = Some(Box::new(TaskOpened {
            task: vec![n; 16],
            owner: Some(owner()),
            opener: AGENT.into(),
            environment: "dev".into(),
            opened_at: now.0,
            deadline: now.0 + 600_000,
            max_deadline: now.0 + 600_000,
            policy_version: 1,
            ..Default::default()
        }));
        parts
    };
    let tasks = |process: &Process| process.disk.log.lock().state.tasks.len();
    let mut minted = process.leases.mint(grant(parts(21)), 9).await.map_err(|e| e.to_string()).unwrap();
    process.disk.commit(minted.records()).await.map_err(|e| e.to_string()).unwrap();
    assert_eq!((tasks(&process), server.alive().len()), (2, 1));
    server.shared.lock().wrong = [("MAKE", vec![Wrong::Refuses])].into();
    assert_eq!(reason(process.leases.mint(grant(parts(22)), 9).await), Reason::UpstreamFailed);
    assert_eq!(tasks(&process), 2, "no task without its credential");
}

#[tokio::test]
async fn a_new_generation_undoes_all_that_stood_before() {
    use mayfly_ledger::record::GenerationBegun;
    let (server, process) = fresh(Life::of(u64::MAX)).await;
    process.exchange(async |_| ()).await.map_err(|e| e.to_string()).unwrap();
    let begin = GenerationBegun { generation: 2, cause: "recovered".into(), store: vec![1; 16], ..Default::default() };
    let record = Record::new(Author::Mayfly("recovered".into()), Event::GenerationBegun(begin));
    process.disk.commit(vec![record]).await.map_err(|e| e.to_string()).unwrap();
    process.clean_up().await;
    assert!(server.alive().is_empty());
}

#[test]
fn times_and_words_are_within_their_bounds() {
    let timing = LeaseTiming::default();
    assert!(timing.make_ms < timing.left_ms);
    // Longer than the age of any decision that the fold accepts (`State::timely`), including the maximum clock skew.
    assert!(timing.left_ms > limits::VIEW_MAX_AGE_MS + 2 * limits::CLOCK_SKEW_MS);
    assert!(Duration::from_millis(SETTLES_MS) > server::LATE * 4);
    assert_eq!(brief("a\u{7}b\n"), "a b ");
    let long = "é".repeat(limits::LEASE_DETAIL_BYTES);
    assert!(brief(&long).len() <= limits::LEASE_DETAIL_BYTES && long.starts_with(&brief(&long)));
}
