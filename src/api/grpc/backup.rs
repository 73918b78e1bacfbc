//! Backup: the ledger in pieces, as fast as its reader takes them.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::super::status::status;
use super::request_checks;
use mayfly_authority::admission::operator_calls;
use mayfly_authority::authority::Authority;
use mayfly_authority::backup::BackupRun;
use mayfly_authority::tasks::Actor;
use mayfly_base::document::terminal_text::{cut, stripped};
use mayfly_base::limits;
use mayfly_base::refusal::{Error, Fault};
use mayfly_identity::caller::Operator;
use mayfly_ledger::record::{Author, BackedUp, Event, Record};
use mayfly_ledger::{mark_background_thread, stopping};
use mayfly_policy::{admin, exchange_request};
use mayfly_proto::mayfly::v1 as pb;

/// Pieces queued for the client: about `limits::BACKUP_PIECE_BYTES` each, and one more piece is being made.
const WAITING: usize = 1;

/// A piece of a backup.
pub type BackupPiece = Result<pb::BackupResponse, Status>;

/// The operator, and the operator's call, which may have been approved.
type Asker = (Operator, Option<Arc<operator_calls::OperatorCall>>);

/// A backup has the audit of all environments and the private parts of keys, so it needs both permissions.
fn admitted(a: &Authority, operator: &Operator) -> Result<Author, Error> {
    a.admit::<admin::ReadAudit>(operator, None)?;
    Ok(a.admit::<admin::ManageKeys>(operator, None)?.who())
}

/// Checks the permission again, on the runtime: the check reads the state, and other threads would wait for a low-priority thread that
/// holds the state.
fn still_admitted(a: &Arc<Authority>, (operator, call): &Asker, runtime: &Handle) -> Result<(), Error> {
    let (a, operator) = (a.clone(), operator.clone());
    let admitted = operator_calls::within(call.clone(), async move { admitted(&a, &operator).map(drop) });
    let asked = runtime.block_on(runtime.spawn(admitted));
    asked.unwrap_or_else(|_| Err(Error::Refusal(stopping())))
}

/// Begins a backup.
pub async fn begin(a: &Arc<Authority>, actor: &Actor, ask: &pb::BackupRequest) -> Result<ReceiverStream<BackupPiece>, Error> {
    let operator = request_checks::operator(actor)?.clone();
    let who = admitted(a, &operator)?;
    // A long path is recorded in part; that must not prevent a backup.
    let to = stripped(&exchange_request::text("to", &cut(&ask.to, limits::NAME_BYTES), limits::NAME_BYTES)?);
    let backup = a.backup().await?;
    let head = backup.about().seq;
    tracing::info!(seq = %head, by = who.name(), to, "a backup has begun");
    // The record is written before the first piece is sent, so that an incomplete backup is recorded, too.
    let noted = BackupRecorder { who, to, head: head.as_u64() };
    noted.write(a, false).await;
    let (pieces, stream) = mpsc::channel(WAITING);
    let call = operator_calls::OperatorCall::current();
    let (authority, runtime) = (a.clone(), tokio::runtime::Handle::current());
    // A backup has its own thread, whose priority is below that of serving.
    let run = move || {
        mark_background_thread();
        if run(&authority, &(operator, call), backup, &pieces, &runtime) {
            // The stream ends after the record of the complete backup is written.
            runtime.block_on(noted.write(&authority, true));
        }
    };
    let started = std::thread::Builder::new().name("mayfly-backup".to_owned()).spawn(run);
    started.map_err(|e| Fault::new(format!("no thread for a backup: {e}")))?;
    Ok(ReceiverStream::new(stream))
}

/// The record of a backup.
struct BackupRecorder {
    who: Author,
    to: String,
    head: u64,
}

impl BackupRecorder {
    async fn write(&self, a: &Authority, whole: bool) {
        let event = BackedUp { to: self.to.clone(), head: self.head, whole };
        if let Err(why) = a.note_in_time(Record::new(self.who.clone(), Event::BackedUp(event))).await {
            // A ledger that accepts no more records is when a backup is needed most, so the backup continues.
            tracing::warn!(
                by = self.who.name(),
                to = self.to,
                head = self.head,
                whole,
                why,
                "a backup was made, and the ledger accepts no record of it"
            );
        }
    }
}

/// Sends the backup. Returns whether it was sent completely.
fn run(a: &Arc<Authority>, operator: &Asker, mut backup: BackupRun, to: &mpsc::Sender<BackupPiece>, runtime: &Handle) -> bool {
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

/// Sends a piece to the client. `false` after `BACKUP_STALL_MS` without progress: a client that does not read must not delay the
/// removal of old commits.
fn sent(piece: BackupPiece, to: &mpsc::Sender<BackupPiece>, runtime: &Handle) -> bool {
    runtime.block_on(to.send_timeout(piece, Duration::from_millis(limits::BACKUP_STALL_MS))).is_ok()
}
