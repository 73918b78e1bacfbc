//! Findings about a registration that an auditor would raise. Pure.

use super::registry::{BlastRadius, Privilege, ProofOfPossession, Upstream};
use mayfly_base::limits;
use mayfly_verify::seq::Millis;

/// The kind of a finding.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FindingKind {
    /// The registration expires soon.
    Expiring,
    /// The registration has expired.
    Overdue,
    /// The registration's owner has left.
    Ownerless,
    /// The registration has not been used for a long time.
    Unused,
    /// The registration grants more than most tasks need.
    Broad,
    /// Somebody has to sign in at the upstream's authorization server.
    SignIn,
}

/// One finding.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UpstreamFinding {
    /// The kind of the finding.
    pub problem: FindingKind,
    /// A description with a remedy.
    pub text: String,
    /// Since when the problem exists, or when it will begin.
    pub at: Option<Millis>,
}

/// Facts about a registration that are not in its text.
#[derive(Clone, Copy, Default, Debug)]
pub struct RegistrationFacts {
    /// When this version took effect.
    pub since: Millis,
    /// When the owner left.
    pub owner_left: Option<Millis>,
    /// Number of live credentials.
    pub live: u64,
    /// When the last credential ended.
    pub last_used: Option<Millis>,
    /// Somebody has to sign in: again since this time, or for the first time if it is 0.
    pub sign_in: Option<Millis>,
}

/// All findings about a registration that is not retired.
pub fn findings(upstream: &Upstream, known: &RegistrationFacts, now: Millis) -> Vec<UpstreamFinding> {
    let mut found = Vec::new();
    let mut say = |problem, text: String, at| found.push(UpstreamFinding { problem, text, at });
    let (name, owner) = (&upstream.name, &upstream.owner);
    if upstream.expires <= now {
        let text = format!("nothing is issued: it ended; {owner} renews it: mayfly upstream change FILE");
        say(FindingKind::Overdue, text, Some(upstream.expires));
    } else if upstream.expires < now.plus(limits::REGISTRATION_WARN_MS) {
        let text = format!("nothing will be issued from then on; {owner} renews it: mayfly upstream change FILE");
        say(FindingKind::Expiring, text, Some(upstream.expires));
    }
    if let Some(left) = known.owner_left {
        let text = format!("nothing is issued: {owner} has left; whoever takes over says so: mayfly upstream change FILE");
        say(FindingKind::Ownerless, text, Some(left));
    }
    if let Some(since) = known.sign_in {
        let why = if since > Millis(0) { "the authorization server ended the grant" } else { "nobody is signed in" };
        say(
            FindingKind::SignIn,
            format!("nothing is issued: {why}; {owner} signs in: mayfly upstream connect {name}"),
            Some(since).filter(|at| at.0 > 0),
        );
    }
    let used = known.last_used.unwrap_or_default().max(known.since);
    if known.live == 0 && now.since(used) >= limits::UNUSED_AFTER_MS {
        let text =
            format!("no credential of it was live since then; if nobody needs it: mayfly upstream retire {name} --reason TEXT");
        say(FindingKind::Unused, text, Some(used));
    }
    for text in breadth(upstream) {
        say(FindingKind::Broad, text, None);
    }
    found
}

/// Grants beyond what most tasks need.
fn breadth(upstream: &Upstream) -> Vec<String> {
    let c = &upstream.classification;
    let dangerous = c.privilege == Privilege::Admin || c.blast_radius == BlastRadius::High;
    let mut found = Vec::new();
    if dangerous && upstream.approvers.is_empty() {
        found.push(format!(
            "privilege {}, blast radius {}, and nobody is named who could approve: name approvers",
            c.privilege, c.blast_radius
        ));
    }
    if dangerous && !upstream.scopes.iter().any(|s| s.sensitive) {
        found.push(format!(
            "privilege {}, blast radius {}, and no scope is sensitive: mark those that do harm",
            c.privilege, c.blast_radius
        ));
    }
    if dangerous && upstream.ttl.max * 1000 > limits::BROAD_TTL_MS {
        let most = limits::BROAD_TTL_MS / 60_000;
        found.push(format!(
            "privilege {}, blast radius {}, and credentials live up to {} s: {most} m are enough for a task",
            c.privilege, c.blast_radius, upstream.ttl.max
        ));
    }
    if c.privilege == Privilege::Admin && upstream.proof_of_possession == ProofOfPossession::None {
        found.push("privilege admin, and whoever holds a credential can use it: bind it to the caller's certificate".to_owned());
    }
    for scope in upstream
        .scopes
        .iter()
        .filter(|s| s.name.contains('*') || matches!(&*s.name.to_ascii_lowercase(), "all" | "admin" | "root"))
    {
        found.push(format!("scope {} stands for more than one right: register those that are needed", scope.name));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::file;
    use mayfly_base::document::SourceFile;

    const NOW: Millis = Millis(1_800_000_000_000);
    const DAY: u64 = 86_400_000;

    fn upstream(change: impl Fn(&mut Upstream)) -> Upstream {
        let text = include_str!("../../cli/samples/upstreams/repos.toml");
        let mut upstream = file::parse(&SourceFile::new("repos.toml", text), &[]).unwrap();
        change(&mut upstream);
        upstream
    }

    fn problems(upstream: &Upstream, known: RegistrationFacts) -> Vec<FindingKind> {
        findings(upstream, &known, NOW).into_iter().map(|f| f.problem).collect()
    }

    fn used() -> RegistrationFacts {
        RegistrationFacts { live: 1, ..RegistrationFacts::default() }
    }

    #[test]
    fn a_registration_that_is_used_and_narrow_has_nothing_to_say() {
        assert_eq!(problems(&upstream(|_| {}), used()), []);
    }

    #[test]
    fn it_warns_from_fourteen_days_before_its_end_and_is_overdue_from_then_on() {
        let ends = |ms: u64| upstream(move |u| u.expires = Millis(ms));
        assert_eq!(problems(&ends(NOW.0 + 14 * DAY), used()), []);
        assert_eq!(problems(&ends(NOW.0 + 14 * DAY - 1), used()), [FindingKind::Expiring]);
        assert_eq!(problems(&ends(NOW.0 + 1), used()), [FindingKind::Expiring]);
        assert_eq!(problems(&ends(NOW.0), used()), [FindingKind::Overdue]);
    }

    #[test]
    fn an_owner_who_left_and_thirty_idle_days_are_told() {
        let known = |ago: u64| RegistrationFacts {
            since: Millis(NOW.0 - 90 * DAY),
            last_used: Some(Millis(NOW.0 - ago)),
            ..RegistrationFacts::default()
        };
        assert_eq!(problems(&upstream(|_| {}), known(30 * DAY - 1)), []);
        assert_eq!(problems(&upstream(|_| {}), known(30 * DAY)), [FindingKind::Unused]);
        let fresh = RegistrationFacts { since: Millis(NOW.0 - DAY), ..RegistrationFacts::default() };
        assert_eq!(problems(&upstream(|_| {}), fresh), [], "it is new");
        let left = RegistrationFacts { owner_left: Some(NOW), ..used() };
        assert_eq!(problems(&upstream(|_| {}), left), [FindingKind::Ownerless]);
    }

    #[test]
    fn what_does_harm_is_to_be_short_bound_and_approved() {
        let admin = upstream(|u| u.classification.privilege = Privilege::Admin);
        assert_eq!(problems(&admin, used()), [FindingKind::Broad], "not bound to a key");
        let bare = upstream(|u| {
            u.classification.blast_radius = BlastRadius::High;
            u.approvers.clear();
            u.scopes.iter_mut().for_each(|s| s.sensitive = false);
            u.ttl.max = 3600;
        });
        assert_eq!(problems(&bare, used()), [FindingKind::Broad; 3]);
        let star = upstream(|u| u.scopes[0].name = "repo:*".into());
        assert_eq!(problems(&star, used()), [FindingKind::Broad]);
    }
}
