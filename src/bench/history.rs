//! Writes years of history to the data directory of a stopped server, through the ledger itself. A start must be as quick with the history
//! as without.

use std::collections::VecDeque;
use std::path::Path;

use super::BenchError;
use mayfly_base::limits;
use mayfly_base::system::System;
use mayfly_config::config::Config;
use mayfly_ledger::record::{Author, Event, Maintained, Record, RequestsRefused};
use mayfly_ledger::{Ledger, LedgerSettings, ProposalKind};
use mayfly_server::engine;
use mayfly_verify::seq::TaskId;

/// The size of a record, like that of an issuance, bytes.
const RECORD: usize = 400;
/// Commits in flight: one is built while another is flushed.
const UNDER_WAY: usize = 3;

/// The content of the history's records.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum HistoryKind {
    /// Records with next to no names, where only the amount of history matters.
    Plain,
    /// Records that each name a task, a text of their own and three things that other records name too, as issuances do; for measuring
    /// searches.
    Named,
}

/// A synthetic refusal with an id that no other record has.
fn named(n: u64) -> RequestsRefused {
    let task = TaskId::from_bytes(u128::from(n).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835).to_be_bytes());
    RequestsRefused {
        caller: format!("spiffe://bench.example/agent/{}", n % 1_000),
        reason: "DENIED_BY_POLICY".into(),
        rule: format!("{n} {}", "x".repeat(RECORD - 150)),
        asked: format!("upstream-{}", n % 50),
        task: task.to_string(),
        count: 1,
        ..RequestsRefused::default()
    }
}

/// Writes commits until the ledger has reached `bytes`. Returns the number of records written.
pub fn fill(config: &Path, bytes: u64, kind: HistoryKind) -> Result<u64, BenchError> {
    let config = Config::load(config, []).map_err(|wrong| format!("{}: {wrong:?}", config.display()))?;
    let system = System::real();
    let (store, opener) = engine::open(&config, &system)?;
    drop(store);
    let (snapshots, history) = (engine::snapshots(&config), engine::history(&config));
    let settings = LedgerSettings { snapshots, history, ..LedgerSettings::default() };
    let ledger = Ledger::open(opener, system, settings)?;
    let mut count = 0;
    let mut record = || {
        count += 1;
        let event = match kind {
            HistoryKind::Plain => Event::Maintained(Maintained { what: "x".repeat(RECORD) }),
            HistoryKind::Named => Event::Refused(named(count)),
        };
        Record::new(Author::Mayfly("bench".into()), event)
    };
    super::on_runtime(async {
        let mut under_way = VecDeque::new();
        while ledger.peek(|state| state.bytes) < bytes || !under_way.is_empty() {
            if under_way.len() < UNDER_WAY && ledger.peek(|state| state.bytes) < bytes {
                let commit = (0..limits::GATHER_RECORDS).map(|_| record()).collect();
                under_way.push_back(ledger.propose(ProposalKind::Change, commit).map_err(|no| no.to_string())?);
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
