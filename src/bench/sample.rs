//! Fifty policies as a mid-sized organization would write them, for `mayfly bench`, benchmarks and tests.
//!
//! The policies read roles, upstream, scopes, and whether a tool is named, but not purpose, arguments digest or counts. Requests that
//! differ in purpose, tool and arguments therefore share a verdict.

use std::sync::Arc;

use mayfly_base::document::SourceFile;
use mayfly_identity::spiffe_id::{IdDefect, SpiffeId};
use mayfly_ledger::upstream::registry::{
    Alg, BlastRadius, Classification, Kind, Privilege, ProofOfPossession, RegisteredScope, Ttl, Upstream,
};
use mayfly_verify::seq::Millis;

/// The teams, each with its own upstream.
pub const TEAMS: [&str; 12] =
    ["billing", "search", "mail", "docs", "tickets", "builds", "deploys", "metrics", "people", "legal", "sales", "support"];
/// The trust domain of the sample's workloads.
pub const TRUST_DOMAIN: &str = "bench.mayfly.internal";
/// The environment of everything in the sample.
pub const ENVIRONMENT: &str = "bench";

/// Fifty policies in one file, and the matching roles file.
pub fn fifty() -> (Vec<SourceFile>, SourceFile) {
    some(50)
}

/// `policies` policies of the same form, and the matching roles file. Each further team adds the same four policies; the last team gets as
/// many as remain.
pub fn some(policies: usize) -> (Vec<SourceFile>, SourceFile) {
    let mut cedar = String::from(GENERAL);
    let mut roles = format!(
        "[role.agents]\nunder = [\"spiffe://{TRUST_DOMAIN}/agent\"]\n\
         [role.services]\nunder = [\"spiffe://{TRUST_DOMAIN}/service\"]\n\
         [environment.{ENVIRONMENT}]\nunder = [\"spiffe://{TRUST_DOMAIN}\"]\n"
    );
    let (mut left, own) = (policies.saturating_sub(policies_of(GENERAL).count()), policies_of(TEAM).count());
    for team in teams(policies) {
        for policy in policies_of(TEAM).take(left) {
            cedar.push_str(&policy.replace("TEAM", &team));
        }
        left = left.saturating_sub(own);
        roles.push_str(&format!("[role.{team}]\nunder = [\"spiffe://{TRUST_DOMAIN}/agent/{team}\"]\n"));
        roles.push_str(&format!("[role.{team}-leads]\nids = [\"spiffe://{TRUST_DOMAIN}/agent/{team}/lead\"]\n"));
    }
    (vec![SourceFile::new("bench.cedar", cedar)], SourceFile::new("bench-roles.toml", roles))
}

/// The teams that so many policies are about: those of [`TEAMS`], and generated names beyond them.
pub fn teams(policies: usize) -> Vec<String> {
    let count = policies.saturating_sub(policies_of(GENERAL).count()).div_ceil(policies_of(TEAM).count());
    let named = TEAMS.iter().map(|team| (*team).to_owned());
    named.chain((TEAMS.len()..count).map(|n| format!("team-{n}"))).collect()
}

/// Splits a text into its policies. Each policy begins at its `@id`.
fn policies_of(text: &str) -> impl Iterator<Item = &str> {
    text.split_inclusive(";\n")
}

/// The SPIFFE ID of an agent of a team as `fifty` names it. `number` distinguishes the agents of a team.
pub fn agent(team: &str, number: usize) -> Result<SpiffeId, IdDefect> {
    SpiffeId::parse(&format!("spiffe://{TRUST_DOMAIN}/agent/{team}/{number}"))
}

/// A team's upstream, with the scopes `read`, `list`, `write` and the sensitive scope `admin`, and the kinds `jwt` and `reference`.
pub fn upstream(team: &str) -> Result<Upstream, IdDefect> {
    let scope = |name: &str| RegisteredScope { name: name.to_owned(), sensitive: name == "admin" };
    Ok(Upstream {
        name: format!("{team}-api"),
        owner: team.to_owned(),
        purpose: format!("the {team} service"),
        environment: ENVIRONMENT.to_owned(),
        classification: Classification {
            system: team.to_owned(),
            privilege: Privilege::Write,
            blast_radius: BlastRadius::Medium,
        },
        audience: format!("https://{team}.bench.mayfly.internal"),
        target: format!("https://{team}.bench.mayfly.internal"),
        servers: vec![SpiffeId::parse(&format!("spiffe://{TRUST_DOMAIN}/service/{team}"))?],
        approvers: Vec::new(),
        kinds: vec![Kind::Jwt, Kind::Reference],
        scopes: ["read", "list", "write", "admin"].map(scope).into(),
        ttl: Ttl { min: 60, default: 300, max: 3600 },
        // 2100-01-01: far later than any run.
        expires: Millis(4_102_444_800_000),
        alg: Alg::Es256,
        proof_of_possession: ProofOfPossession::None,
        rotation: None,
        settings: Arc::default(),
    })
}

const GENERAL: &str = r#"
@id("no-sensitive-scope-without-a-tool")
forbid (principal, action == Action::"Exchange", resource) when { context.sensitive } unless { context has tool };

@id("services-introspect")
permit (principal in Role::"services", action == Action::"Introspect", resource in Environment::"bench");
"#;

const TEAM: &str = r#"
@id("TEAM-reads")
permit (principal in Role::"TEAM", action in Action::"Work", resource == Upstream::"TEAM-api")
when { ["read", "list"].containsAll(context.scopes) };

@id("TEAM-writes-with-a-tool")
permit (principal in Role::"TEAM", action in Action::"Work", resource == Upstream::"TEAM-api")
when { context.scopes.contains("write") && context has tool && !context.scopes.contains("admin") };

@id("agents-list-TEAM")
permit (principal in Role::"agents", action in Action::"Work", resource)
when { resource.owner == "TEAM" && context.scopes == ["list"] };

@id("TEAM-admin-is-for-leads")
forbid (principal, action in Action::"Work", resource == Upstream::"TEAM-api")
when { context.scopes.contains("admin") }
unless { principal in Role::"TEAM-leads" };
"#;
