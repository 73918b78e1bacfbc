//! History: years of it, written to a stopped server's data directory by the ledger itself. A start is to be as quick with it as without.

use std::collections::VecDeque;
use std::path::Path;

use super::Failed;
use crate::ledger::record::{Event, Maintained, Record, Refused, Who};
use crate::ledger::{Lane, Ledger, Settings};
use crate::limits;
use crate::seq::TaskId;
use crate::server::engine;
use crate::sources::config::Config;
use crate::system::System;

/// Bytes of a record: as an issuance's.
const RECORD: usize = 400;
/// Commits on the way: one is made while another is flushed.
const UNDER_WAY: usize = 3;

/// What records of history say.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// They name next to nothing: what matters is how much there is.
    Plain,
    /// Each names a task, a text of its own and three things that others name too, as issuances do: what matters is to find one.
    Named,
}

/// A refusal that nobody asked for, with an id that no other record has.
fn named(n: u64) -> Refused {
    let task = TaskId::from_bytes(u128::from(n).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835).to_be_bytes());
    Refused {
        caller: format!("spiffe://bench.example/agent/{}", n % 1_000),
        reason: "DENIED_BY_POLICY".into(),
        rule: format!("{n} {}", "x".repeat(RECORD - 150)),
        asked: format!("upstream-{}", n % 50),
        task: task.to_string(),
        count: 1,
        ..Refused::default()
    }
}

/// Writes commits until the ledger has grown to so many bytes. Answers with how many it has.
pub fn fill(config: &Path, bytes: u64, kind: Kind) -> Result<u64, Failed> {
    let config = Config::load(config, []).map_err(|wrong| format!("{}: {wrong:?}", config.display()))?;
    let system = System::real();
    let (store, opener) = engine::open(&config, &system)?;
    drop(store);
    let (snapshots, history) = (engine::snapshots(&config), engine::history(&config));
    let settings = Settings { snapshots, history, ..Settings::default() };
    let ledger = Ledger::open(opener, system, settings)?;
    let mut count = 0;
    let mut record = || {
        count += 1;
        let event = match kind {
            Kind::Plain => Event::Maintained(Maintained { what: "x".repeat(RECORD) }),
            Kind::Named => Event::Refused(named(count)),
        };
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
