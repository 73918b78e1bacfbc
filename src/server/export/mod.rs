//! The continuous export: every record as JSON, to a file, syslog or an OpenTelemetry collector, as the record becomes durable.
//!
//! A dedicated thread reads the ledger from the last exported position, so that issuing never waits for the export. The position is a named
//! value of the store, written after the records were handed over: after a stop or a crash the export resumes there, and may export the
//! records of the last second again; their `seq` identifies duplicates. Retention keeps records that were not exported yet.
//!
//! To add a destination: a file here, and a line in [`ExportSink`].

mod file;
mod otlp;
mod syslog;
#[cfg(test)]
mod tests;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mayfly_authority::audit::proof::line::ascii;
use mayfly_authority::audit::proof::write::readable;
use mayfly_authority::authority::{Authority, ExportProgress};
use mayfly_base::limits;
use mayfly_base::refusal::Fault;
use mayfly_base::system::{Stopwatch, System};
use mayfly_config::config::ExportDestination;
use mayfly_ledger::reader::log_reader::{LogCommit, LogCursor};
use mayfly_ledger::reader::search::HistoryFilter;
use mayfly_ledger::recovery::retention::{EXPORTED, export_position};
use mayfly_store::Precondition;
use mayfly_verify::seq::Millis;

/// One record in export form.
pub(super) struct ExportRecord {
    /// The time of its commit.
    pub at: Millis,
    /// The event's name.
    pub event: String,
    /// The whole record as JSON, in ASCII, without a line end.
    pub json: String,
}

/// A destination. A batch that was handed over without an error counts as exported.
pub(super) trait ExportSink: Send {
    /// Hands over a batch, in order. After an error the same batch, and perhaps more, is handed over again.
    fn hand_over(&mut self, batch: &[ExportRecord]) -> io::Result<()>;

    /// Number of records since the start that were larger than the destination accepts: each was handed over as [`ExportRecord::cut`].
    fn cut(&self) -> u64 {
        0
    }
}

impl ExportRecord {
    /// A substitute for a record that its destination refuses for its size; it identifies the record, which can be read in the ledger. One
    /// oversized record must not stop the export, since history is retained until it was exported.
    fn cut(&self) -> ExportRecord {
        let whole: serde_json::Value = serde_json::from_str(&self.json).unwrap_or_default();
        let seq = whole.get("seq").cloned().unwrap_or_default();
        let json = serde_json::json!({ "seq": seq, "event": self.event, "truncated": true, "bytes": self.json.len() });
        ExportRecord { at: self.at, event: self.event.clone(), json: ascii(&json.to_string()) }
    }
}

fn sink(to: &ExportDestination, system: &System) -> Box<dyn ExportSink> {
    match to {
        ExportDestination::File(path) => Box::new(file::FileSink::new(path.clone())),
        ExportDestination::Syslog(to) => Box::new(syslog::SyslogSink::new(to.clone())),
        ExportDestination::Otlp(to) => Box::new(otlp::CollectorSink::new(to.clone(), system.clone())),
    }
}

/// A running continuous export. Dropping it ends the export and stores the position.
pub struct Exporter {
    stopping: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Exporter {
    /// Begins where the previous export ended, or with the oldest record that is kept.
    pub fn start(authority: &Arc<Authority>, to: &ExportDestination) -> io::Result<Exporter> {
        let stopping = Arc::new(AtomicBool::new(false));
        *authority.exported.lock() = Some(ExportProgress::default());
        let (authority, stops, to) = (Arc::downgrade(authority), stopping.clone(), sink(to, &authority.system));
        let thread = std::thread::Builder::new().name("mayfly-export".into()).spawn(move || {
            let mut run = Run { to, at: None, noted: None, watch: Stopwatch::start() };
            while !stops.load(Ordering::Relaxed) {
                // The server ends the export before itself; if the authority is gone, the thread ends.
                let Some(authority) = authority.upgrade() else { return };
                let more = run.tell(&authority);
                drop(authority);
                if !more {
                    std::thread::park_timeout(Duration::from_millis(limits::EXPORT_LOOK_MS));
                }
            }
            if let Some(authority) = authority.upgrade() {
                run.end(&authority);
            }
        })?;
        Ok(Exporter { stopping, thread: Some(thread) })
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // A stalled disk or receiver is not waited for: records beyond the stored position are exported again.
            let patience = Stopwatch::start();
            while !thread.is_finished() && patience.us() < limits::EXPORT_END_MS * 1000 {
                std::thread::sleep(Duration::from_millis(limits::EXPORT_LOOK_MS / 10));
            }
            match thread.is_finished() {
                true if thread.join().is_err() => tracing::error!("the thread of the export panicked"),
                true => {}
                false => tracing::error!(
                    "the export did not stop in time and is abandoned; the next start exports its last records again"
                ),
            }
        }
    }
}

struct Run {
    to: Box<dyn ExportSink>,
    /// The position up to which records were handed over.
    at: Option<LogCursor>,
    /// The position stored in the store.
    noted: Option<LogCursor>,
    watch: Stopwatch,
}

impl Run {
    /// Exports one batch and updates the status. Returns whether there may be more.
    fn tell(&mut self, authority: &Authority) -> bool {
        let went = self.process_piece(authority);
        let mut held = authority.exported.lock();
        let told = held.get_or_insert_default();
        told.cut = self.to.cut();
        match went {
            Ok(more) => {
                told.problem.clear();
                told.seq = self.at.map_or(told.seq, |at| at.seq);
                more
            }
            Err(fault) => {
                if told.problem != fault.what {
                    tracing::error!(%fault, "the audit export failed; it is retried, and old commits are kept until they are exported");
                    told.problem.clone_from(&fault.what);
                }
                // A batch that was handed over in part is handed over again.
                self.at = None;
                false
            }
        }
    }

    fn process_piece(&mut self, authority: &Authority) -> Result<bool, Fault> {
        let at = match self.at {
            Some(at) => at,
            None => self.begin(authority)?,
        };
        self.at = Some(at);
        let Some(steps) = authority.ledger.steps(at, limits::READER_BYTES)? else {
            self.at = None;
            return Ok(true);
        };
        if let Some(last) = steps.last() {
            let mut batch = Vec::new();
            for step in &steps {
                batch.extend(records_of_commit(step)?);
            }
            self.to.hand_over(&batch).map_err(|e| Fault::new(e.to_string()))?;
            self.at = Some(LogCursor { position: last.position + 1, seq: last.last });
        }
        if self.at != self.noted && (self.noted.is_none() || self.watch.us() >= limits::EXPORT_NOTE_MS * 1000) {
            self.note(authority)?;
        }
        Ok(!steps.is_empty())
    }

    /// The position at which the previous export ended.
    fn begin(&mut self, authority: &Authority) -> Result<LogCursor, Fault> {
        let failed = |e| Fault::new(format!("reading {EXPORTED}: {e}"));
        self.noted = export_position(&*authority.ledger.store()).map_err(failed)?;
        let Some(noted) = self.noted else { return Ok(authority.ledger.ends().0) };
        Ok(authority.ledger.resume(noted.seq)?.unwrap_or_else(|oldest| {
            tracing::error!(after = %noted.seq, until = %oldest.seq, "records were removed before they were exported");
            oldest
        }))
    }

    /// Stores the position durably.
    fn note(&mut self, authority: &Authority) -> Result<(), Fault> {
        let Some(at) = self.at else { return Ok(()) };
        let before = self.noted.map(LogCursor::to_bytes);
        let expect = before.as_ref().map_or(Precondition::Absent, |bytes| Precondition::Value(bytes));
        let put = authority.ledger.store().put(EXPORTED, &at.to_bytes(), expect);
        put.map_err(|e| Fault::new(format!("writing {EXPORTED}: {e}")))?;
        (self.noted, self.watch) = (Some(at), Stopwatch::start());
        Ok(())
    }

    fn end(&mut self, authority: &Authority) {
        if self.at.is_some()
            && self.at != self.noted
            && let Err(fault) = self.note(authority)
        {
            tracing::warn!(%fault, "the position of the export could not be stored; the next start exports the newest records again");
        }
    }
}

/// The records of a commit.
fn records_of_commit(step: &LogCommit) -> Result<Vec<ExportRecord>, Fault> {
    let all = step.matches(&HistoryFilter::default())?;
    let one = |one: mayfly_ledger::reader::search::Match| {
        let told = readable(&one.past.record, one.past.at);
        let json = serde_json::json!({
            "seq": one.past.seq.as_u64(), "at": told.at, "event": told.event, "author": told.author, "body": told.body,
            "group": one.group.as_u64(), "commit": step.position,
        });
        ExportRecord { at: one.past.at, event: told.event, json: ascii(&json.to_string()) }
    };
    Ok(all.into_iter().map(one).collect())
}
