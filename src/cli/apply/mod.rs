//! `mayfly apply` and `mayfly export`: upstreams, bindings, policies and roles as files of a folder.
//!
//! - [`folder`]: reads a folder. [`present`]: reads the server. [`plan`]: what differs, as steps in a safe order.
//! - [`preview`], [`execute`]: the steps by the calls that the other commands use, which keep their rules: versions, approvals and
//!   confirmations are the server's. [`view`]: what is printed.
//! - [`export`]: writes a folder. [`document`], [`file_name`]: its files.

mod document;
mod execute;
mod export;
mod file_name;
mod folder;
mod plan;
mod present;
mod preview;
mod view;

use std::path::PathBuf;

use clap::Args;
pub use export::{FolderExportArgs, export};

use super::CommandContext;
use super::confirm::ConfirmedHits;
use super::error::CliError;
use super::exit::Exit;
use super::show::hits;
use execute::Execution;
use mayfly_base::plural::counted;
use mayfly_proto::mayfly::v1 as pb;
use plan::Plan;
use preview::Preview;
use view::{ApplyView, StepOutcome, StepView, UnmanagedView};

/// Arguments of `mayfly apply`.
#[derive(Args)]
#[command(after_help = "\
Exit codes: 0 nothing differs, or everything was done; 9 a step waits for an approval; 10 --dry-run found a difference; 7 some steps were \
done and some were not; 8 somebody changed something meanwhile: run it again.")]
pub struct ApplyArgs {
    /// Folder with `*.cedar` and roles.toml, upstreams/, bindings/, environments/NAME/
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// Print the plan and change nothing; exits with 10 if anything differs
    #[arg(long)]
    dry_run: bool,
    /// Retire the upstreams and remove the bindings that the folder does not have; without it, they are listed
    #[arg(long)]
    prune: bool,
    /// Only make these of the changes
    #[arg(long, value_name = "WHAT", value_enum)]
    only: Option<Only>,
    /// Reason, recorded in the audit log and shown to approvers
    #[arg(long, value_name = "TEXT", required_unless_present = "dry_run")]
    reason: Option<String>,
    /// Confirm that this many credentials are revoked in all, as printed by --dry-run (up to 10 % more are accepted), or `all`
    #[arg(long, value_name = "N|all", conflicts_with = "dry_run")]
    confirm: Option<ConfirmedHits>,
}

/// A part of the plan.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Only {
    /// Registrations of upstreams
    Upstreams,
    /// Bindings
    Bindings,
    /// Policies and roles
    Policies,
}

impl Only {
    fn has(self, kind: plan::ObjectKind) -> bool {
        match self {
            Only::Upstreams => kind == plan::ObjectKind::Upstream,
            Only::Bindings => kind == plan::ObjectKind::Binding,
            Only::Policies => kind == plan::ObjectKind::Policy,
        }
    }
}

/// Makes what is in effect what the folder says.
pub async fn run(args: ApplyArgs, run: &CommandContext) -> Result<Exit, CliError> {
    let wrong = |all: Vec<mayfly_base::document::Diagnostic>| super::policy::complaints(&all);
    let folder = folder::read(&args.folder).map_err(wrong)?;
    let server = &run.server().await?;
    let present = present::fetch(server).await?;
    let mut plan = plan::make(&folder, &present, args.prune)?;
    if let Some(only) = args.only {
        plan.steps.retain(|step| only.has(step.kind));
    }
    let new_id = || run.request_id(&None);
    let previews = preview::all(server, &plan, args.dry_run, new_id).await?;
    for step in &plan.steps {
        run.out.say(&step.diff);
    }
    tell_unmanaged(run, &plan);
    let conflicts = plan::conflicts(&plan.steps);
    if args.dry_run || plan.steps.is_empty() || !conflicts.is_empty() {
        let planned = Execution { outcomes: plan.steps.iter().map(|_| StepOutcome::Planned).collect(), error: None };
        print(&args, run, &plan, &previews, &planned)?;
        return end_of_plan(run, &plan, &previews, &conflicts);
    }
    let (total, _) = total(&previews);
    confirmed(&args, total)?;
    let reason = args.reason.as_deref().unwrap_or_default();
    let execution = execute::run(server, &plan, &previews, args.confirm, reason, new_id).await;
    print(&args, run, &plan, &previews, &execution)?;
    ended(run, &plan, execution)
}

fn tell_unmanaged(run: &CommandContext, plan: &Plan) {
    for (kind, name) in &plan.unmanaged {
        run.out.say(format_args!("{} {name} is not in the folder and stays: --prune takes it away", kind.word()));
    }
    for name in &plan.disabled {
        run.out.say(format_args!("upstream {name} is disabled and stays so: mayfly upstream enable {name} --reason TEXT"));
    }
}

/// The number of credentials that all steps revoke together, and whether that of some step is unknown.
fn total(previews: &[Preview]) -> (u64, bool) {
    let known = previews.iter().filter_map(|preview| preview.hits).map(|hits| hits.credentials);
    (known.fold(0, u64::saturating_add), previews.iter().any(|preview| preview.hits.is_none()))
}

/// The end of a run that sent nothing.
fn end_of_plan(run: &CommandContext, plan: &Plan, previews: &[Preview], conflicts: &[String]) -> Result<Exit, CliError> {
    if !conflicts.is_empty() {
        let way_out = "nothing was done: no order of the steps is safe. Make the change in two runs, with a folder between that only \
                       takes or only gives; or choose the order yourself with --only";
        return Err(CliError::Usage(format!("{}\n{way_out}", conflicts.join("\n"))));
    }
    if plan.steps.is_empty() {
        run.out.say("nothing differs");
        return Ok(Exit::Ok);
    }
    let (total, unknown) = total(previews);
    let revoked = hits::revoked(pb::Hits { credentials: total, ..pb::Hits::default() });
    let numbers = match (total, unknown) {
        (_, true) => "what it would revoke is told to operators who may make the changes".to_owned(),
        (0, false) => "it would revoke nothing".to_owned(),
        (1, false) => "it would revoke 1 credential".to_owned(),
        (n, false) => format!("it would revoke {}: --confirm {n}", revoked.split(',').next().unwrap_or_default()),
    };
    run.out
        .say(format_args!("dry run, nothing was done: {} would be made; {numbers}", counted(plan.steps.len() as u64, "change")));
    Ok(Exit::Findings)
}

/// The operator confirms the sum before the first step, so that no run stops half-way for want of a confirmation.
fn confirmed(args: &ApplyArgs, total: u64) -> Result<(), CliError> {
    let enough = match args.confirm {
        None => total <= 1,
        Some(ConfirmedHits::Credentials(n)) => total <= n.saturating_add(n / 10).max(1),
        Some(ConfirmedHits::All) => true,
    };
    if enough {
        return Ok(());
    }
    Err(CliError::Usage(format!(
        "this would revoke {}; nothing was done: run it again with `--confirm {total}`, or with `--confirm all`",
        counted(total, "credential")
    )))
}

fn print(args: &ApplyArgs, run: &CommandContext, plan: &Plan, previews: &[Preview], made: &Execution) -> Result<(), CliError> {
    let all = plan.steps.iter().zip(previews).zip(&made.outcomes);
    let steps: Vec<StepView> = all.map(|((step, preview), outcome)| StepView::of(step, preview, outcome)).collect();
    let done = made.count(|o| matches!(o, StepOutcome::Done));
    let waiting = made.count(|o| matches!(o, StepOutcome::Waits { .. }));
    let whole = ApplyView {
        folder: args.folder.display().to_string(),
        dry_run: args.dry_run,
        differs: !steps.is_empty(),
        done,
        waiting,
        not_done: steps.len() - done - waiting,
        steps: steps.clone(),
        unmanaged: plan.unmanaged.iter().map(|(kind, name)| UnmanagedView { object: kind.word(), name: name.clone() }).collect(),
        disabled: plan.disabled.clone(),
    };
    match (run.out.format(), steps.is_empty()) {
        (super::out::Format::Json | super::out::Format::Yaml, _) => run.out.one(&whole),
        (_, true) => Ok(()),
        (_, false) => run.out.list(&steps),
    }
}

/// The end of a run that made changes.
fn ended(run: &CommandContext, plan: &Plan, made: Execution) -> Result<Exit, CliError> {
    for (step, outcome) in plan.steps.iter().zip(&made.outcomes) {
        let object = step.object();
        match outcome {
            StepOutcome::Waits { approval } => run.out.say(format_args!(
                "{object} waits for another operator whom policy lets (ApproveChange): mayfly approval give {approval} --reason TEXT"
            )),
            StepOutcome::Held { by } => run.out.say(format_args!("{object} was not sent: {by} comes first")),
            StepOutcome::Failed { what } => run.out.say(format_args!("{object} was not changed: {what}")),
            StepOutcome::Unknown { what } => run.out.say(format_args!("{object} may have been changed, or not: {what}")),
            StepOutcome::NotDone => run.out.say(format_args!("{object} was not sent")),
            StepOutcome::Planned | StepOutcome::Done => {}
        }
    }
    let done = made.count(|o| matches!(o, StepOutcome::Done));
    let waiting = made.count(|o| matches!(o, StepOutcome::Waits { .. }));
    let (steps, rest) = (plan.steps.len(), plan.steps.len() - done);
    match made.error {
        None if rest == 0 => {
            run.out.say(format_args!("{} made", counted(done as u64, "change")));
            Ok(Exit::Ok)
        }
        None => {
            run.out.say(format_args!(
                "{done} of {} made, {waiting} waiting for an approval; run it again once they are approved",
                counted(steps as u64, "change")
            ));
            Ok(Exit::ApprovalNeeded)
        }
        Some(error) if done + waiting == 0 => Err(error),
        Some(error) => {
            let what = error.words(false);
            Err(CliError::Partly(format!(
                "{done} of {} made, {waiting} waiting for an approval; a second run goes on from there\n{}",
                counted(steps as u64, "change"),
                what.trim_end()
            )))
        }
    }
}
