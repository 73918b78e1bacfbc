//! History: years of it, written to a stopped server's data directory by the ledger itself. A start is to be as quick with it as without.

use std::collections::VecDeque;
use std::path::Path;

use super::Failed;
use crate::ledger::record::{Event, Maintained, Record, Who};
use crate::ledger::{Lane, Ledger, Settings};
use crate::limits;
use crate::server::engine;
use crate::sources::config::Config;
use crate::system::System;

/// Bytes of a record: as an issuance's.
const RECORD: usize = 400;
/// Commits on the way: one is made while another is flushed.
const UNDER_WAY: usize = 3;

/// Writes commits until the ledger has grown to so many bytes. Answers with how many it has.
pub fn fill(config: &Path, bytes: u64) -> Result<u64, Failed> {
    let config = Config::load(config, []).map_err(|wrong| format!("{}: {wrong:?}", config.display()))?;
    let system = System::real();
    let (store, opener) = engine::open(&config, &system)?;
    drop(store);
    let (snapshots, history) = (engine::snapshots(&config), engine::history(&config));
    let settings = Settings { snapshots, history, ..Settings::default() };
    let ledger = Ledger::open(opener, system, settings)?;
    let record = || {
        let event = Event::Maintained(Maintained { what: "x".repeat(RECORD) });
        Record::new(Who::Mayfly("bench".into()), event)
    };
    super::on_runtime(async {
        let mut under_way = VecDeque::new();
        while ledger.peek(|state| state.bytes) < bytes || !under_way.is_empty() {
            if under_way.len() < UNDER_WAY && ledger.peek(|state| state.bytes) < bytes {
                let commit = (0..limits::GATHER_RECORDS).map(|_| record()).collect();
                under_way.push_back(ledger.propose(Lane::Change, commit).map_err(|no| no.to_string())?);
            } else if let Some(first) = under_way.pop_front() {
                ledger.receipt(first).await.map_err(|no| no.to_string())?;
            }
        }
        Ok(())
    })?;
    let bytes = ledger.peek(|state| state.bytes);
    ledger.stop();
    Ok(bytes)
}
