//! JSON and table forms of upstreams.

use serde::Serialize;

use super::{AuthorView, HitsView, ms, or_dash, shown_word, time};
use crate::error::CliError;
use crate::out::{Printable, Row};
use mayfly_proto::mayfly::v1 as pb;

/// An upstream, as `upstream show` and `upstream list` print it.
#[derive(Serialize, Debug)]
pub struct UpstreamView {
    pub upstream: String,
    pub state: String,
    pub environment: String,
    pub version: u64,
    pub owner: String,
    pub purpose: String,
    pub system: String,
    pub privilege: String,
    pub blast_radius: String,
    pub audience: String,
    pub base_url: String,
    pub kinds: Vec<String>,
    pub scopes: Vec<String>,
    pub sensitive_scopes: Vec<String>,
    pub servers: Vec<String>,
    pub approvers: Vec<String>,
    pub min_ttl_ms: Option<i64>,
    pub default_ttl_ms: Option<i64>,
    pub max_ttl_ms: Option<i64>,
    pub expires_at: Option<String>,
    pub key_bound: bool,
    pub algorithm: String,
    pub author: Option<AuthorView>,
    pub at: Option<String>,
    pub seq: u64,
    pub live_credentials: u64,
    pub last_used_at: Option<String>,
    pub findings: Vec<RegistrationFindingView>,
}

/// A problem of a registration, as the reports list it.
#[derive(Serialize, Debug)]
pub struct RegistrationFindingView {
    pub problem: String,
    pub text: String,
    pub at: Option<String>,
}

impl From<pb::Upstream> for UpstreamView {
    fn from(u: pb::Upstream) -> UpstreamView {
        let sensitive = u.scopes.iter().filter(|s| s.sensitive).map(|s| s.scope.clone()).collect();
        let c = u.classification.unwrap_or_default();
        let finding = |f: pb::RegistrationFinding| RegistrationFindingView {
            problem: shown_word!(pb::RegistrationProblem, "REGISTRATION_PROBLEM_", f.problem),
            text: f.text,
            at: time(f.at),
        };
        UpstreamView {
            upstream: u.upstream,
            state: shown_word!(pb::RegistrationState, "REGISTRATION_STATE_", u.state),
            environment: u.environment,
            version: u.version,
            owner: u.owner,
            purpose: u.purpose,
            system: c.system,
            privilege: shown_word!(pb::Privilege, "PRIVILEGE_", c.privilege),
            blast_radius: shown_word!(pb::BlastRadius, "BLAST_RADIUS_", c.blast_radius),
            audience: u.audience,
            base_url: u.base_url,
            kinds: u.kinds.into_iter().map(super::credential::kind).collect(),
            scopes: u.scopes.into_iter().map(|s| s.scope).collect(),
            sensitive_scopes: sensitive,
            servers: u.servers,
            approvers: u.approvers.into_iter().map(approver).collect(),
            min_ttl_ms: ms(u.min_ttl),
            default_ttl_ms: ms(u.default_ttl),
            max_ttl_ms: ms(u.max_ttl),
            expires_at: time(u.expires_at),
            key_bound: u.key_bound,
            algorithm: u.algorithm,
            author: AuthorView::of(u.author),
            at: time(u.at),
            seq: u.seq,
            live_credentials: u.live_credentials,
            last_used_at: time(u.last_used_at),
            findings: u.findings.into_iter().map(finding).collect(),
        }
    }
}

/// An approver, as a table cell.
pub fn approver(approver: pb::Approver) -> String {
    match approver.who {
        Some(pb::approver::Who::SpiffeId(id)) => id,
        Some(pb::approver::Who::Person(p)) => format!("{} ({})", p.sub, p.issuer),
        None => String::new(),
    }
}

/// The differences between two versions, line by line.
pub fn differences(old: Option<pb::Upstream>, new: pb::Upstream) -> Result<String, CliError> {
    let text = |u: pb::Upstream| serde_json::to_string_pretty(&UpstreamView::from(u)).map_err(CliError::ours);
    // Time, author and use are not part of what is compared.
    let bare = |u: pb::Upstream| pb::Upstream {
        at: None,
        author: None,
        seq: 0,
        version: 0,
        live_credentials: 0,
        last_used_at: None,
        findings: Vec::new(),
        ..u
    };
    let (old, new) = (old.map(|u| text(bare(u))).transpose()?.unwrap_or_default(), text(bare(new))?);
    Ok(similar::TextDiff::from_lines(&old, &new).unified_diff().context_radius(2).header("in force", "asked for").to_string())
}

impl Printable for UpstreamView {
    fn name(&self) -> String {
        self.upstream.clone()
    }
}

impl Row for UpstreamView {
    const COLUMNS: &'static [&'static str] = &["UPSTREAM", "STATE", "ENVIRONMENT", "KINDS", "SCOPES", "OWNER", "FINDINGS"];
    const WIDE: &'static [&'static str] = &[
        "PURPOSE",
        "AUDIENCE",
        "BASE URL",
        "SYSTEM",
        "PRIVILEGE",
        "BLAST RADIUS",
        "SERVERS",
        "APPROVERS",
        "MAX TTL MS",
        "EXPIRES",
        "UNEXPIRED",
        "LAST USED",
        "VERSION",
        "SEQ",
    ];

    fn cells(&self) -> Vec<String> {
        let mut problems: Vec<&str> = self.findings.iter().map(|f| f.problem.as_str()).collect();
        problems.dedup();
        vec![
            self.upstream.clone(),
            self.state.clone(),
            self.environment.clone(),
            self.kinds.join(","),
            self.scopes.join(","),
            self.owner.clone(),
            or_dash(Some(problems.join(",")).as_deref()),
            self.purpose.clone(),
            self.audience.clone(),
            self.base_url.clone(),
            self.system.clone(),
            self.privilege.clone(),
            self.blast_radius.clone(),
            self.servers.join(","),
            or_dash(Some(self.approvers.join(",")).as_deref()),
            or_dash(self.max_ttl_ms.map(|ms| ms.to_string()).as_deref()),
            or_dash(self.expires_at.as_deref()),
            self.live_credentials.to_string(),
            or_dash(self.last_used_at.as_deref()),
            self.version.to_string(),
            self.seq.to_string(),
        ]
    }
}

/// The result of changing a registration.
#[derive(Serialize, Debug)]
pub struct RegistrationChangeView {
    pub dry_run: bool,
    pub hits: HitsView,
    /// The number of revoked credentials that the new version would still permit.
    pub beyond: u64,
    #[serde(flatten)]
    pub upstream: UpstreamView,
}

impl RegistrationChangeView {
    /// Converts the server's answer.
    pub fn of(
        dry_run: bool,
        upstream: Option<pb::Upstream>,
        hits: Option<pb::Hits>,
        beyond: u64,
    ) -> Result<RegistrationChangeView, CliError> {
        let upstream = upstream.ok_or_else(|| CliError::ours("the server answered without the upstream"))?;
        Ok(RegistrationChangeView { dry_run, hits: hits.into(), beyond, upstream: upstream.into() })
    }
}

impl Printable for RegistrationChangeView {
    fn name(&self) -> String {
        self.upstream.name()
    }
}

/// The result of recording that an owner left or is back.
#[derive(Serialize, Debug)]
pub struct OwnerChangeView {
    pub owner: String,
    pub left: bool,
    pub dry_run: bool,
    pub seq: Option<u64>,
    pub upstreams: Vec<String>,
    pub hits: HitsView,
}

impl Printable for OwnerChangeView {
    fn name(&self) -> String {
        self.owner.clone()
    }
}

/// One finding of a report.
#[derive(Serialize, Debug)]
pub struct ReportFindingView {
    pub upstream: String,
    pub environment: String,
    pub owner: String,
    pub state: String,
    pub problem: String,
    pub at: Option<String>,
    pub text: String,
}

impl ReportFindingView {
    /// The findings for an upstream.
    pub fn of(upstream: &UpstreamView, problem: pb::RegistrationProblem) -> Vec<ReportFindingView> {
        let word = shown_word!(pb::RegistrationProblem, "REGISTRATION_PROBLEM_", problem.into());
        let found = upstream.findings.iter().filter(|f| f.problem == word);
        let row = |f: &RegistrationFindingView| ReportFindingView {
            upstream: upstream.upstream.clone(),
            environment: upstream.environment.clone(),
            owner: upstream.owner.clone(),
            state: upstream.state.clone(),
            problem: f.problem.clone(),
            at: f.at.clone(),
            text: f.text.clone(),
        };
        found.map(row).collect()
    }
}

impl Printable for ReportFindingView {
    fn name(&self) -> String {
        self.upstream.clone()
    }
}

impl Row for ReportFindingView {
    const COLUMNS: &'static [&'static str] = &["UPSTREAM", "ENVIRONMENT", "OWNER", "AT", "FINDING"];
    const WIDE: &'static [&'static str] = &["STATE"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.upstream.clone(),
            self.environment.clone(),
            self.owner.clone(),
            or_dash(self.at.as_deref()),
            self.text.clone(),
            self.state.clone(),
        ]
    }
}
