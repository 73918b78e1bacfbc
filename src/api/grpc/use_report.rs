//! ReportUses: use reports of the servers behind upstreams.

use super::super::status::problem;
use super::super::wire;
use mayfly_authority::audit::use_reports::UseReport;
use mayfly_authority::authority::Authority;
use mayfly_base::limits;
use mayfly_base::refusal::{Error, Refusal};
use mayfly_identity::caller::Caller;
use mayfly_policy::exchange_request;
use mayfly_proto::mayfly::v1 as pb;

/// One use, with its form checked.
fn used(given: &pb::Use) -> Result<UseReport, Refusal> {
    let outcome = match given.outcome() {
        pb::UseOutcome::Accepted => "accepted",
        pb::UseOutcome::Refused => "refused",
        pb::UseOutcome::Failed => "failed",
        pb::UseOutcome::Unspecified => return Err(Refusal::field("outcome", "is missing: say ACCEPTED, REFUSED or FAILED")),
    };
    let at = given.at.as_ref().ok_or_else(|| Refusal::field("at", "is missing: say when it was used"))?;
    Ok(UseReport {
        credential: exchange_request::id("credential_id", &given.credential_id)?,
        tool: exchange_request::text("tool", &given.tool, limits::NAME_BYTES)?,
        outcome,
        at: wire::millis(at).ok_or_else(|| Refusal::field("at", "is no moment since 1970"))?,
        count: given.count.max(1),
    })
}

pub(super) async fn report(
    authority: &Authority,
    caller: &Caller,
    ask: &pb::ReportUseRequest,
) -> Result<pb::ReportUseResponse, Error> {
    if ask.uses.len() > limits::USES_PER_REPORT {
        let what = format!("{} of them, at most {}", ask.uses.len(), limits::USES_PER_REPORT);
        return Err(Error::Refusal(Refusal::field("uses", what)));
    }
    let (mut well_formed, mut places, mut problems) = (Vec::new(), Vec::new(), Vec::new());
    for (place, given) in ask.uses.iter().enumerate() {
        match used(given) {
            Ok(one) => {
                well_formed.push(one);
                places.push(place);
            }
            Err(no) => problems.push((place, Error::Refusal(no))),
        }
    }
    let refused = authority.report_uses(caller, &well_formed).await?;
    problems.extend(refused.into_iter().filter_map(|(n, no)| Some((*places.get(n)?, no))));
    problems.sort_by_key(|(place, _)| *place);
    let told = |(place, no): (usize, Error)| pb::UseProblem {
        index: u32::try_from(place).unwrap_or(u32::MAX),
        problem: Some(problem(no)),
    };
    Ok(pb::ReportUseResponse { problems: problems.into_iter().map(told).collect() })
}
