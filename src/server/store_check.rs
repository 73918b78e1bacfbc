//! Checks for `mayfly doctor` whether the store of a configuration would open: the first checks of a start, without starting anything.

use super::engine;
use super::start::sealing_key;
use super::start_problem::{StartFailure, StartProblem};
use mayfly_base::system::System;
use mayfly_config::config::Config;
use mayfly_ledger::commit::Commit;
use mayfly_store::StoreError;
use mayfly_verify::seq::Millis;

/// A problem, and the commands that fix it.
pub type StoreProblem = (String, String);

/// The condition of a store.
pub enum StoreCondition {
    /// There is no store yet.
    None,
    /// A server has the store open.
    InUse,
    /// The store opens, and the configured sealing key is the right one.
    Sound {
        /// By how much the wall clock is behind the newest commit, beyond the allowed clock skew.
        behind_ms: u64,
    },
    /// The sealing key is missing, or is not the one with which the store was created.
    Key(StoreProblem),
    /// The store does not open.
    Broken(StoreProblem),
}

/// Checks the store.
pub fn store(config: &Config, now: Millis) -> StoreCondition {
    let told = |why: StartFailure| {
        let problem = StartProblem::new(why, config);
        let remedies: Vec<String> = problem.remedies().iter().map(ToString::to_string).collect();
        let text = problem.to_string();
        (text.lines().next().unwrap_or_default().to_owned(), remedies.join("\n"))
    };
    let key = match sealing_key(config) {
        Ok(key) => key,
        Err(why) => return StoreCondition::Key(told(why)),
    };
    let Some(dir) = engine::data_dir(config).filter(|dir| engine::contains_store(config, dir)) else {
        return StoreCondition::None;
    };
    let store = match engine::open_damaged(config, dir) {
        Ok(store) => store,
        Err(StoreError::InUse(_)) => return StoreCondition::InUse,
        Err(error) => return StoreCondition::Broken(told(StartFailure::Ledger(error.into()))),
    };
    let head = store.head().unwrap_or_default();
    // An empty store has no check value of the sealing key yet, and a check must not write one.
    if head == 0 {
        return StoreCondition::None;
    }
    if let Err(error) = key.check(&*store, &System::real()) {
        return StoreCondition::Key(told(StartFailure::Seal { error, key: config.seal.clone() }));
    }
    let newest = store.read(head, 1).ok().and_then(|entries| Commit::from_bytes(&entries.first()?.bytes).ok());
    let behind_ms = newest.map_or(0, |commit| Millis(commit.header.time).since(now));
    StoreCondition::Sound { behind_ms: if behind_ms > config.ledger.skew_ms { behind_ms } else { 0 } }
}
