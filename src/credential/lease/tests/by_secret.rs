//! A kind whose credentials only their own secret can undo.

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use zeroize::Zeroizing;

use super::*;
use crate::connector::{
    ConnectorFuture, MakeError, MintOrder, RepeatResponse, UndoError, UndoOrder, UpstreamCredential, UpstreamHandle,
};
use crate::testing::{NamedValueStore, TestSealer};
use crate::{CredentialMaterial, IssuedToken};
use mayfly_base::refusal::Fault;
use mayfly_store::Store;

/// What becomes of the upstream's answer.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Answer {
    Sealed,
    /// The answer never arrives.
    Lost,
    /// The connector forgets to seal it.
    NotSealed,
    /// The answer arrives late, in a task that goes on when the caller has disconnected.
    Late,
}

/// The tokens of an upstream.
#[derive(Default)]
struct TokenServer {
    alive: Mutex<BTreeSet<String>>,
    made: AtomicU64,
    asked_to_undo: AtomicU64,
}

struct Tokens {
    server: Arc<TokenServer>,
    answer: Answer,
    lives_ms: u64,
}

impl Tokens {
    async fn make_token(&self, order: &MintOrder<'_>) -> Result<UpstreamCredential, MakeError> {
        let token = format!("token-{}", self.server.made.fetch_add(1, Ordering::SeqCst));
        self.server.alive.lock().insert(token.clone());
        let keeper = order.keeper.unwrap().clone();
        let secret = Zeroizing::new(token.clone().into_bytes());
        match self.answer {
            Answer::Lost => return Err(MakeError::Unknown("connection reset".to_owned())),
            Answer::NotSealed => {}
            Answer::Sealed => keeper.keep(secret).await.map_err(|fault| MakeError::Unknown(fault.to_string()))?,
            Answer::Late => {
                let late = tokio::spawn(async move {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    keeper.keep(secret).await
                });
                late.await.unwrap().map_err(|fault| MakeError::Unknown(fault.to_string()))?;
            }
        }
        let answer = CredentialMaterial::Bearer {
            token: IssuedToken::secret(Zeroizing::new(token)),
            header: "authorization".into(),
            scheme: "Bearer".into(),
            base_url: "https://code.example".into(),
        };
        Ok(UpstreamCredential { answer, irrevocable: false, ends_at: None })
    }
}

impl UpstreamConnector for Tokens {
    fn kind(&self) -> CredentialKind {
        CredentialKind::Postgres
    }

    fn name(&self, order: &MintOrder<'_>) -> Result<UpstreamHandle, MakeError> {
        let ends_at = if self.lives_ms == 0 { Millis(0) } else { System::real().wall().plus(self.lives_ms) };
        Ok(UpstreamHandle { handle: format!("token of {}", order.lease), ends_at, terms: String::new() })
    }

    fn make<'a>(&'a self, order: &'a MintOrder<'a>) -> ConnectorFuture<'a, Result<UpstreamCredential, MakeError>> {
        Box::pin(self.make_token(order))
    }

    fn undo<'a>(&'a self, order: &'a UndoOrder<'a>) -> ConnectorFuture<'a, Result<(), UndoError>> {
        Box::pin(async move {
            self.server.asked_to_undo.fetch_add(1, Ordering::SeqCst);
            let secret = order.secret.expect("undo has the secret");
            self.server.alive.lock().remove(std::str::from_utf8(secret).unwrap());
            Ok(())
        })
    }

    fn is_gone<'a>(&'a self, order: &'a UndoOrder<'a>) -> ConnectorFuture<'a, Result<bool, UndoError>> {
        Box::pin(async move { Ok(!self.server.alive.lock().contains(std::str::from_utf8(order.secret.unwrap()).unwrap())) })
    }

    fn settles_ms(&self) -> u64 {
        20
    }

    fn again<'a>(&'a self, _: &'a MintOrder<'a>) -> ConnectorFuture<'a, Result<RepeatResponse, MakeError>> {
        Box::pin(std::future::ready(Ok(RepeatResponse::Replace)))
    }

    fn undoes_by_secret(&self) -> bool {
        true
    }
}

struct World {
    server: Arc<TokenServer>,
    store: Arc<NamedValueStore>,
}

impl World {
    fn new() -> World {
        World { server: Arc::default(), store: Arc::default() }
    }

    fn process(&self, commits: Vec<bytes::Bytes>, answer: Answer, lives_ms: u64) -> Process {
        let store = self.store.clone();
        let secrets = UndoSecrets::new(move || store.clone(), Arc::new(TestSealer));
        let remote = Arc::new(Tokens { server: self.server.clone(), answer, lives_ms });
        Process::with(commits, remote, secrets, Life::of(u64::MAX))
    }

    fn fresh(&self, answer: Answer, lives_ms: u64) -> Process {
        self.process(TestLog::new(System::real().wall()).commits, answer, lives_ms)
    }

    fn alive(&self) -> usize {
        self.server.alive.lock().len()
    }

    /// The names of the sealed values.
    fn sealed(&self) -> Vec<String> {
        self.store.list("lease/").unwrap()
    }
}

async fn issued(process: &Process) {
    let mut minted = process.leases.mint(process.grant(), 1).await.map_err(|e| e.to_string()).unwrap();
    let receipt = process.disk.commit(minted.records()).await.map_err(|e| e.to_string()).unwrap();
    minted.reveal(receipt).unwrap();
}

async fn undo_due(process: &Process) -> Vec<ListedLease> {
    process.leases.undo_due().await.map_err(|e| e.to_string()).unwrap();
    process.leases.list(None, 10).await.map_err(|e| e.to_string()).unwrap()
}

#[tokio::test]
async fn the_secret_is_sealed_with_the_lease_and_goes_with_it_also_after_a_restart() {
    let world = World::new();
    let process = world.fresh(Answer::Sealed, 3_600_000);
    issued(&process).await;
    let [name] = &world.sealed()[..] else { panic!("{:?}", world.sealed()) };
    let sealed = world.store.named(name).unwrap().unwrap();
    assert!(!sealed.windows(7).any(|part| part == b"token-0"), "it is not readable in the store");
    assert!(undo_due(&process).await.len() == 1 && world.alive() == 1, "a live credential keeps its token");
    // Another process on the same ledger and store.
    let later = world.process(process.commits(), Answer::Sealed, 3_600_000);
    drop(process);
    later.disk.commit(vec![revoke(Target::Everything)]).await.map_err(|e| e.to_string()).unwrap();
    assert!(undo_due(&later).await.is_empty());
    assert_eq!((world.alive(), world.sealed()), (0, Vec::<String>::new()));
}

#[tokio::test]
async fn a_lost_answer_stays_listed_until_what_was_made_ends_by_itself() {
    let world = World::new();
    let process = world.fresh(Answer::Lost, 400);
    assert_eq!(reason(process.leases.mint(process.grant(), 1).await.map(|_| ())), Reason::UpstreamFailed);
    let listed = undo_due(&process).await;
    assert!(listed[0].last.contains("ends by itself at") && listed[0].attempts == 0, "{listed:?}");
    assert_eq!(world.server.asked_to_undo.load(Ordering::SeqCst), 0, "nothing can be undone without the secret");
    tokio::time::sleep(Duration::from_millis(450)).await;
    assert!(undo_due(&process).await.is_empty());
    assert_eq!(world.alive(), 1, "the upstream ends it by its own clock");
    // What never ends by itself is an error that an operator sees.
    let process = world.fresh(Answer::Lost, 0);
    assert!(process.leases.mint(process.grant(), 1).await.is_err());
    let listed = undo_due(&process).await;
    assert!(listed[0].attempts == 1 && listed[0].last.contains("mayfly lease abandon"), "{listed:?}");
}

#[tokio::test]
async fn without_a_sealed_secret_nothing_is_handed_out() {
    let world = World::new();
    let process = world.fresh(Answer::NotSealed, 3_600_000);
    assert_eq!(reason(process.leases.mint(process.grant(), 1).await.map(|_| ())), Reason::UpstreamFailed);
    assert_eq!(undo_due(&process).await.len(), 1, "it is listed");
    // A process without a store for them cannot seal.
    let remote = Arc::new(Tokens { server: world.server.clone(), answer: Answer::Sealed, lives_ms: 3_600_000 });
    let process = Process::with(TestLog::new(System::real().wall()).commits, remote, UndoSecrets::default(), Life::of(u64::MAX));
    assert_eq!(reason(process.leases.mint(process.grant(), 1).await.map(|_| ())), Reason::UpstreamFailed);
}

#[tokio::test]
async fn an_answer_that_arrives_after_the_caller_has_gone_is_undone() {
    let world = World::new();
    let process = world.fresh(Answer::Late, 3_600_000);
    let gone = tokio::time::timeout(Duration::from_millis(20), process.leases.mint(process.grant(), 1)).await;
    assert!(gone.is_err() && world.alive() == 1);
    let listed = undo_due(&process).await;
    assert!(listed[0].last.contains("answer was lost"), "{listed:?}");
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(world.sealed().len(), 1);
    process.leases.retry(listed[0].id);
    let limit = tokio::time::timeout(Duration::from_secs(10), async {
        while !undo_due(&process).await.is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    limit.await.unwrap();
    assert_eq!((world.alive(), world.sealed()), (0, Vec::<String>::new()));
}

#[tokio::test]
async fn a_secret_whose_lease_was_closed_before_the_process_was_killed_goes_at_the_next_start() -> Result<(), Fault> {
    let world = World::new();
    let process = world.fresh(Answer::Sealed, 3_600_000);
    issued(&process).await;
    let kept = world.sealed();
    let left = format!("lease/{}", LeaseId::from_bytes([9; 16]));
    world.store.put(&left, b"x", mayfly_store::Precondition::Any).unwrap();
    let later = world.process(process.commits(), Answer::Sealed, 3_600_000);
    undo_due(&later).await;
    assert_eq!(world.sealed(), kept);
    Ok(())
}
