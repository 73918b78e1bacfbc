//! `mayfly lock`: blocks new grants for targets, and lifts such locks. Adding a lock never asks for confirmation.

use std::collections::BTreeSet;
use std::fmt;

use clap::{Args, Subcommand};

use super::CommandContext;
use super::error::CliError;
use super::exit::Exit;
use super::list::{self, ListArgs};
use super::server::ApiClient;
use super::several;
use super::show::{Shown, hits, shown, target};
use super::targets::LockableArgs;
use mayfly_proto::mayfly::v1::{self as pb, revocation_service_client::RevocationServiceClient};
use mayfly_verify::seq::Seq;

/// The subcommands for locks.
#[derive(Subcommand)]
pub enum LockCommand {
    /// Block new grants for targets; nothing is revoked
    Add(Box<AddLockArgs>),
    /// List locks, newest first
    List(Box<ListLocksArgs>),
    /// Lift locks so that new grants are possible again; revoked credentials stay revoked
    Lift(LiftArgs),
}

/// Arguments of `mayfly lock add`.
#[derive(Args)]
pub struct AddLockArgs {
    /// Reason, recorded in the audit log
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// Request id; repeating the command with the same id returns the first answer
    #[arg(long, value_name = "ID")]
    request_id: Option<String>,
    /// Also lock an upstream, scope, environment or trust domain that the server does not know
    #[arg(long)]
    force: bool,
    #[command(flatten, next_help_heading = "Targets")]
    targets: LockableArgs,
}

/// Arguments of `mayfly lock list`.
#[derive(Args)]
pub struct ListLocksArgs {
    #[command(flatten)]
    list: ListArgs,
    #[command(flatten, next_help_heading = "Targets")]
    target: LockableArgs,
}

/// Arguments of `mayfly lock lift`.
#[derive(Args)]
pub struct LiftArgs {
    /// Sequence numbers of the records that made the locks; SEQ:INDEX selects the lock of one target. An argument may hold several,
    /// separated by white space, as printed by `lock list -o name`; without any, there is nothing to lift. Each is lifted by itself: if one
    /// fails, the others are lifted all the same, and the exit code is that of the first failure
    #[arg(value_name = "SEQ[:INDEX]", value_parser = lock_names)]
    locks: Vec<LockNames>,
    /// Lift only the lock of the record's target with this index; with several records, name SEQ:INDEX instead
    #[arg(long, value_name = "N")]
    index: Option<u32>,
    /// Reason, recorded in the audit log
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// Request id; repeating the command with the same id returns the first answer. With several locks the requests are told apart by the
    /// name of the lock, which is appended to the id
    #[arg(long, value_name = "ID")]
    request_id: Option<String>,
}

/// All locks of one record, or one of them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct LockName {
    seq: Seq,
    index: Option<u32>,
}

impl fmt::Display for LockName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.index {
            Some(index) => write!(f, "{}:{index}", self.seq),
            None => write!(f, "{}", self.seq),
        }
    }
}

/// The locks of one argument.
#[derive(Clone, PartialEq, Eq, Debug)]
struct LockNames(Vec<LockName>);

/// Parses the names of locks between white space; there may be none, where `lock list -o name` printed none.
fn lock_names(text: &str) -> Result<LockNames, String> {
    text.split_whitespace().map(lock_name).collect::<Result<Vec<_>, _>>().map(LockNames)
}

/// Parses `35184372088843` or `35184372088843:0`.
fn lock_name(text: &str) -> Result<LockName, String> {
    let (seq, index) = text.split_once(':').map_or((text, None), |(seq, index)| (seq, Some(index)));
    let wrong = || {
        format!(
            "{text:?} names no lock: expected SEQ or SEQ:INDEX, with the number of the record that made the lock, like 35184372088843 or \
             35184372088843:0; `mayfly lock list -o name` prints them"
        )
    };
    let seq = seq.parse().map_err(|_| wrong())?;
    let index = index.map(|index| index.parse().map_err(|_| wrong())).transpose()?;
    Ok(LockName { seq, index })
}

/// Runs the chosen subcommand.
pub async fn run(command: LockCommand, run: &CommandContext) -> Result<Exit, CliError> {
    match command {
        LockCommand::Add(args) => add(*args, run).await,
        LockCommand::List(args) => show(*args, run).await,
        LockCommand::Lift(args) => lift(args, run).await,
    }
}

async fn add(args: AddLockArgs, run: &CommandContext) -> Result<Exit, CliError> {
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
    run.out.say(format_args!(
        "locked at {}: nothing new is granted for what is locked; what was issued for it stays good: {}",
        answer.seq,
        hits::text(answer.hits.unwrap_or_default())
    ));
    let rows = shown(answer.locks.clone());
    run.out.one_with_rows(&Shown(answer), &rows)?;
    Ok(Exit::Ok)
}

async fn show(args: ListLocksArgs, run: &CommandContext) -> Result<Exit, CliError> {
    let target = &super::rules::at_most_one(args.target.targets())?;
    let server = &run.server().await?;
    let page = |page_size, page_token| async move {
        let request = pb::ListLocksRequest { target: target.clone(), page_size, page_token };
        let answer = server.call(request, |c, q| async move { RevocationServiceClient::new(c).list_locks(q).await }).await?;
        Ok((answer.locks, answer.next_page_token))
    };
    list::show(&run.out, &args.list, page).await
}

async fn lift(args: LiftArgs, run: &CommandContext) -> Result<Exit, CliError> {
    let locks: Vec<LockName> = args.locks.iter().flat_map(|names| &names.0).copied().collect();
    let locks = named(&locks, args.index)?;
    if locks.is_empty() {
        run.out.say("no lock is named: there is nothing to lift");
        run.out.list_with_rows(Vec::<Shown<pb::LiftLockResponse>>::new(), |lifted| shown(lifted.0.lifted))?;
        return Ok(Exit::Ok);
    }
    let server = run.server().await?;
    let single = locks.len() == 1;
    let failed = |lock: &str| format!("the lock {lock} was not lifted:");
    let one = |lock, request_id| lift_one(lock, &args, request_id, &server, run);
    let (mut all, exit) = several::each(run, &args.request_id, locks, failed, one).await?;
    if let Some(lifted) = all.pop_if(|_| single) {
        run.out.one_with_rows(&lifted, &shown(lifted.0.lifted.clone()))?;
        return Ok(Exit::Ok);
    }
    let shown = run.out.list_with_rows(all, |lifted| shown(lifted.0.lifted));
    // A closed stdout does not hide that a lock was not lifted.
    if exit == Exit::Ok { shown.map(|()| exit) } else { Ok(exit) }
}

/// The locks to lift, each once.
fn named(locks: &[LockName], index: Option<u32>) -> Result<Vec<LockName>, CliError> {
    let mut seen = BTreeSet::new();
    let mut locks: Vec<LockName> = locks.iter().copied().filter(|lock| seen.insert(*lock)).collect();
    match (locks.as_mut_slice(), index) {
        (_, None) => {}
        ([LockName { index: Some(named), .. }], Some(flag)) if *named != flag => {
            return Err(CliError::Usage(format!("the lock names index {named} and --index names {flag}; name one of them")));
        }
        ([lock], flag) => lock.index = flag,
        (_, Some(_)) => {
            return Err(CliError::Usage("--index is for one lock; with several, name each as SEQ:INDEX".to_owned()));
        }
    }
    Ok(locks)
}

async fn lift_one(
    lock: LockName,
    args: &LiftArgs,
    request_id: String,
    server: &ApiClient,
    run: &CommandContext,
) -> Result<Shown<pb::LiftLockResponse>, CliError> {
    let (seq, reason) = (lock.seq.as_u64(), args.reason.clone());
    let request = pb::LiftLockRequest { seq, index: lock.index, reason, request_id };
    let answer = server.call(request, |c, q| async move { RevocationServiceClient::new(c).lift_lock(q).await }).await?;
    run.out.say(format_args!("lifted at {}; what was revoked stays revoked", answer.seq));
    for lock in &answer.remaining {
        run.out.say(format_args!("still locked: {}, by {}: {}", target(&lock.target), lock.seq, lock.reason));
    }
    Ok(Shown(answer))
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

    #[test]
    fn the_targets_of_a_lock_are_not_said_to_be_locked_as_well() {
        for mut command in
            [AddLockArgs::augment_args(clap::Command::new("add")), ListLocksArgs::augment_args(clap::Command::new("list"))]
        {
            let help = command.render_help().to_string();
            assert!(help.contains("\nTargets:\n") && help.contains("--caller"), "{help}");
            assert!(!help.contains("also locks:"), "{help}");
        }
        let mut revoke = super::super::targets::TargetArgs::augment_args(clap::Command::new("revoke"));
        assert!(revoke.render_help().to_string().contains("\nTargets that a revocation also locks:\n"));
    }

    #[test]
    fn each_lock_is_lifted_once_and_an_index_is_for_one_lock() {
        let names = |names: &[&str], index| {
            let locks: Vec<LockName> = names.iter().map(|name| lock_name(name).unwrap()).collect();
            named(&locks, index).map(|locks| locks.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "))
        };
        assert_eq!(names(&["7", "5:1", "7", "5:1", "5:0"], None).unwrap(), "7 5:1 5:0");
        assert_eq!(names(&["7", "7"], Some(2)).unwrap(), "7:2");
        assert_eq!(names(&["7:2"], Some(2)).unwrap(), "7:2");
        for (wrong, index) in [(&["7:1"][..], 2), (&["7", "8"][..], 0)] {
            assert!(matches!(names(wrong, Some(index)), Err(CliError::Usage(_))), "{wrong:?}");
        }
    }
}
