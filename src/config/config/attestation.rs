//! `[[attestation]]`: which jobs are admitted.

use super::oidc::{OidcIssuer, short_name};
use super::values::{LIST, once};
use mayfly_base::document::{Field, Section};
use mayfly_base::limits;
use mayfly_identity::oidc::{AttestationRule, IssuerUse, Platform};

/// One section as written.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct RuleEntry {
    /// The rule; its life is unlimited if the section sets none.
    rule: AttestationRule,
    pub(super) line: usize,
}

/// Reads the list of rules.
pub(super) fn rules(field: &Field<'_>) -> Option<Vec<RuleEntry>> {
    let entries: Vec<RuleEntry> =
        field.list(limits::ATTEST_RULES)?.iter().filter_map(|item| item.inside(|s| entry(s, item.line()))).collect();
    let same = |a: &RuleEntry, b: &RuleEntry| a.rule.name == b.rule.name && a.rule.issuer == b.rule.issuer;
    let name = |one: &RuleEntry| format!("{} of {}", one.rule.name, one.rule.issuer);
    once(field, entries, same, name, "give each a name of its own")
}

fn entry(section: &Section<'_>, line: usize) -> Option<RuleEntry> {
    let name = section.required("name").and_then(|f| short_name(&f));
    let issuer = section.required("issuer").and_then(|f| short_name(&f));
    let claims = section.required("claims").and_then(|f| claims(&f));
    let ttl = section.optional("svid_ttl");
    let ttl_ms = ttl.map_or(Some(u64::MAX), |f| f.duration(limits::LOGIN_TTL_MIN_MS, limits::LOGIN_TTL_MS));
    Some(RuleEntry { rule: AttestationRule { name: name?, issuer: issuer?, claims: claims?, ttl_ms: ttl_ms? }, line })
}

/// Reads `claims = { repository_id = "1", ref = ["refs/heads/main", "refs/tags/*"] }`.
fn claims(field: &Field<'_>) -> Option<Vec<(String, Vec<String>)>> {
    let section = field.section()?;
    let entries = section.entries();
    section.finish();
    if entries.is_empty() || entries.len() > limits::ATTEST_RULE_CLAIMS {
        return field.wrong(format!("has {} claims", entries.len()), format!("1 to {} claims", limits::ATTEST_RULE_CLAIMS));
    }
    entries.into_iter().map(|(name, field)| Some((name, values(&field)?))).collect()
}

fn values(field: &Field<'_>) -> Option<Vec<String>> {
    let one = |field: &Field<'_>| {
        let text = field.text(limits::NAME_BYTES)?;
        match text.trim_end_matches("/*").contains('*') || text == "*" {
            true => field.wrong(format!("is {text:?}"), "a value as it is, or everything below one: refs/tags/*"),
            false => Some(text),
        }
    };
    if !field.is_list() {
        return Some(vec![one(field)?]);
    }
    let items = field.list(limits::ATTEST_RULE_VALUES.min(LIST))?;
    match items.is_empty() {
        true => field.wrong("is empty", "leave the claim out, or name a value"),
        false => items.iter().map(one).collect(),
    }
}

impl RuleEntry {
    /// The rule, with its SVIDs' life limited to the longest one of this server.
    pub fn rule(&self, most_ms: u64) -> AttestationRule {
        AttestationRule { ttl_ms: self.rule.ttl_ms.min(most_ms), ..self.rule.clone() }
    }

    /// A defect of the rule and its correction, given the configured issuers.
    pub fn defect(&self, issuers: &[OidcIssuer]) -> Option<(String, String)> {
        let AttestationRule { name, issuer, claims, .. } = &self.rule;
        let Some(known) = issuers.iter().find(|i| i.issuer.name == *issuer) else {
            let names: Vec<&str> =
                issuers.iter().filter(|i| i.issuer.serves(IssuerUse::Attest)).map(|i| i.issuer.name.as_str()).collect();
            return Some((format!("{name} is for issuer {issuer}, which [[oidc_issuers]] has not"), format!("one of {names:?}")));
        };
        let Some(jobs) = &known.issuer.jobs else {
            return Some((
                format!("{name} is for issuer {issuer}, which is not configured for CI jobs or pods"),
                "uses = [\"attest\"] there".to_owned(),
            ));
        };
        let platform = jobs.platform;
        let has = |name: &str| claims.iter().any(|(claim, _)| claim == name);
        let ids: Vec<&str> = match platform {
            Platform::Other => vec![&jobs.id_claim],
            _ => platform.ids().to_vec(),
        };
        if !ids.iter().any(|id| has(id)) {
            let what = format!("{name} compares no id of {issuer}: other claims can become somebody else's, as names do");
            return Some((what, format!("compare one of {}", ids.join(", "))));
        }
        for (claim, values) in claims.iter().filter(|(claim, _)| ids.contains(&claim.as_str())) {
            let wrong = |v: &&String| v.contains('*') || (platform.numeric() && !v.bytes().all(|b| b.is_ascii_digit()));
            if let Some(value) = values.iter().find(wrong) {
                return Some((
                    format!("{name} has {claim} {value:?}"),
                    "the id itself; of GitHub and GitLab it is a number".to_owned(),
                ));
            }
        }
        let places = platform.places();
        if !places.is_empty() && !places.iter().any(|place| has(place)) {
            let what = format!("{name} does not say which branch or environment: whoever may push to any would be let in");
            return Some((what, format!("compare one of {}; \"refs/*\" is all of them", places.join(", "))));
        }
        None
    }
}
