//! Tests for a policy set, as TOML: one `[[test]]` for each request, with the expected outcome.
//!
//! ```toml
//! [[test]]
//! name = "agents read code"
//! caller = "spiffe://example.org/agent/reviewer"
//! upstream = "repos"
//! scopes = ["repo:read"]
//! expect = "permit"
//! by = ["reviewers-read-code"]
//! ```

use super::action::{Action, WorkloadAction};
use super::exchange_request;
use super::question::UsageCounts;
use super::simulation::{
    SimulatedPerson, SimulatedRequest, SimulatedRun, SimulatedSubject, SimulatedTask, SimulatedUse, SimulationOutcome,
};
use mayfly_base::document::{Diagnostic, Document, Field, Section, SourceFile};
use mayfly_base::limits;
use mayfly_identity::spiffe_id::SpiffeId;
use mayfly_ledger::upstream::registry::Kind;
use mayfly_verify::seq::Millis;

/// One test.
#[derive(Clone, Debug)]
pub struct PolicyTest {
    /// The test's name.
    pub name: String,
    /// The test's line in the file, from 1.
    pub line: usize,
    /// The environment. `None`: the upstream's.
    pub environment: Option<String>,
    /// The upstream of the request.
    pub upstream: Option<String>,
    /// The request.
    pub situation: SimulatedRequest,
    /// The expected outcome.
    pub expect: ExpectedOutcome,
    /// The policies that must have decided, sorted. `None`: any.
    pub by: Option<Vec<String>>,
}

/// The outcome that a test expects.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ExpectedOutcome {
    /// Permitted.
    Permit,
    /// Refused by policy, and no approval would help.
    Deny,
    /// Refused until a person approves.
    Approval,
    /// Refused by the wall between environments.
    Wall,
}

impl ExpectedOutcome {
    const ALL: [(&'static str, ExpectedOutcome); 4] = [
        ("permit", ExpectedOutcome::Permit),
        ("deny", ExpectedOutcome::Deny),
        ("approval", ExpectedOutcome::Approval),
        ("wall", ExpectedOutcome::Wall),
    ];

    /// The word for the expectation in files.
    pub fn word(self) -> &'static str {
        ExpectedOutcome::ALL.iter().find(|(_, e)| *e == self).map_or("", |(word, _)| word)
    }
}

impl SimulationOutcome {
    /// The expectation that the outcome meets. An evaluation error meets none.
    pub fn meets(&self) -> Option<ExpectedOutcome> {
        match self {
            SimulationOutcome::Permit(_) => Some(ExpectedOutcome::Permit),
            SimulationOutcome::Deny(_) => Some(ExpectedOutcome::Deny),
            SimulationOutcome::Approval(_) => Some(ExpectedOutcome::Approval),
            SimulationOutcome::Wall(_) => Some(ExpectedOutcome::Wall),
            SimulationOutcome::EngineError(_) => None,
        }
    }

    /// The policies that decided.
    pub fn by(&self) -> &[String] {
        match self {
            SimulationOutcome::Permit(by) | SimulationOutcome::Deny(by) => by,
            SimulationOutcome::Approval(_) | SimulationOutcome::Wall(_) | SimulationOutcome::EngineError(_) => &[],
        }
    }
}

impl std::fmt::Display for SimulationOutcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            SimulationOutcome::Permit(by) => write!(f, "permitted by {}", by.join(", ")),
            SimulationOutcome::Deny(by) if by.is_empty() => f.write_str("no policy permits it"),
            SimulationOutcome::Deny(by) => write!(f, "forbidden by {}", by.join(", ")),
            SimulationOutcome::Approval(people) => write!(f, "refused until one of these approves it: {}", people.join(", ")),
            SimulationOutcome::Wall(Some(own)) => write!(f, "refused by the wall: the caller belongs to {own}"),
            SimulationOutcome::Wall(None) => f.write_str("refused by the wall: the caller belongs to no environment"),
            SimulationOutcome::EngineError(what) => write!(f, "refused because a policy could not be evaluated: {what}"),
        }
    }
}

impl PolicyTest {
    /// Why the outcome fails the test; `None`: it passes.
    pub fn fails(&self, outcome: &SimulationOutcome) -> Option<String> {
        if outcome.meets() != Some(self.expect) {
            return Some(format!("{} was expected: {outcome}", self.expect.word()));
        }
        let by = self.by.as_ref().filter(|by| by[..] != *outcome.by())?;
        Some(format!("{} by {} was expected: {outcome}", self.expect.word(), by.join(", ")))
    }
}

/// Parses the tests of a file. The error lists everything that is wrong with the file. `now`: the time of tests that name none.
pub fn parse(source: &SourceFile, now: Millis) -> Result<Vec<PolicyTest>, Vec<Diagnostic>> {
    let document = Document::parse(source)?;
    let root = document.root();
    let environment = root.optional("environment").and_then(|f| f.name());
    let fields = root.required("test").and_then(|f| f.list(limits::POLICY_TESTS)).unwrap_or_default();
    let tests = fields.iter().map(|field| test(field, environment.as_deref(), now)).collect();
    root.finish();
    document.finish(tests)
}

fn test(field: &Field<'_>, environment: Option<&str>, now: Millis) -> Option<PolicyTest> {
    let table = field.section()?;
    let name = table.required("name").and_then(|f| f.text(limits::PURPOSE_BYTES));
    let own = table.optional("environment").and_then(|f| f.name());
    let upstream = table.optional("upstream").and_then(|f| f.name());
    let situation = situation(&table, now);
    let expect = table.required("expect").and_then(|f| f.one_of(&ExpectedOutcome::ALL));
    let by = table.optional("by").map(|f| names(&f)).map(|mut by| {
        by.sort_unstable();
        by
    });
    table.finish();
    let (situation, expect) = (situation?, expect?);
    if situation.about_upstream() && upstream.is_none() {
        return field.wrong("lacks upstream", format!("{} is asked about one", situation.action.name()));
    }
    if by.is_some() && !matches!(expect, ExpectedOutcome::Permit | ExpectedOutcome::Deny) {
        return field.wrong("has by", "policies are named where permit or deny is expected");
    }
    let environment = own.or_else(|| environment.map(str::to_owned));
    Some(PolicyTest { name: name?, line: field.line(), environment, upstream, situation, expect, by })
}

/// Reads a request from a section.
pub fn situation(table: &Section<'_>, now: Millis) -> Option<SimulatedRequest> {
    let caller = table.required("caller").and_then(|f| f.parsed(limits::SPIFFE_ID_BYTES, SpiffeId::parse));
    let actions: Vec<(&str, Action)> = Action::ALL.iter().map(|a| (a.name(), *a)).collect();
    let action = table.optional("action").map_or(Some(Action::Work(WorkloadAction::Exchange)), |f| f.one_of(&actions));
    let kinds: Vec<(&str, Kind)> = Kind::ALL.iter().map(|k| (k.as_str(), *k)).collect();
    let text = |key: &str, most: usize| table.optional(key).and_then(|f| f.text(most));
    let flag = |key: &str| table.optional(key).and_then(|f| f.boolean()).unwrap_or(false);
    let purpose = text("purpose", limits::PURPOSE_BYTES).unwrap_or_default();
    let tool = table.optional("tool").and_then(|f| f.name());
    let arguments = table.optional("arguments").and_then(|f| arguments(&f));
    let kind = table.optional("kind").and_then(|f| f.one_of(&kinds));
    let scopes = table.optional("scopes").map(|f| names(&f)).unwrap_or_default();
    let binding = table.optional("binding").and_then(|f| f.name());
    let details = text("details", limits::AUTHORIZATION_DETAILS_BYTES).unwrap_or_default();
    let (renewal, break_glass) = (flag("renewal"), flag("break_glass"));
    let delegate = text("delegate", limits::SPIFFE_ID_BYTES);
    let act_chain = table.optional("act_chain").map(|f| texts(&f)).unwrap_or_default();
    let subject = table.optional("subject").and_then(|f| f.inside(subject));
    let task = table.optional("task").and_then(|f| f.inside(|t| Some(task(t)))).unwrap_or_default();
    let person = table.optional("person").and_then(|f| f.inside(|p| person(p, now)));
    let job = table.optional("job").and_then(|f| f.inside(attested));
    let counts = table.optional("counts").and_then(|f| f.inside(|c| Some(counts(c)))).unwrap_or_default();
    let approvals = table.optional("approvals").map(|f| texts(&f)).unwrap_or_default();
    let asked_by = text("asked_by", limits::SPIFFE_ID_BYTES);
    let used = table.optional("use").and_then(|f| f.inside(|u| Some(used(u)))).unwrap_or_default();
    let target = table
        .optional("target")
        .and_then(|f| f.inside(|t| Some((t.optional("kind").and_then(|f| f.name()), t.optional("name").and_then(|f| f.name())))));
    let ttl_seconds = seconds(table, "ttl");
    let now = table.optional("now").and_then(|f| f.moment()).unwrap_or(now);
    Some(SimulatedRequest {
        purpose,
        tool,
        arguments_digest: arguments,
        kind,
        scopes,
        binding,
        details,
        ttl_seconds,
        renewal,
        break_glass,
        delegate,
        act_chain,
        subject,
        task,
        person,
        job,
        counts,
        approvals,
        asked_by,
        used,
        target: target.unwrap_or_default(),
        ..SimulatedRequest::new(caller?, action?, now)
    })
}

fn pair(section: &Section<'_>) -> Option<(String, String)> {
    let issuer = section.required("issuer").and_then(|f| f.text(limits::SPIFFE_ID_BYTES));
    let id = section.required("id").and_then(|f| f.text(limits::SPIFFE_ID_BYTES));
    Some((issuer?, id?))
}

fn subject(section: &Section<'_>) -> Option<SimulatedSubject> {
    let groups = section.optional("groups").map(|f| texts(&f)).unwrap_or_default();
    pair(section).map(|(issuer, id)| SimulatedSubject { issuer, id, groups })
}

fn task(section: &Section<'_>) -> SimulatedTask {
    let text = |key: &str| section.optional(key).and_then(|f| f.text(limits::PURPOSE_BYTES));
    let list = |key: &str| section.optional(key).map(|f| texts(&f)).unwrap_or_default();
    SimulatedTask {
        id: text("id"),
        purpose: text("purpose").unwrap_or_default(),
        owner: text("owner").unwrap_or_default(),
        depth: number(section, "depth"),
        ttl_seconds: seconds(section, "ttl"),
        heartbeat: section.optional("heartbeat").and_then(|f| f.boolean()).unwrap_or(false),
        upstreams: list("upstreams"),
        tools: list("tools"),
        callers: list("callers"),
    }
}

fn person(section: &Section<'_>, now: Millis) -> Option<SimulatedPerson> {
    let (issuer, id) = pair(section)?;
    Some(SimulatedPerson {
        issuer,
        id,
        amr: section.optional("amr").map(|f| texts(&f)).unwrap_or_default(),
        acr: section.optional("acr").and_then(|f| f.text(limits::NAME_BYTES)),
        auth_time: section.optional("auth_time").and_then(|f| f.moment()).unwrap_or(now),
    })
}

fn attested(section: &Section<'_>) -> Option<SimulatedRun> {
    let (issuer, id) = pair(section)?;
    let rule = section.optional("rule").and_then(|f| f.name()).unwrap_or_default();
    let claims = section.optional("claims").map(|f| texts(&f)).unwrap_or_default();
    Some(SimulatedRun { issuer, rule, id, claims })
}

fn used(section: &Section<'_>) -> SimulatedUse {
    let outcomes = [("accepted", "accepted"), ("refused", "refused"), ("failed", "failed")];
    let flag = |key: &str, otherwise| section.optional(key).and_then(|f| f.boolean()).unwrap_or(otherwise);
    let plain = SimulatedUse::default();
    SimulatedUse {
        outcome: section.optional("outcome").and_then(|f| f.one_of(&outcomes)).map_or(plain.outcome, str::to_owned),
        declared: flag("declared", plain.declared),
        after_end: flag("after_end", plain.after_end),
        server: section.optional("server").and_then(|f| f.text(limits::SPIFFE_ID_BYTES)).unwrap_or_default(),
    }
}

fn counts(section: &Section<'_>) -> UsageCounts {
    UsageCounts {
        issued_in_task: number(section, "issued_in_task"),
        live_in_task: number(section, "live_in_task"),
        live_of_caller: number(section, "live_of_caller"),
        uses_in_task: number(section, "uses_in_task"),
        refused_uses_in_task: number(section, "refused_uses_in_task"),
        authorized_in_task: number(section, "authorized_in_task"),
    }
}

fn number(section: &Section<'_>, key: &str) -> i64 {
    let most = u64::from(u32::MAX);
    section.optional(key).and_then(|f| f.integer(0, most)).and_then(|n| i64::try_from(n).ok()).unwrap_or(0)
}

fn seconds(section: &Section<'_>, key: &str) -> i64 {
    let ms = section.optional(key).and_then(|f| f.duration(1_000, limits::TASK_TTL_MS));
    ms.and_then(|ms| i64::try_from(ms / 1000).ok()).unwrap_or(0)
}

/// The digest of arguments that the field holds as JSON.
fn arguments(field: &Field<'_>) -> Option<String> {
    let json = field.text(limits::ARGUMENTS_BYTES)?;
    match exchange_request::digest_of_json(&json) {
        Ok(digest) => Some(super::question::digest_text(&digest, &mut [0; 43]).to_owned()),
        Err(no) => field.wrong("is no JSON", no.to_string()),
    }
}

fn names(field: &Field<'_>) -> Vec<String> {
    field.list(limits::TASK_LIST).unwrap_or_default().iter().filter_map(Field::name).collect()
}

fn texts(field: &Field<'_>) -> Vec<String> {
    let items = field.list(limits::TASK_LIST).unwrap_or_default();
    items.iter().filter_map(|f| f.text(limits::SPIFFE_ID_BYTES)).collect()
}
