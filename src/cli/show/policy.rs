//! JSON and table forms of policy sets and their decisions.

use serde::Serialize;

use super::{AuthorView, HitsView, or_dash, shown_word, time};
use crate::error::CliError;
use crate::out::{Printable, Row};
use mayfly_base::document::with_key;
use mayfly_policy::policy_tests::PolicyTest;
use mayfly_policy::simulation::SimulationOutcome;
use mayfly_proto::mayfly::v1 as pb;

/// A policy set, as `policy show` prints it.
#[derive(Serialize, Debug)]
pub struct PolicySetView {
    pub environment: String,
    pub mode: String,
    pub version: u64,
    pub files: Vec<PolicyFileView>,
    pub author: Option<AuthorView>,
    pub at: Option<String>,
    pub seq: u64,
    pub narrowing: bool,
    pub same: Option<u64>,
    pub would_refuse: Option<u64>,
    pub would_permit: Option<u64>,
}

/// A file of a policy set.
#[derive(Serialize, Debug)]
pub struct PolicyFileView {
    pub name: String,
    pub text: String,
}

impl From<pb::PolicySet> for PolicySetView {
    fn from(p: pb::PolicySet) -> PolicySetView {
        let file = |f: pb::PolicyFile| PolicyFileView { name: f.name, text: f.text };
        PolicySetView {
            environment: p.environment,
            mode: shown_word!(pb::PolicyMode, "POLICY_MODE_", p.mode),
            version: p.version,
            files: p.files.into_iter().flat_map(|f| f.policies.into_iter().chain(f.roles)).map(file).collect(),
            author: AuthorView::of(p.author),
            at: time(p.at),
            seq: p.seq,
            narrowing: p.narrowing,
            same: p.audited.map(|a| a.same),
            would_refuse: p.audited.map(|a| a.would_refuse),
            would_permit: p.audited.map(|a| a.would_permit),
        }
    }
}

impl PolicySetView {
    /// The set with only the names of its files.
    pub fn without_texts(&self) -> PolicySummary<'_> {
        let PolicySetView { environment, mode, version, files, author, at, seq, narrowing, same, would_refuse, would_permit } =
            self;
        PolicySummary {
            environment,
            mode,
            version: *version,
            files: files.iter().map(|file| file.name.as_str()).collect(),
            author,
            at,
            seq: *seq,
            narrowing: *narrowing,
            same: *same,
            would_refuse: *would_refuse,
            would_permit: *would_permit,
        }
    }
}

/// A policy set without the texts of its files.
#[derive(Serialize, Debug)]
pub struct PolicySummary<'a> {
    environment: &'a str,
    mode: &'a str,
    version: u64,
    files: Vec<&'a str>,
    author: &'a Option<AuthorView>,
    at: &'a Option<String>,
    seq: u64,
    narrowing: bool,
    same: Option<u64>,
    would_refuse: Option<u64>,
    would_permit: Option<u64>,
}

impl Printable for PolicySummary<'_> {
    fn name(&self) -> String {
        format!("{}/{}", self.environment, self.version)
    }
}

impl Printable for PolicySetView {
    fn name(&self) -> String {
        format!("{}/{}", self.environment, self.version)
    }
}

/// The result of changing a policy set.
#[derive(Serialize, Debug)]
pub struct PolicyChange {
    pub environment: String,
    pub mode: String,
    pub version: u64,
    pub dry_run: bool,
    pub seq: u64,
    pub hits: HitsView,
    pub beyond: u64,
    pub governs: Vec<String>,
}

impl PolicyChange {
    /// Converts the server's answer.
    pub fn of(dry_run: bool, answer: pb::SetPolicyResponse) -> Result<PolicyChange, CliError> {
        let policy = answer.policy.ok_or_else(|| CliError::ours("the server answered without the policy set"))?;
        Ok(PolicyChange {
            environment: policy.environment,
            mode: shown_word!(pb::PolicyMode, "POLICY_MODE_", policy.mode),
            version: policy.version,
            dry_run,
            seq: policy.seq,
            hits: answer.hits.into(),
            beyond: answer.beyond,
            governs: answer.governs,
        })
    }
}

impl Printable for PolicyChange {
    fn name(&self) -> String {
        format!("{}/{}", self.environment, self.version)
    }
}

/// The result of validating a policy set.
#[derive(Serialize, Debug, Default)]
pub struct PolicyValidationView {
    pub policies: Vec<String>,
    pub violations: Vec<String>,
    pub warnings: Vec<String>,
    pub governs: Vec<String>,
}

impl From<pb::ValidatePolicyResponse> for PolicyValidationView {
    fn from(v: pb::ValidatePolicyResponse) -> PolicyValidationView {
        let text = |v: pb::FieldViolation| with_key(&v.field, &v.description);
        PolicyValidationView {
            policies: v.policies,
            violations: v.violations.into_iter().map(text).collect(),
            warnings: v.warnings.into_iter().map(text).collect(),
            governs: v.governs,
        }
    }
}

impl Printable for PolicyValidationView {
    fn name(&self) -> String {
        self.policies.join("\n")
    }
}

/// The result of deciding recorded requests again.
#[derive(Serialize, Debug)]
pub struct PolicyDiffView {
    pub decisions: u64,
    pub newly_refused: u64,
    pub newly_permitted: u64,
    pub undetermined: u64,
    pub reached: Option<String>,
    pub samples: Vec<DecisionDiffView>,
}

/// A decision that would differ.
#[derive(Serialize, Debug)]
pub struct DecisionDiffView {
    pub seq: u64,
    pub at: Option<String>,
    pub caller: String,
    pub upstream: String,
    pub tool: String,
    pub scopes: Vec<String>,
    pub permitted: bool,
    pub now: String,
}

impl From<pb::DiffPolicyResponse> for PolicyDiffView {
    fn from(d: pb::DiffPolicyResponse) -> PolicyDiffView {
        let differs = |d: pb::DecisionDiff| DecisionDiffView {
            seq: d.seq,
            at: time(d.at),
            caller: d.caller,
            upstream: d.upstream,
            tool: d.tool,
            scopes: d.scopes,
            permitted: d.permitted,
            now: d.now,
        };
        PolicyDiffView {
            decisions: d.decisions,
            newly_refused: d.newly_refused,
            newly_permitted: d.newly_permitted,
            undetermined: d.undetermined,
            reached: time(d.reached),
            samples: d.samples.into_iter().map(differs).collect(),
        }
    }
}

impl Printable for PolicyDiffView {
    fn name(&self) -> String {
        self.samples.iter().map(|s| s.seq.to_string()).collect::<Vec<_>>().join("\n")
    }
}

impl Printable for DecisionDiffView {
    fn name(&self) -> String {
        self.seq.to_string()
    }
}

impl Row for DecisionDiffView {
    const COLUMNS: &'static [&'static str] = &["SEQ", "CALLER", "UPSTREAM", "SCOPES", "TOOL", "THEN", "NOW"];
    const WIDE: &'static [&'static str] = &["AT"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.seq.to_string(),
            self.caller.clone(),
            self.upstream.clone(),
            self.scopes.join(","),
            or_dash(Some(&self.tool)),
            if self.permitted { "permitted" } else { "refused" }.to_owned(),
            self.now.clone(),
            or_dash(self.at.as_deref()),
        ]
    }
}

/// The explanation of a decision.
#[derive(Serialize, Debug)]
pub struct DecisionExplanationView {
    pub outcome: String,
    pub text: String,
    pub policies: Vec<String>,
    pub approvers: Vec<String>,
    pub roles: Vec<String>,
    pub caller_environment: String,
    pub reads: Vec<String>,
    pub cacheable: bool,
    pub version: u64,
}

impl From<pb::ExplainPolicyResponse> for DecisionExplanationView {
    fn from(e: pb::ExplainPolicyResponse) -> DecisionExplanationView {
        DecisionExplanationView {
            outcome: shown_word!(pb::PolicyOutcome, "POLICY_OUTCOME_", e.outcome),
            text: e.text,
            policies: e.policies,
            approvers: e.approvers,
            roles: e.roles,
            caller_environment: e.caller_environment,
            reads: e.reads,
            cacheable: e.cacheable,
            version: e.version,
        }
    }
}

impl Printable for DecisionExplanationView {
    fn name(&self) -> String {
        self.outcome.clone()
    }
}

/// The result of a test.
#[derive(Serialize, Debug)]
pub struct PolicyTestView {
    pub test: String,
    pub line: usize,
    pub passed: bool,
    pub expected: String,
    pub outcome: String,
    pub policies: Vec<String>,
    pub problem: Option<String>,
}

impl PolicyTestView {
    /// Converts a test and its outcome.
    pub fn of(test: &PolicyTest, outcome: &SimulationOutcome) -> PolicyTestView {
        let problem = test.fails(outcome);
        PolicyTestView {
            test: test.name.clone(),
            line: test.line,
            passed: problem.is_none(),
            expected: test.expect.word().to_owned(),
            outcome: outcome.to_string(),
            policies: outcome.by().to_vec(),
            problem,
        }
    }
}

impl Printable for PolicyTestView {
    fn name(&self) -> String {
        self.test.clone()
    }
}

impl Row for PolicyTestView {
    const COLUMNS: &'static [&'static str] = &["TEST", "PASSED", "EXPECTED", "OUTCOME"];
    const WIDE: &'static [&'static str] = &["LINE", "PROBLEM"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.test.clone(),
            if self.passed { "yes" } else { "NO" }.to_owned(),
            self.expected.clone(),
            self.outcome.clone(),
            self.line.to_string(),
            or_dash(self.problem.as_deref()),
        ]
    }
}
