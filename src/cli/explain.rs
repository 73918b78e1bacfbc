//! `mayfly explain`: explains a decision or an object from its records alone.

use clap::Args;

use super::CommandContext;
use super::error::CliError;
use super::exit::Exit;
use super::out::Format;
use super::show::{Shown, shown};
use mayfly_proto::mayfly::v1::{self as pb, audit_service_client::AuditServiceClient, explain_request::Of};
use mayfly_verify::seq::{ApprovalId, CredentialId, LeaseId, Seq, TaskId};

/// Arguments of `mayfly explain`.
#[derive(Args)]
pub struct ExplainArgs {
    /// Id of a credential, task, approval or lease, or sequence number of a record
    #[arg(value_name = "ID", required_unless_present = "request_id", conflicts_with = "request_id", value_parser = named)]
    id: Option<Of>,
    /// Request id that the caller gave to the request
    #[arg(long, value_name = "ID")]
    request_id: Option<String>,
    /// SPIFFE ID of the request's caller [default: this caller]
    #[arg(long, value_name = "SPIFFE_ID", requires = "request_id")]
    caller: Option<String>,
}

/// The prefix of an id tells what it names.
fn named(text: &str) -> Result<Of, String> {
    let none = || "expected an id (cred_…, task_…, appr_…, lease_…) or a seq".to_owned();
    let whole = |ok: bool, of: Of| ok.then_some(of).ok_or_else(none);
    let id = text.to_owned();
    match text.split_once('_').map(|(kind, _)| kind) {
        Some("cred") => whole(text.parse::<CredentialId>().is_ok(), Of::CredentialId(id)),
        Some("task") => whole(text.parse::<TaskId>().is_ok(), Of::TaskId(id)),
        Some("appr") => whole(text.parse::<ApprovalId>().is_ok(), Of::ApprovalId(id)),
        Some("lease") => whole(text.parse::<LeaseId>().is_ok(), Of::LeaseId(id)),
        _ => text.parse::<Seq>().map(|seq| Of::Seq(seq.as_u64())).map_err(|_| none()),
    }
}

/// Runs the command.
pub async fn run(args: ExplainArgs, run: &CommandContext) -> Result<Exit, CliError> {
    let of = args.id.unwrap_or_else(|| {
        Of::Request(pb::RequestName { caller: args.caller.unwrap_or_default(), request_id: args.request_id.unwrap_or_default() })
    });
    let request = pb::ExplainRequest { of: Some(of) };
    let server = run.server().await?;
    let answer = server.call(request, |c, q| async move { AuditServiceClient::new(c).explain(q).await }).await?;
    let request_unknown = answer.request_unknown;
    match run.out.format() {
        Format::Table | Format::Wide => {
            run.out.text(&answer.summary)?;
            if !answer.findings.is_empty() {
                run.out.text("")?;
                run.out.list(&shown(answer.findings))?;
            }
            if !answer.records.is_empty() {
                run.out.text("")?;
                run.out.list(&shown(answer.records))?;
            }
        }
        _ => run.out.one(&Shown(answer))?,
    }
    if request_unknown {
        run.out.say("no record has this request id: nothing was granted for it [NOT_FOUND]");
        return Ok(Exit::NotFound);
    }
    Ok(Exit::Ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_says_by_itself_what_it_names() {
        let id = |kind: &str| format!("{kind}_{}", "a".repeat(26));
        assert_eq!(named(&id("cred")), Ok(Of::CredentialId(id("cred"))));
        assert_eq!(named(&id("task")), Ok(Of::TaskId(id("task"))));
        assert_eq!(named(&id("appr")), Ok(Of::ApprovalId(id("appr"))));
        assert_eq!(named(&id("lease")), Ok(Of::LeaseId(id("lease"))));
        assert_eq!(named("4711"), Ok(Of::Seq(4711)));
        for wrong in ["", "task_x", "x", "-1", "9007199254740992", "key_1"] {
            assert!(named(wrong).is_err(), "{wrong}");
        }
    }
}
