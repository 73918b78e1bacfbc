//! `mayfly lock`: blocks new grants for targets, and lifts such locks. Adding a lock never asks for confirmation.

use clap::{Args, Subcommand};

use super::Run;
use super::error::CliError;
use super::exit::Exit;
use super::list::{self, ListArgs};
use super::show::Hits;
use super::show::revocation::{Lifted, Lock, Locked};
use super::targets::LockableArgs;
use crate::pb::mayfly::v1::{self as pb, revocation_service_client::RevocationServiceClient};
use crate::seq::Seq;

/// The subcommands for locks.
#[derive(Subcommand)]
pub enum LockCommand {
    /// Block new grants for targets; nothing is revoked
    Add(Box<AddArgs>),
    /// List locks, newest first
    List(Box<ListLocksArgs>),
    /// Lift a lock so that new grants are possible again; revoked credentials stay revoked
    Lift(LiftArgs),
}

/// Arguments of `mayfly lock add`.
#[derive(Args)]
pub struct AddArgs {
    /// Reason, recorded in the audit log
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// Request id; repeating the command with the same id returns the first answer
    #[arg(long, value_name = "ID")]
    request_id: Option<String>,
    /// Also lock an upstream, scope, environment or trust domain that the server does not know
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    targets: LockableArgs,
}

/// Arguments of `mayfly lock list`.
#[derive(Args)]
pub struct ListLocksArgs {
    #[command(flatten)]
    list: ListArgs,
    #[command(flatten)]
    target: LockableArgs,
}

/// Arguments of `mayfly lock lift`.
#[derive(Args)]
pub struct LiftArgs {
    /// Sequence number of the record that made the locks; SEQ:INDEX selects the lock of one target, as printed by `lock list -o name`
    #[arg(value_name = "SEQ[:INDEX]", value_parser = lock_name)]
    lock: LockName,
    /// Lift only the lock of the record's target with this index
    #[arg(long, value_name = "N")]
    index: Option<u32>,
    /// Reason, recorded in the audit log
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// Request id; repeating the command with the same id returns the first answer
    #[arg(long, value_name = "ID")]
    request_id: Option<String>,
}

/// All locks of one record, or one of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct LockName {
    seq: Seq,
    index: Option<u32>,
}

/// Parses `35184372088843` or `35184372088843:0`.
fn lock_name(text: &str) -> Result<LockName, String> {
    let (seq, index) = text.split_once(':').map_or((text, None), |(seq, index)| (seq, Some(index)));
    let wrong = || format!("{text:?} is no lock: expected a sequence number, or SEQ:INDEX as `mayfly lock list -o name` prints");
    let seq = seq.parse().map_err(|_| wrong())?;
    let index = index.map(|index| index.parse().map_err(|_| wrong())).transpose()?;
    Ok(LockName { seq, index })
}

/// Runs the chosen subcommand.
pub async fn run(command: LockCommand, run: &Run) -> Result<Exit, CliError> {
    match command {
        LockCommand::Add(args) => add(*args, run).await,
        LockCommand::List(args) => show(*args, run).await,
        LockCommand::Lift(args) => lift(args, run).await,
    }
}

async fn add(args: AddArgs, run: &Run) -> Result<Exit, CliError> {
    let targets = args.targets.targets();
    if targets.is_empty() {
        return Err(CliError::Usage(
            "what is to be locked? name a target, like --caller SPIFFE_ID; `mayfly lock add --help` lists them".to_owned(),
        ));
    }
    let request_id = run.request_id(&args.request_id);
    let request = pb::AddLockRequest { targets, reason: args.reason, request_id, force: args.force };
    let server = run.server().await?;
    let answer = server.call(request, |c, q| async move { RevocationServiceClient::new(c).add_lock(q).await }).await?;
    let locked =
        Locked { seq: answer.seq, hits: Hits::from(answer.hits), locks: answer.locks.into_iter().map(Lock::from).collect() };
    run.out.say(format_args!(
        "locked at {}: nothing new is granted for what is locked; what was issued for it stays good: {}",
        locked.seq,
        locked.hits.text()
    ));
    run.out.one_with_rows(&locked, &locked.locks)?;
    Ok(Exit::Ok)
}

async fn show(args: ListLocksArgs, run: &Run) -> Result<Exit, CliError> {
    let target = &super::rules::at_most_one(args.target.targets())?;
    let server = &run.server().await?;
    let page = |page_size, page_token| async move {
        let request = pb::ListLocksRequest { target: target.clone(), page_size, page_token };
        let answer = server.call(request, |c, q| async move { RevocationServiceClient::new(c).list_locks(q).await }).await?;
        Ok((answer.locks.into_iter().map(Lock::from).collect(), answer.next_page_token))
    };
    list::show(&run.out, &args.list, page).await
}

async fn lift(args: LiftArgs, run: &Run) -> Result<Exit, CliError> {
    let index = match (args.lock.index, args.index) {
        (Some(named), Some(flag)) if named != flag => {
            return Err(CliError::Usage(format!("the lock names index {named} and --index names {flag}; name one of them")));
        }
        (named, flag) => named.or(flag),
    };
    let request = pb::LiftLockRequest {
        seq: args.lock.seq.as_u64(),
        index,
        reason: args.reason,
        request_id: run.request_id(&args.request_id),
    };
    let server = run.server().await?;
    let answer = server.call(request, |c, q| async move { RevocationServiceClient::new(c).lift_lock(q).await }).await?;
    let locks = |list: Vec<pb::Lock>| list.into_iter().map(Lock::from).collect::<Vec<_>>();
    let lifted = Lifted { seq: answer.seq, lifted: locks(answer.lifted), remaining: locks(answer.remaining) };
    run.out.say(format_args!("lifted at {}; what was revoked stays revoked", lifted.seq));
    for lock in &lifted.remaining {
        let target = lock.target.as_ref().map(|t| t.text()).unwrap_or_default();
        run.out.say(format_args!("still locked: {target}, by {}: {}", lock.seq, lock.reason));
    }
    run.out.one_with_rows(&lifted, &lifted.lifted)?;
    Ok(Exit::Ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lift_takes_what_list_prints() {
        let seq: Seq = "35184372088843".parse().unwrap();
        assert_eq!(lock_name("35184372088843").unwrap(), LockName { seq, index: None });
        assert_eq!(lock_name("35184372088843:2").unwrap(), LockName { seq, index: Some(2) });
        for wrong in ["", ":0", "35184372088843:", "35184372088843:x", "x:0", "1:2:3"] {
            assert!(lock_name(wrong).unwrap_err().contains("SEQ:INDEX"), "{wrong}");
        }
    }
}
