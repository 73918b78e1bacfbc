//! Backup: the ledger in pieces, as fast as its reader takes them.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::super::status::status;
use super::ask;
use crate::authority::Authority;
use crate::backup::Backup;
use crate::identity::caller::Operator;
use crate::ledger::in_the_background;
use crate::limits;
use crate::pb::mayfly::v1 as pb;
use crate::policy::Admin;
use crate::refusal::{Fault, No};
use crate::tasks::Actor;

/// Pieces that wait for their reader: about `limits::BACKUP_PIECE_BYTES` each, and one that is being made.
const WAITING: usize = 1;

/// A piece of it.
pub type Piece = Result<pb::BackupResponse, Status>;

/// It has what the audit says of everybody, and the private parts of keys.
fn admitted(a: &Authority, operator: &Operator) -> Result<(), No> {
    a.admit(operator, Admin::ReadAudit, None)?;
    a.admit(operator, Admin::ManageKeys, None)?;
    Ok(())
}

/// Begins one.
pub async fn begin(a: &Arc<Authority>, actor: &Actor) -> Result<ReceiverStream<Piece>, No> {
    let operator = ask::operator(actor)?.clone();
    admitted(a, &operator)?;
    let backup = a.backup().await?;
    tracing::info!(seq = %backup.about().seq, "a backup is being made");
    let (to, stream) = mpsc::channel(WAITING);
    let (authority, runtime) = (a.clone(), tokio::runtime::Handle::current());
    // A thread of its own: it stands back behind all that is served.
    let run = move || {
        in_the_background();
        run(&authority, &operator, backup, &to, &runtime);
    };
    let started = std::thread::Builder::new().name("mayfly-backup".to_owned()).spawn(run);
    started.map_err(|e| Fault::new(format!("no thread for a backup: {e}")))?;
    Ok(ReceiverStream::new(stream))
}

fn run(a: &Authority, operator: &Operator, mut backup: Backup, to: &mpsc::Sender<Piece>, runtime: &Handle) {
    loop {
        let piece = match admitted(a, operator).and_then(|()| backup.piece()) {
            Ok(None) => return,
            Ok(Some(piece)) => Ok(pb::BackupResponse { piece: piece.into() }),
            Err(no) => Err(status(no)),
        };
        let over = piece.is_err();
        // Somebody who does not read would hold up what is due to go.
        let sent = runtime.block_on(to.send_timeout(piece, Duration::from_millis(limits::BACKUP_STALL_MS)));
        if sent.is_err() || over {
            return;
        }
    }
}
