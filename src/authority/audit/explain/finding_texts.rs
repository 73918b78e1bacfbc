//! The texts of findings.

use super::{ExplainFinding, GrantExplanation, UnreadHistory, body};
use crate::exchange::lookup::FoundIssuance;
use mayfly_base::plural::{counted, one_or};
use mayfly_ledger::State;
use mayfly_ledger::reader::history::HistoryRecord;
use mayfly_ledger::reader::history_query::QueryGap;
use mayfly_ledger::record::{CredentialIssued, Event, Principal, Record, TokenEvidence};
use mayfly_ledger::revocation::Hit;
use mayfly_ledger::state::{LiveCredential, TaskPhase, trust_domain_of};
use mayfly_policy::lifetime::LifetimeBound;
use mayfly_verify::seq::{ApprovalId, CredentialId, Millis, Seq, TaskId};

fn permits(subject: &'static str, text: impl Into<String>, seq: Seq) -> ExplainFinding {
    ExplainFinding { subject, text: text.into(), permits: true, seq }
}

fn refuses(subject: &'static str, text: impl Into<String>, seq: Seq) -> ExplainFinding {
    ExplainFinding { subject, text: text.into(), permits: false, seq }
}

/// The finding about parts of history that were not searched.
pub(super) fn reach(seen: UnreadHistory) -> Option<ExplainFinding> {
    let text = match seen {
        UnreadHistory { unseen: Some(QueryGap::NotIndexed { covered, commits }), .. } => {
            let percent = covered.saturating_mul(100) / commits.max(1);
            format!(
                "the index of history is being built, {percent} % of {commits} commits are in it; records of the rest may be missing here"
            )
        }
        UnreadHistory { unseen: Some(QueryGap::TooMuch { before }), .. } => {
            format!("more than one question reads: records before seq {before} are not told here")
        }
        UnreadHistory { removed: Some(removed), .. } => {
            format!("records up to seq {removed} were removed (audit.keep); what came before is not told here")
        }
        _ => return None,
    };
    Some(ExplainFinding { subject: "history", text, permits: false, seq: Seq::ZERO })
}

/// How a grant was decided, in the order of the checks, and what ended it.
pub(super) fn of_credential(
    state: &State,
    issued: &CredentialIssued,
    found: &FoundIssuance,
    records: &[HistoryRecord],
    now: Millis,
) -> (Vec<ExplainFinding>, String) {
    let mut findings = decided(issued, found, records);
    let live = CredentialId::from_slice(&issued.credential).and_then(|id| state.credentials.get(&id));
    let end = end_of(state, issued, found, live, records, now);
    let name = CredentialId::from_slice(&issued.credential).map_or_else(String::new, |id| format!("{id} was "));
    let summary = format!("{name}issued to {} for {}; {}", issued.caller, issued.upstream, end.text);
    findings.push(end);
    (findings, summary)
}

fn decided(issued: &CredentialIssued, found: &FoundIssuance, records: &[HistoryRecord]) -> Vec<ExplainFinding> {
    let seq = found.seq;
    let opened = records.iter().rev().find(|p| matches!(&p.record.event, Some(Event::TaskOpened(e)) if e.task == issued.task));
    let path: Vec<String> = found.path.iter().map(ToString::to_string).collect();
    let mut out = vec![
        permits(
            "view",
            format!(
                "decided by {} at {}, having seen all up to seq {}",
                found.record.author_text(),
                Millis(issued.issued_at),
                found.record.revision()
            ),
            seq,
        ),
        permits("environment", format!("caller, task and upstream belong to {}", issued.environment), seq),
        permits("upstream", format!("{} by version {} of its registration", issued.upstream, issued.upstream_version), seq),
        permits("task", format!("in {}, which was active", path.join(" / ")), opened.map_or(Seq::ZERO, |p| p.seq)),
    ];
    if let Some(svid) = &issued.svid {
        let text = format!(
            "an SVID of {}, serial {}, vouched for by root {}, good until {}",
            trust_domain_of(&issued.caller),
            data_encoding::HEXLOWER.encode(&svid.serial),
            data_encoding::HEXLOWER.encode(&svid.anchor),
            Millis(svid.not_after)
        );
        out.push(permits("evidence", text, seq));
    }
    if let Some(token) = &issued.subject_token {
        out.push(permits("subject", behalf(issued, token), seq));
    }
    if let Some(id) = CredentialId::from_slice(&issued.renews) {
        out.push(permits("renewal", format!("renews {id}, not beyond {}", Millis(issued.renewable_until)), seq));
    }
    if let Some(id) = CredentialId::from_slice(&issued.replaces) {
        out.push(permits("repeat", format!("its request was sent again; it takes the place of {id}"), seq));
    }
    if let Some(id) = ApprovalId::from_slice(&issued.approval) {
        out.push(permits("approval", format!("{id} was used up for it"), seq));
    }
    let by = if issued.policies.is_empty() { "by none that is named".to_owned() } else { issued.policies.join(", ") };
    out.push(permits(
        "policy",
        format!("permitted by {by} of policy set {} of {}", issued.policy_version, issued.environment),
        seq,
    ));
    out.push(permits("ttl bound", format!("{} set its end to {}", bound(issued.bound), Millis(issued.expires_at)), seq));
    out
}

/// The subject, the actors and the subject token.
fn behalf(issued: &CredentialIssued, token: &TokenEvidence) -> String {
    let by = format!("by token {} of {}, good until {}", token.id, token.issuer, Millis(token.expires_at));
    let Some(subject) = &issued.subject else { return format!("rests on what its task does, {by}") };
    let through: Vec<String> = issued.actors.iter().map(Principal::name).collect();
    format!("on behalf of {}, through {}, {by}", subject.name(), through.join(" for "))
}

/// The name of the bound that set a credential's expiry.
fn bound(number: u32) -> &'static str {
    const WORDS: [(LifetimeBound, &str); 12] = [
        (LifetimeBound::Asked, "what was asked for"),
        (LifetimeBound::Policy, "a policy"),
        (LifetimeBound::Upstream, "the upstream's registration"),
        (LifetimeBound::UpstreamExpiry, "the end of the upstream's registration"),
        (LifetimeBound::Task, "the task's deadline"),
        (LifetimeBound::Svid, "the end of the caller's SVID"),
        (LifetimeBound::ParentCredential, "the credential that it rests on"),
        (LifetimeBound::SubjectToken, "the subject token"),
        (LifetimeBound::Approval, "the approval"),
        (LifetimeBound::BreakGlass, "break-glass"),
        (LifetimeBound::Renewal, "the bound fixed at first issue"),
        (LifetimeBound::Server, "the longest that this server issues"),
    ];
    WORDS.iter().find(|(b, _)| *b as u32 == number).map_or("a bound that this version does not know", |(_, text)| text)
}

fn end_of(
    state: &State,
    issued: &CredentialIssued,
    found: &FoundIssuance,
    live: Option<LiveCredential<'_>>,
    records: &[HistoryRecord],
    now: Millis,
) -> ExplainFinding {
    let end = Millis(issued.expires_at);
    let given_back =
        records.iter().find(|p| matches!(&p.record.event, Some(Event::Released(e)) if e.credential == issued.credential));
    if live.is_some_and(|l| l.released()) || given_back.is_some() {
        let seq = given_back.map_or(Seq::ZERO, |p| p.seq);
        return refuses("release", "given back by its holder", seq);
    }
    let task = live.and_then(|l| state.tasks.at(l.task()));
    let hit = match (live, task) {
        (Some(live), Some(task)) => state.rules.covers(&state.facts(&live, task)),
        _ => state.rules.covers(&state.facts_of_record(issued, found.record.revision(), &found.path)),
    };
    if let Some(hit) = hit {
        return ended_by(&hit, records);
    }
    match task.map(|t| state.tasks.phase(t, now)) {
        Some(TaskPhase::Over(outcome)) => {
            refuses("task", format!("its task is over ({})", format!("{outcome:?}").to_lowercase()), Seq::ZERO)
        }
        _ if end <= now => refuses("expiry", format!("expired at {end}"), Seq::ZERO),
        Some(TaskPhase::Held) => refuses("hold", "its task is held", Seq::ZERO),
        _ => permits("expiry", format!("good until {end}"), Seq::ZERO),
    }
}

fn ended_by(hit: &Hit, records: &[HistoryRecord]) -> ExplainFinding {
    let record = records.iter().find(|p| p.seq == hit.seq);
    let cause = record.map(|p| (p.record.author_text(), reason(&p.record), p.at));
    let text = match cause {
        Some((author, reason, at)) => {
            format!("revoked by rule {} on {}, made by {author} at {at}: {reason}", hit.seq, hit.target)
        }
        None => format!("revoked by rule {} on {}", hit.seq, hit.target),
    };
    refuses("rule", text, hit.seq)
}

fn reason(record: &Record) -> &str {
    match &record.event {
        Some(Event::Revoked(e)) => &e.reason,
        Some(Event::TaskClosed(e)) => &e.reason,
        Some(Event::TaskHeld(e)) => &e.reason,
        Some(Event::TaskResumed(e)) => &e.reason,
        Some(Event::KeyChanged(e)) => &e.reason,
        Some(Event::ApprovalDecided(e)) => &e.reason,
        Some(Event::GenerationBegun(e)) => &e.cause,
        _ => "",
    }
}

/// The explanation of a task: from memory if it is there, otherwise from its records.
pub(super) fn of_task(state: &State, id: TaskId, records: &[HistoryRecord], now: Millis) -> Option<GrantExplanation> {
    let opened = records.iter().find_map(|p| match &p.record.event {
        Some(Event::TaskOpened(e)) if e.task == id.as_bytes() => Some((p, e)),
        _ => None,
    });
    let mut findings: Vec<ExplainFinding> = records.iter().map(of_one).collect();
    let live = state.tasks.get(&id);
    let Some(task) = live else {
        let (past, e) = opened?;
        let recovered = records.iter().find(|p| p.seq > past.seq && matches!(p.record.event, Some(Event::GenerationBegun(_))));
        let over = match recovered {
            Some(begun) => format!("void since seq {}, where generation {} began", begun.seq, begun.seq.generation()),
            None => "over, and no longer in memory".to_owned(),
        };
        let summary = format!("opened by {} at {}; {over}", e.opener, past.at);
        let holders = std::iter::once(e.opener.clone()).chain(e.callers.clone()).collect();
        return Some(GrantExplanation {
            summary,
            findings,
            environment: Some(e.environment.clone()),
            holders,
            ..GrantExplanation::default()
        });
    };
    let terms = &task.terms;
    let policy = format!("opening it was permitted by policy set {} of {}", terms.policy, terms.environment);
    findings.insert(0, permits("policy", policy, terms.seq));
    let (now_is, good) = match state.tasks.phase(task, now) {
        TaskPhase::Active => (format!("active until {}", task.deadline), true),
        TaskPhase::PendingApproval => match &task.approved {
            Some(approved) => (format!("waits for approval {} until {}", approved.id, approved.until), false),
            None => ("waits for an approval".to_owned(), false),
        },
        TaskPhase::Held => ("held".to_owned(), false),
        TaskPhase::Over(outcome) => {
            let closed = state.tasks.upwards(task).find_map(|t| t.closed.as_ref());
            let why = closed.map_or_else(String::new, |c| format!(" by seq {}: {}", c.seq, c.reason));
            (format!("over ({}){why}", format!("{outcome:?}").to_lowercase()), false)
        }
    };
    let state_of = ExplainFinding { subject: "task", text: now_is.clone(), permits: good, seq: terms.seq };
    findings.push(state_of);
    let issued = format!("{} {} issued in it", counted(task.issued, "credential"), one_or(task.issued, "was", "were"));
    findings.push(permits("credentials", issued, Seq::ZERO));
    let holders = std::iter::once(&*terms.opener).chain(terms.callers.iter().map(|c| &**c)).map(str::to_owned).collect();
    Some(GrantExplanation {
        summary: format!("opened by {} at {}; {now_is}", terms.opener, terms.opened_at),
        findings,
        records: Vec::new(),
        environment: Some(terms.environment.to_string()),
        holders,
        request_unknown: false,
    })
}

/// A record as a finding.
pub(super) fn of_one(past: &HistoryRecord) -> ExplainFinding {
    let Some(event) = &past.record.event else { return refuses("record", "", past.seq) };
    let (author, reason) = (past.record.author_text(), reason(&past.record));
    let against = matches!(
        event,
        Event::Revoked(_)
            | Event::TaskClosed(_)
            | Event::TaskHeld(_)
            | Event::Refused(_)
            | Event::Released(_)
            | Event::GenerationBegun(_)
    ) || matches!(event, Event::ApprovalDecided(e) if !e.given);
    let text = match event {
        Event::Refused(e) => refusal(e),
        Event::LoggedIn(e) => logged_in(e),
        Event::ApprovalDecided(e) => {
            let said = if e.given { "given" } else { "refused" };
            format!("{said} by {author} at {}: {reason}", past.at)
        }
        _ if reason.is_empty() => format!("by {author} at {}", past.at),
        _ => format!("by {author} at {}: {reason}", past.at),
    };
    // A record of this sort is also made by a lock, which revokes nothing.
    let subject = if matches!(event, Event::Revoked(e) if e.lock_only) { "locked" } else { body::name(event) };
    ExplainFinding { subject, text, permits: !against, seq: past.seq }
}

/// The person or job that logged in, how, and by which rule.
fn logged_in(e: &mayfly_ledger::record::LoggedIn) -> String {
    let person = e.person.as_ref().map_or_else(String::new, mayfly_ledger::record::Principal::name);
    let so = format!("is {} until {}", e.caller, Millis(e.expires_at));
    let by = format!("{} let them, policy version {} of {}", e.policies.join(", "), e.policy_version, e.environment);
    if let Some(job) = &e.job {
        return format!(
            "a job of {} ({}), {}, attested by rule {}, and {so}; {by}",
            e.provider,
            job.id,
            job.claims.join(", "),
            job.rule
        );
    }
    let how =
        if e.amr.is_empty() { "in a way that the provider does not tell".to_owned() } else { format!("by {}", e.amr.join(", ")) };
    let class = if e.acr.is_empty() { String::new() } else { format!(", acr {}", e.acr) };
    let when = if e.auth_time == 0 { "some time".to_owned() } else { Millis(e.auth_time).to_string() };
    format!("{person} signed in at {} {how}{class} at {when} ({} flow), and {so}; {by}", e.provider, e.flow,)
}

fn refusal(e: &mayfly_ledger::record::RequestsRefused) -> String {
    // A rule is a name, or a sentence like "no policy permits it".
    let rule = if e.rule.is_empty() { String::new() } else { format!(" ({})", e.rule) };
    match e.count {
        1 => format!("{} asked for {}: {}{rule}", e.caller, e.asked, e.reason),
        n => format!("{n} more of {} for {} since {}", e.caller, e.reason, Millis(e.since)),
    }
}

/// The explanation of a single record.
pub(super) fn of_record(past: HistoryRecord) -> GrantExplanation {
    let finding = of_one(&past);
    let holders = match past.record.author.as_ref().and_then(|a| a.who.as_ref()) {
        Some(mayfly_ledger::record::Author::SpiffeId(id)) => vec![id.clone()],
        _ => Vec::new(),
    };
    let summary = format!("{} {}", finding.subject, finding.text);
    GrantExplanation { summary, findings: vec![finding], records: vec![past], holders, ..GrantExplanation::default() }
}

/// The explanation of a request without a record: the refusals of its caller may tell why.
pub(super) fn of_refusals(caller: &str, id: &str, mut refused: Vec<HistoryRecord>) -> GrantExplanation {
    refused.reverse();
    GrantExplanation {
        summary: format!(
            "nothing was granted for request {id:?} of {caller}: no record has this request id, and a refusal is recorded without one; \
             the caller's newest refusals are listed"
        ),
        findings: refused.iter().map(of_one).collect(),
        records: refused,
        environment: None,
        holders: vec![caller.to_owned()],
        request_unknown: true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_its_rule_whether_that_is_a_name_or_a_sentence() {
        let refused = |rule: &str| mayfly_ledger::record::RequestsRefused {
            caller: "a".into(),
            asked: "echo".into(),
            reason: "DENIED_BY_POLICY".into(),
            rule: rule.into(),
            count: 1,
            ..Default::default()
        };
        assert_eq!(refusal(&refused("no policy permits it")), "a asked for echo: DENIED_BY_POLICY (no policy permits it)");
        assert_eq!(refusal(&refused("no-exports")), "a asked for echo: DENIED_BY_POLICY (no-exports)");
        assert_eq!(refusal(&refused("")), "a asked for echo: DENIED_BY_POLICY");
    }
}
