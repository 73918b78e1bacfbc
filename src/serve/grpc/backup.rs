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
use crate::identity::caller::Operator;
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
fn admitted(a: &Authority, operator: &Operator) -> Result<(), No> {
    a.admit::<admin::ReadAudit>(operator, None)?;
    a.admit::<admin::ManageKeys>(operator, None)?;
    Ok(())
}

/// The same where others wait for nobody: it reads the state, and this thread stands back.
fn still_admitted(a: &Arc<Authority>, (operator, call): &Asker, runtime: &Handle) -> Result<(), No> {
    let (a, operator) = (a.clone(), operator.clone());
    let admitted = calls::within(call.clone(), async move { admitted(&a, &operator) });
    let asked = runtime.block_on(runtime.spawn(admitted));
    asked.unwrap_or_else(|_| Err(No::Refusal(stopping())))
}

/// Begins one.
pub async fn begin(a: &Arc<Authority>, actor: &Actor) -> Result<ReceiverStream<Piece>, No> {
    let operator = ask::operator(actor)?.clone();
    admitted(a, &operator)?;
    let backup = a.backup().await?;
    tracing::info!(seq = %backup.about().seq, "a backup is being made");
    let (to, stream) = mpsc::channel(WAITING);
    let call = calls::Call::current();
    let (authority, runtime) = (a.clone(), tokio::runtime::Handle::current());
    // A thread of its own: it stands back behind all that is served.
    let run = move || {
        in_the_background();
        run(&authority, &(operator, call), backup, &to, &runtime);
    };
    let started = std::thread::Builder::new().name("mayfly-backup".to_owned()).spawn(run);
    started.map_err(|e| Fault::new(format!("no thread for a backup: {e}")))?;
    Ok(ReceiverStream::new(stream))
}

fn run(a: &Arc<Authority>, operator: &Asker, mut backup: Backup, to: &mpsc::Sender<Piece>, runtime: &Handle) {
    loop {
        let piece = match still_admitted(a, operator, runtime).and_then(|()| backup.piece()) {
            Ok(None) => return,
            Ok(Some(piece)) => Bytes::from(piece),
            Err(no) => {
                sent(Err(status(no)), to, runtime);
                return;
            }
        };
        // A commit may be larger than a message.
        for from in (0..piece.len()).step_by(limits::BACKUP_PIECE_BYTES) {
            let part = piece.slice(from..piece.len().min(from + limits::BACKUP_PIECE_BYTES));
            if !sent(Ok(pb::BackupResponse { piece: part }), to, runtime) {
                return;
            }
        }
    }
}

/// Somebody who does not read would hold up what is due to go.
fn sent(piece: Piece, to: &mpsc::Sender<Piece>, runtime: &Handle) -> bool {
    runtime.block_on(to.send_timeout(piece, Duration::from_millis(limits::BACKUP_STALL_MS))).is_ok()
}
