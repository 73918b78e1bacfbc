//! Determines what a registration grants beyond another one. This is the only place that decides it.
//!
//! A change that is not wider takes effect at once. A wider change needs a second operator, like a wider binding. The registration is
//! destructured field by field, so that a new field does not compile until this module decides what makes it wider.

use super::registry::{Classification, ProofOfPossession, RegisteredScope, Ttl, Upstream};

/// The permissions that `new` grants beyond `old`, as texts that name the fields; empty where `new` is not wider.
///
/// `read` says whether the environment's policy reads an attribute of the upstream, such as `resource.owner`. Only policy knows the effect
/// of a descriptive attribute, so any change of an attribute that policy reads counts as wider.
pub fn widened(old: &Upstream, new: &Upstream, read: impl Fn(&str) -> bool) -> Vec<String> {
    let Upstream {
        name,
        owner,
        purpose,
        environment,
        classification: Classification { system, privilege, blast_radius },
        audience,
        target,
        servers,
        approvers,
        kinds,
        scopes,
        ttl: Ttl { min, default, max },
        expires,
        alg,
        proof_of_possession,
        rotation,
        settings,
    } = new;
    let before = &old.classification;
    let mut wider = Vec::new();
    let mut also = |is: bool, what: &str| {
        if is {
            wider.push(what.to_owned());
        }
    };
    also(*name != old.name, "name");
    also(*owner != old.owner && read("resource.owner"), "owner, which policy reads");
    also(*purpose != old.purpose && read("resource.purpose"), "purpose, which policy reads");
    also(*environment != old.environment, "environment");
    also(*system != before.system && read("resource.system"), "classification.system, which policy reads");
    also(*privilege != before.privilege && read("resource.privilege"), "classification.privilege, which policy reads");
    also(
        *blast_radius != before.blast_radius && read("resource.blast_radius"),
        "classification.blast_radius, which policy reads",
    );
    also(*audience != old.audience, "audience");
    also(*target != old.target, "target");
    also(*max > old.ttl.max, "ttl.max");
    also(*default > old.ttl.default, "ttl.default");
    also(*min > old.ttl.min, "ttl.min");
    also(*expires > old.expires, "expires");
    also(*alg != old.alg, "alg");
    let bound = |of: &ProofOfPossession| *of != ProofOfPossession::None;
    also(proof_of_possession != &old.proof_of_possession && bound(&old.proof_of_possession), "proof_of_possession");
    also(rotation != &old.rotation && rotation.is_none_or(|s| old.rotation.is_some_and(|before| s > before)), "rotation");
    let sections = settings.iter().map(|(kind, _)| kind);
    let wider_sections = sections.filter(|kind| !old.settings.section_contains(kind, settings));
    wider.extend(wider_sections.map(|kind| format!("section [{kind}]")));
    wider.extend(kinds.iter().filter(|kind| !old.kinds.contains(kind)).map(|kind| format!("kind {kind}")));
    wider.extend(servers.iter().filter(|id| !old.servers.contains(id)).map(|id| format!("server {id}")));
    wider.extend(approvers.iter().filter(|one| !old.approvers.contains(one)).map(|one| format!("approver {}", one.name())));
    for RegisteredScope { name, sensitive } in scopes {
        match old.scope(name) {
            None => wider.push(format!("scope {name}")),
            Some(before) if before.sensitive && !sensitive => wider.push(format!("scope {name}, no longer sensitive")),
            Some(_) => {}
        }
    }
    wider
}

/// Why a new registration needs a second operator: its target or audience belonged to another registration that was retired. Otherwise an
/// operator who may not widen a registration could retire it and register its target anew.
pub fn takeover_reason(new: &Upstream, had_before: impl Fn(&str, &str) -> bool) -> Option<String> {
    had_before(&new.audience, &new.target).then(|| "audience or target of a registration that was retired".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::settings::KindSettings;
    use std::sync::Arc;

    use crate::upstream::registry::{Alg, Approver, BlastRadius, Kind, Privilege};
    use mayfly_identity::spiffe_id::SpiffeId;
    use mayfly_verify::seq::Millis;

    fn section(grants: &[&str]) -> Arc<KindSettings> {
        let mut settings = KindSettings::default();
        settings.insert(Kind::Postgres, serde_json::json!({ "grants": grants }));
        Arc::new(settings)
    }

    fn upstream() -> Upstream {
        let id = |id: &str| SpiffeId::parse(id).unwrap();
        Upstream {
            name: "warehouse".into(),
            owner: "data".into(),
            purpose: "orders".into(),
            environment: "prod".into(),
            classification: Classification {
                system: "warehouse".into(),
                privilege: Privilege::Write,
                blast_radius: BlastRadius::High,
            },
            audience: "https://warehouse.example.org".into(),
            target: "https://warehouse.example.org".into(),
            servers: vec![id("spiffe://td/warehouse")],
            approvers: vec![Approver::SpiffeId(id("spiffe://td/ada")), Approver::SpiffeId(id("spiffe://td/grace"))],
            kinds: vec![Kind::Jwt, Kind::Reference],
            scopes: vec![
                RegisteredScope { name: "read".into(), sensitive: false },
                RegisteredScope { name: "export".into(), sensitive: true },
            ],
            ttl: Ttl { min: 60, default: 300, max: 900 },
            expires: Millis(1_900_000_000_000),
            alg: Alg::Es256,
            proof_of_possession: ProofOfPossession::X5t,
            rotation: Some(3600),
            settings: section(&["a", "b"]),
        }
    }

    /// Each change is wider in one direction and not in the other.
    #[test]
    fn each_field_widens_in_its_own_direction_only() {
        type Change = fn(&mut Upstream);
        let narrower: &[(&str, Change)] = &[
            ("kind", |u| u.kinds.truncate(1)),
            ("server", |u| u.servers.clear()),
            ("approver", |u| drop(u.approvers.pop())),
            ("scope export", |u| drop(u.scopes.pop())),
            ("no longer sensitive", |u| u.scopes[0].sensitive = true),
            ("ttl.max", |u| u.ttl.max -= 1),
            ("ttl.default", |u| u.ttl.default -= 1),
            ("ttl.min", |u| u.ttl.min -= 1),
            ("expires", |u| u.expires = Millis(u.expires.0 - 1)),
            ("rotation", |u| u.rotation = Some(60)),
            ("section [postgres]", |u| u.settings = section(&["a"])),
        ];
        let whole = upstream();
        let nothing_read = |_: &str| false;
        assert!(widened(&whole, &whole, |_| true).is_empty());
        for (what, change) in narrower {
            let mut less = upstream();
            change(&mut less);
            assert!(widened(&whole, &less, |_| true).is_empty(), "{what}: narrower is not wider");
            let wider = widened(&less, &whole, nothing_read);
            assert!(wider.len() == 1 && wider[0].contains(what), "{what}: {wider:?}");
        }
    }

    #[test]
    fn what_makes_other_credentials_is_wider_either_way_and_what_only_policy_reads_where_it_reads_it() {
        type Change = fn(&mut Upstream);
        let other: &[Change] = &[
            |u| u.name = "other".into(),
            |u| u.environment = "stage".into(),
            |u| u.audience = "https://other.example.org".into(),
            |u| u.target = "https://other.example.org".into(),
            |u| u.alg = Alg::Rs256,
            |u| u.proof_of_possession = ProofOfPossession::None,
            |u| u.rotation = None,
        ];
        for change in other {
            let mut new = upstream();
            change(&mut new);
            assert_eq!(widened(&upstream(), &new, |_| false).len(), 1);
        }
        let mut bound = upstream();
        bound.proof_of_possession = ProofOfPossession::None;
        assert!(widened(&bound, &upstream(), |_| true).is_empty(), "bound to a key is narrower");
        let read: &[(&str, Change)] = &[
            ("resource.owner", |u| u.owner = "others".into()),
            ("resource.purpose", |u| u.purpose = "other".into()),
            ("resource.system", |u| u.classification.system = "other".into()),
            ("resource.privilege", |u| u.classification.privilege = Privilege::Read),
            ("resource.blast_radius", |u| u.classification.blast_radius = BlastRadius::Low),
        ];
        for (path, change) in read {
            let mut new = upstream();
            change(&mut new);
            assert!(widened(&upstream(), &new, |_| false).is_empty(), "{path} is read by nobody");
            assert_eq!(widened(&upstream(), &new, |read| read == *path).len(), 1, "{path}");
        }
    }

    #[test]
    fn a_new_one_takes_two_where_it_takes_over_a_target() {
        assert_eq!(takeover_reason(&upstream(), |_, _| false), None);
        assert!(takeover_reason(&upstream(), |audience, target| audience == target).is_some());
    }
}
