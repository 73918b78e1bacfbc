//! The tree over all commits when its beginning is removed and when its files are damaged.

use mayfly::ledger::commit::{EncodedCommit, Hash, root_hash};
use mayfly::ledger::tree::stored::ProofError;

use super::*;

/// Waits until the tree contains the newest commit, and compares its roots with those over these leaves.
fn has_roots_of(ledger: &Ledger, leaves: &[Hash]) {
    let has = || ledger.tree(|t| t.size()).is_ok_and(|size| size >= ledger.durable_position());
    for _ in 0..1000 {
        if has() {
            break;
        }
        ledger.wake_tree(None);
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(has(), "{:?}", ledger.tree(|t| t.size()));
    let base = ledger.tree(|t| t.base()).unwrap() as usize;
    assert!(base < leaves.len(), "nothing is left to compare: {base} of {}", leaves.len());
    for size in [base + 1, base + 2, leaves.len() - 1, leaves.len()] {
        let (root, _) = ledger.tree(|t| t.consistency(size as u64)).unwrap().unwrap();
        assert_eq!(root, root_hash(&leaves[..size]), "of {size} commits, {base} of them removed");
    }
}

/// Reads the leaves of new commits.
fn read(ledger: &Ledger, leaves: &mut Vec<Hash>) {
    while leaves.len() < ledger.durable_position() as usize {
        let entries = ledger.store().read(leaves.len() as u64 + 1, 1 << 20).unwrap();
        assert_eq!(entries[0].at, leaves.len() as u64 + 1);
        leaves.extend(entries.iter().map(|e| EncodedCommit::from_bytes(&e.bytes).unwrap().leaf()));
    }
}

#[test]
fn the_tree_goes_on_when_its_first_commits_are_gone() {
    let kept = Kept::new();
    let ledger = kept.open(None).unwrap();
    kept.write(&ledger, 300);
    let mut leaves = Vec::new();
    read(&ledger, &mut leaves);
    has_roots_of(&ledger, &leaves);
    ledger.stop();
    drop(ledger);
    // First, removal while the tree is built; then a rebuild from the kept frontier, since here the tree is in memory only.
    for keep in [Some(RetentionLimit::Size(KEPT)), None] {
        let ledger = kept.open(keep).unwrap();
        if keep.is_some() {
            // On a busy machine much is written until the size has settled.
            kept.settle_and(&ledger, SETTLED, || read(&ledger, &mut leaves));
        }
        read(&ledger, &mut leaves);
        assert!(ledger.peek(|s| s.removed.before) > 50);
        has_roots_of(&ledger, &leaves);
        ledger.stop();
    }
    // Removal without a kept frontier, as by a version that did not keep one: there is no tree, and no wrong proof is given.
    let store = store(&kept.data()).unwrap();
    for name in store.list("tree/").unwrap() {
        store.delete(&name, Precondition::Any).unwrap();
    }
    drop(store);
    let ledger = kept.open(None).unwrap();
    std::thread::sleep(Duration::from_millis(500));
    assert!(ledger.tree(|t| t.size()).unwrap_err().to_string().contains("frontier"));
    ledger.stop();
}

#[test]
fn a_tree_that_is_damaged_is_built_again() {
    let kept = Kept::new();
    let history = kept.dir.path().join("history");
    let open = || {
        let (dir, history) = (kept.data(), Some(history.clone()));
        let settings = LedgerSettings { history, ..LedgerSettings::default() };
        Ledger::open(Box::new(move || Ok(store(&dir)? as Arc<dyn Store>)), System::with_clock(kept.clock.clone()), settings)
            .unwrap()
    };
    let ledger = open();
    kept.write(&ledger, 30);
    let entries = ledger.store().read(1, 64 << 20).unwrap();
    let leaves: Vec<Hash> = entries.iter().map(|e| EncodedCommit::from_bytes(&e.bytes).unwrap().leaf()).collect();
    has_roots_of(&ledger, &leaves);
    ledger.stop();
    drop(ledger);
    let file = history.join("tree/000000000000.leaves");
    let whole = std::fs::read(&file).unwrap();
    // Damage is found at the start by the root, and in operation by the proof that meets it.
    let mut bad = whole.clone();
    bad[40] ^= 1;
    std::fs::write(&file, &bad).unwrap();
    let ledger = open();
    has_roots_of(&ledger, &leaves);
    std::fs::write(&file, &bad).unwrap();
    ledger.wake_tree(Some(&ProofError::Damaged("a test".into())));
    has_roots_of(&ledger, &leaves);
    ledger.stop();
    assert_eq!(std::fs::read(&file).unwrap()[..whole.len()], whole[..]);
}
