//! SIGKILL at random moments under load, with an upstream that fails now and then.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use mayfly::pb::mayfly::v1 as pb;
use parking_lot::Mutex;
use tonic::transport::Channel;

use super::dice::{Dice, setting};
use super::rig::{REPLACE, Rig, SAME, exchange, revoke, wanted};

/// Exchanges in progress at once.
const WORKERS: u64 = 8;

/// The live and dead credentials, as far as the received answers say so.
#[derive(Default)]
struct Known {
    /// Credentials by the request they answered, with their kind.
    alive: Mutex<BTreeMap<String, (pb::CredentialKind, String)>>,
    dead: Mutex<BTreeSet<String>>,
    /// Alive since an earlier round.
    kept: Mutex<BTreeSet<String>>,
    requests: AtomicU64,
    acknowledged: AtomicU64,
    replaced: AtomicU64,
    stop: AtomicBool,
}

/// Exchanges; some are repeats, and some are aborted in the middle.
async fn ask(agent: Channel, task: String, known: Arc<Known>, seed: u64) {
    let mut dice = Dice::new(seed);
    while !known.stop.load(Ordering::Relaxed) {
        // The entry is removed while its request is repeated: between two answers it is unknown which of the two credentials is valid.
        let before = match dice.below(4) {
            0 => known.alive.lock().pop_last(),
            _ => None,
        };
        let (id, kind, old) = match before {
            Some((id, (kind, old))) => (id, kind, Some(old)),
            None => {
                let n = known.requests.fetch_add(1, Ordering::Relaxed);
                (format!("r{n}"), if dice.below(2) == 0 { SAME } else { REPLACE }, None)
            }
        };
        let patience = Duration::from_millis(if dice.below(8) == 0 { dice.below(30) } else { 10_000 });
        let asked = exchange(agent.clone(), wanted(&task, kind, &id));
        let Ok(Ok(issued)) = tokio::time::timeout(patience, asked).await else { continue };
        known.acknowledged.fetch_add(1, Ordering::Relaxed);
        if let Some(old) = old {
            assert_eq!(issued.novelty() == pb::Novelty::Same, issued.credential_id == old);
            if issued.credential_id != old {
                known.replaced.fetch_add(1, Ordering::Relaxed);
                known.dead.lock().insert(old);
            }
        }
        known.alive.lock().insert(id, (kind, issued.credential_id));
    }
}

/// Revokes one after another. A credential whose revocation was not acknowledged counts as neither alive nor dead.
async fn end(operator: Channel, known: Arc<Known>) {
    while !known.stop.load(Ordering::Relaxed) {
        tokio::time::sleep(Duration::from_millis(10)).await;
        let Some((_, (_, id))) = known.alive.lock().pop_first() else { continue };
        if revoke(operator.clone(), &id).await.is_ok() {
            known.dead.lock().insert(id);
        }
    }
}

#[test]
fn killed_at_random_under_load_what_is_alive_is_what_somebody_has() {
    let (kills, seed) = (setting("MAYFLY_KILLS", 3), setting("MAYFLY_SEED", u64::from(std::process::id()) | 1 << 40));
    println!("seed {seed}");
    let mut dice = Dice::new(seed);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let (mut rig, known) = (Rig::new(false), Arc::new(Known::default()));
    let (mut tasks, mut looked) = (Vec::new(), 0);
    for round in 0..kills {
        let what = format!("round {round}, seed {seed}");
        known.stop.store(false, Ordering::Relaxed);
        rig.upstream.go_wrong(6, dice.below(u64::MAX));
        let workers = runtime.block_on(async {
            let task = rig.open().await;
            tasks.push(task.clone());
            let mut all = Vec::new();
            for n in 0..WORKERS {
                let seed = seed.wrapping_add(round * WORKERS + n) | 1;
                all.push(tokio::spawn(ask(rig.agent().await, task.clone(), known.clone(), seed)));
            }
            all.push(tokio::spawn(end(rig.operator().await, known.clone())));
            tokio::time::sleep(Duration::from_millis(100 + dice.below(1_500))).await;
            all
        });
        rig.kill();
        known.stop.store(true, Ordering::Relaxed);
        runtime.block_on(async {
            for worker in workers {
                worker.await.unwrap();
            }
        });
        rig.upstream.go_wrong(0, 1);
        rig.start();
        let active = runtime.block_on(rig.settled(&what));
        let (alive, dead) = (known.alive.lock().clone(), known.dead.lock().clone());
        for (kind, id) in alive.values() {
            assert!(active.contains(id), "{what}: {id} of kind {kind:?} was acknowledged and is gone");
        }
        assert_eq!(known.kept.lock().difference(&active).next(), None, "{what}: acknowledged in an earlier round, and gone");
        assert_eq!(dead.intersection(&active).next(), None, "{what}: it was revoked, or replaced");
        looked += alive.len() + dead.len();
        // The next round repeats requests of its own task only: with another task it would be another request.
        known.kept.lock().extend(std::mem::take(&mut *known.alive.lock()).into_values().map(|(_, id)| id));
    }
    runtime.block_on(async {
        for task in &tasks {
            rig.complete(task).await;
        }
        let what = format!("at the end, seed {seed}");
        assert_eq!(rig.settled(&what).await, BTreeSet::new(), "{what}");
    });
    let (made, deleted) = rig.upstream.counts();
    let (acknowledged, replaced) = (known.acknowledged.load(Ordering::Relaxed), known.replaced.load(Ordering::Relaxed));
    println!(
        "remote: {kills} SIGKILLs, {acknowledged} credentials acknowledged ({replaced} took the place of another), {looked} looked at again, \
         {made} made upstream, {deleted} deleted, 0 left"
    );
    assert!(kills == 0 || (acknowledged > 0 && made == deleted && made > 0), "no load came through");
}
