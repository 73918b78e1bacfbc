//! Backup: the ledger in pieces, as fast as its reader takes them.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::super::status::status;
use super::ask;
use crate::authority::Authority;
use crate::backup::Backup;
use crate::calls;
use crate::document::shown::stripped;
use crate::identity::caller::Operator;
use crate::ledger::record::{BackedUp, Event, Record, Who};
use crate::ledger::{in_the_background, stopping};
use crate::limits;
use crate::pb::mayfly::v1 as pb;
use crate::policy::admin;
use crate::refusal::{Fault, No};
use crate::tasks::Actor;

/// Pieces that wait for their reader: about `limits::BACKUP_PIECE_BYTES` each, and one that is being made.
const WAITING: usize = 1;

/// A piece of it.
pub type Piece = Result<pb::BackupResponse, Status>;

/// Who asks, and the call that it is asked in: it may have been approved.
type Asker = (Operator, Option<Arc<calls::Call>>);

/// It has what the audit says of everybody, and the private parts of keys.
fn admitted(a: &Authority, operator: &Operator) -> Result<Who, No> {
    a.admit::<admin::ReadAudit>(operator, None)?;
    Ok(a.admit::<admin::ManageKeys>(operator, None)?.who())
}

/// The same where others wait for nobody: it reads the state, and this thread stands back.
fn still_admitted(a: &Arc<Authority>, (operator, call): &Asker, runtime: &Handle) -> Result<(), No> {
    let (a, operator) = (a.clone(), operator.clone());
    let admitted = calls::within(call.clone(), async move { admitted(&a, &operator).map(drop) });
    let asked = runtime.block_on(runtime.spawn(admitted));
    asked.unwrap_or_else(|_| Err(No::Refusal(stopping())))
}

/// Begins one.
pub async fn begin(a: &Arc<Authority>, actor: &Actor, ask: &pb::BackupRequest) -> Result<ReceiverStream<Piece>, No> {
    let operator = ask::operator(actor)?.clone();
    let who = admitted(a, &operator)?;
    let to = cut(&stripped(&ask.to));
    let backup = a.backup().await?;
    let head = backup.about().seq;
    tracing::info!(seq = %head, by = who.name(), to, "a backup is being made");
    // Before the first of it leaves: what was taken in part is taken, too.
    let noted = Noted { who, to, head: head.as_u64() };
    noted.write(a, false).await;
    let (pieces, stream) = mpsc::channel(WAITING);
    let call = calls::Call::current();
    let (authority, runtime) = (a.clone(), tokio::runtime::Handle::current());
    // A thread of its own: it stands back behind all that is served.
    let run = move || {
        in_the_background();
        if run(&authority, &(operator, call), backup, &pieces, &runtime) {
            // Its reader hears of the end when the record of it is there.
            runtime.block_on(noted.write(&authority, true));
        }
    };
    let started = std::thread::Builder::new().name("mayfly-backup".to_owned()).spawn(run);
    started.map_err(|e| Fault::new(format!("no thread for a backup: {e}")))?;
    Ok(ReceiverStream::new(stream))
}

/// The record of a backup.
struct Noted {
    who: Who,
    to: String,
    head: u64,
}

impl Noted {
    async fn write(&self, a: &Authority, whole: bool) {
        let event = BackedUp { to: self.to.clone(), head: self.head, whole };
        if let Err(why) = a.note_in_time(Record::new(self.who.clone(), Event::BackedUp(event))).await {
            // A backup of a ledger that takes nothing any more is what somebody needs most.
            tracing::warn!(
                by = self.who.name(),
                to = self.to,
                head = self.head,
                whole,
                why,
                "a backup is taken, and the ledger takes no record of it"
            );
        }
    }
}

fn cut(text: &str) -> String {
    text.chars().take(limits::NAME_BYTES).collect()
}

/// Whether it was handed over whole.
fn run(a: &Arc<Authority>, operator: &Asker, mut backup: Backup, to: &mpsc::Sender<Piece>, runtime: &Handle) -> bool {
    loop {
        let piece = match still_admitted(a, operator, runtime).and_then(|()| backup.piece()) {
            Ok(None) => return true,
            Ok(Some(piece)) => Bytes::from(piece),
            Err(no) => {
                sent(Err(status(no)), to, runtime);
                return false;
            }
        };
        // A commit may be larger than a message.
        for from in (0..piece.len()).step_by(limits::BACKUP_PIECE_BYTES) {
            let part = piece.slice(from..piece.len().min(from + limits::BACKUP_PIECE_BYTES));
            if !sent(Ok(pb::BackupResponse { piece: part }), to, runtime) {
                return false;
            }
        }
    }
}

/// Somebody who does not read would hold up what is due to go.
fn sent(piece: Piece, to: &mpsc::Sender<Piece>, runtime: &Handle) -> bool {
    runtime.block_on(to.send_timeout(piece, Duration::from_millis(limits::BACKUP_STALL_MS))).is_ok()
}
