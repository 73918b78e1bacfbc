//! Whether the store of a configuration would open, for `mayfly doctor`: what a start asks first, with nothing started.

use super::engine;
use super::problem::{StartProblem, Why};
use super::start::sealing_key;
use crate::ledger::commit::Commit;
use crate::seq::Millis;
use crate::sources::config::Config;
use crate::store::StoreError;
use crate::system::System;

/// What is wrong, and what mends it.
pub type Told = (String, String);

/// How it is with a store.
pub enum Store {
    /// There is none yet.
    None,
    /// A server has it open.
    InUse,
    /// It opens, and its sealing key is the one that there is.
    Sound {
        /// How far the wall clock is behind its newest commit, beyond what clocks may differ.
        behind_ms: u64,
    },
    /// Not the sealing key that it was made with, or none.
    Key(Told),
    /// It does not open.
    Broken(Told),
}

/// Looks at it.
pub fn store(config: &Config, now: Millis) -> Store {
    let told = |why: Why| {
        let problem = StartProblem::new(why, config);
        let remedies: Vec<String> = problem.remedies().iter().map(ToString::to_string).collect();
        let text = problem.to_string();
        (text.lines().next().unwrap_or_default().to_owned(), remedies.join("\n"))
    };
    let key = match sealing_key(config) {
        Ok(key) => key,
        Err(why) => return Store::Key(told(why)),
    };
    let Some(dir) = engine::data_dir(config).filter(|dir| engine::is_in(config, dir)) else { return Store::None };
    let store = match engine::open_damaged(config, dir) {
        Ok(store) => store,
        Err(StoreError::InUse(_)) => return Store::InUse,
        Err(error) => return Store::Broken(told(Why::Ledger(error.into()))),
    };
    let head = store.head().unwrap_or_default();
    // An empty one has no check value yet, and gets none from whoever only looks.
    if head == 0 {
        return Store::None;
    }
    if let Err(error) = key.check(&*store, &System::real()) {
        return Store::Key(told(Why::Seal { error, key: config.seal.clone() }));
    }
    let newest = store.read(head, 1).ok().and_then(|entries| Commit::from_bytes(&entries.first()?.bytes).ok());
    let behind_ms = newest.map_or(0, |commit| Millis(commit.header.time).since(now));
    Store::Sound { behind_ms: if behind_ms > config.ledger.skew_ms { behind_ms } else { 0 } }
}
