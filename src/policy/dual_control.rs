//! Analysis for actions that need two people: who could give the approval that a policy demands of an operator, and which trust domains
//! have operators' rights.
//!
//! A policy that makes an operator's action wait for an approval is refused where nobody could give the approval, and where the action is
//! needed in an incident.

use std::collections::{BTreeMap, BTreeSet};

use cedar_policy::{Effect, Policy, PrincipalConstraint};

use super::action::{Action, OperatorAction};
use super::attribute_reads::AttributeReads;
use super::compile::applies;
use super::roles::Roles;
use super::unpermitted_actions::{of_everybody, unconditional};
use mayfly_base::document::Diagnostic;

/// The actions of an incident. They never wait for a second person, so no policy may demand an approval for them.
const INCIDENT: [OperatorAction; 2] = [OperatorAction::Revoke, OperatorAction::Lock];

/// The trust domains whose ids may act as operators, or may join and review break-glass tasks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OperatorDomains {
    /// Every domain: the head of some policy does not restrict the principal.
    All,
    /// Only these domains.
    Named(BTreeSet<String>),
}

impl OperatorDomains {
    /// Whether a trust domain is among them.
    pub fn has(&self, domain: &str) -> bool {
        match self {
            OperatorDomains::All => true,
            OperatorDomains::Named(names) => names.contains(domain),
        }
    }

    pub(super) fn of(policies: &cedar_policy::PolicySet, roles: &Roles) -> OperatorDomains {
        let mut named = BTreeSet::new();
        for policy in policies.policies().filter(|p| p.effect() == Effect::Permit && of_operators(p)) {
            match members(policy, roles) {
                None => return OperatorDomains::All,
                Some(ids) => named.extend(ids.iter().filter_map(|id| domain_of(id)).map(str::to_owned)),
            }
        }
        for rights in roles.rights().values() {
            // A person's issuer is a URL and never equals a trust domain.
            named.extend(rights.open.iter().chain(&rights.review).map(|who| who.issuer.clone()));
        }
        OperatorDomains::Named(named)
    }
}

fn domain_of(id: &str) -> Option<&str> {
    id.strip_prefix("spiffe://")?.split('/').next()
}

fn admin() -> impl Iterator<Item = (OperatorAction, Action)> {
    Action::ALL.into_iter().filter_map(|action| if let Action::Admin(admin) = action { Some((admin, action)) } else { None })
}

fn of_operators(policy: &Policy) -> bool {
    admin().any(|(_, action)| applies(policy, action))
}

/// The ids and prefixes (with `/*` appended) that a policy's head names; `None` where the head does not restrict the principal.
pub(super) fn members(policy: &Policy, roles: &Roles) -> Option<Vec<String>> {
    match policy.principal_constraint() {
        PrincipalConstraint::Any | PrincipalConstraint::Is(_) => None,
        PrincipalConstraint::Eq(uid) => Some(vec![uid.id().unescaped().to_owned()]),
        PrincipalConstraint::In(uid) | PrincipalConstraint::IsIn(_, uid) => match uid.type_name().basename() {
            "Role" => Some(roles.members(uid.id().unescaped())),
            _ => Some(vec![uid.id().unescaped().to_owned()]),
        },
    }
}

/// Whether a policy reads approvals. A policy that is not understood counts as reading none; Cedar evaluates it unchanged.
fn wants_approval(policy: &Policy) -> bool {
    policy.to_pst().is_ok_and(|tree| {
        let mut reads = AttributeReads::default();
        reads.add(tree.body());
        reads.understood() && reads.reads_approvals()
    })
}

/// The operators' actions that some policy forbids without an approval.
pub(super) fn forbidden_alone(policies: &cedar_policy::PolicySet) -> Vec<OperatorAction> {
    let wanting = |action| {
        let mut forbids = policies.policies().filter(|p| p.effect() == Effect::Forbid);
        forbids.any(|p| applies(p, action) && wants_approval(p))
    };
    admin().filter(|(_, action)| wanting(*action)).map(|(admin, _)| admin).collect()
}

/// The names in policies about operators that may be those of approvers, because `context.approvals.people` may be compared with them.
pub(super) fn people_named(policies: &cedar_policy::PolicySet) -> Vec<String> {
    let mut found = BTreeSet::new();
    for policy in policies.policies().filter(|p| of_operators(p) && wants_approval(p)) {
        if let Ok(json) = policy.to_json() {
            texts(&json, &mut found);
        }
    }
    found.into_iter().collect()
}

fn texts(value: &serde_json::Value, found: &mut BTreeSet<String>) {
    match value {
        serde_json::Value::String(text) if text.starts_with("spiffe://") || text.contains('#') => {
            found.insert(text.clone());
        }
        serde_json::Value::Array(all) => all.iter().for_each(|value| texts(value, found)),
        serde_json::Value::Object(all) => all.values().for_each(|value| texts(value, found)),
        _ => {}
    }
}

/// Complaints about policies that demand an approval of an operator although nobody could give it or an incident would wait for it.
pub(super) fn complaints(policies: &BTreeMap<String, Policy>, roles: &Roles) -> Vec<Diagnostic> {
    let mut all = Vec::new();
    let wanting: Vec<(&String, &Policy)> = policies.iter().filter(|(_, p)| of_operators(p) && wants_approval(p)).collect();
    for (id, policy) in &wanting {
        let waits: Vec<&str> =
            INCIDENT.iter().filter(|a| applies(policy, Action::Admin(**a))).map(|a| Action::Admin(*a).name()).collect();
        if !waits.is_empty() {
            let what = format!("policy `{id}` makes {} wait for an approval", waits.join(" and "));
            let remedy = "what an incident takes never waits for a second person: name the other actions in its head, like \
                          action in [Action::\"ManageKeys\", Action::\"ManageTrust\"]; of those, key compromise, holding a task and \
                          removing a root do not wait";
            all.push(Diagnostic::about("policies", what, remedy));
        }
        if applies(policy, Action::Admin(OperatorAction::ApproveChange)) {
            let what = format!("policy `{id}` makes ApproveChange wait for an approval, which nobody could give");
            all.push(Diagnostic::about(
                "policies",
                what,
                "take ApproveChange out of its head: an approval is not approved itself",
            ));
        }
    }
    let asks = wanting.iter().filter(|(_, p)| admin().any(|(a, action)| applies(p, action) && may_ask(a)));
    let asking: Vec<(&String, &Policy)> = asks.copied().collect();
    if let (Some((id, _)), Some(why)) = (asking.first(), nobody(policies, roles, &asking)) {
        let what = format!("policy `{id}` wants an approval that nobody could give: {why}");
        let remedy = "permit ApproveChange to a second operator, like permit (principal in Role::\"operator\", action == Action::\"ApproveChange\", resource);";
        all.push(Diagnostic::about("policies", what, remedy));
    }
    all
}

fn may_ask(action: OperatorAction) -> bool {
    !INCIDENT.contains(&action) && action != OperatorAction::ApproveChange
}

/// Why nobody except the asking operator could give an approval, where that is certain.
fn nobody(policies: &BTreeMap<String, Policy>, roles: &Roles, asking: &[(&String, &Policy)]) -> Option<String> {
    let approve = Action::Admin(OperatorAction::ApproveChange);
    let of = |effect: Effect, action: Action| policies.values().filter(move |p| p.effect() == effect && applies(p, action));
    // `None` where some policy does not restrict the principal: then another approver may always exist.
    let able = |action: Action| -> Option<BTreeSet<String>> {
        let mut ids = BTreeSet::new();
        for policy in of(Effect::Permit, action) {
            ids.extend(members(policy, roles)?);
        }
        Some(ids)
    };
    if of(Effect::Permit, approve).next().is_none() {
        return Some("no policy permits ApproveChange".to_owned());
    }
    let always = |p: &Policy| of_everybody(p) && unconditional(p);
    if of(Effect::Forbid, approve).any(always) {
        return Some("a policy forbids ApproveChange to everybody".to_owned());
    }
    let approvers = able(approve)?;
    let mut ids = approvers.iter();
    let (Some(only), None) = (ids.next(), ids.next()) else { return None };
    if only.ends_with("/*") {
        return None;
    }
    let alone = |action: Action| able(action).is_some_and(|ids| ids.iter().all(|id| id == only));
    let asked = admin().filter(|(admin, action)| may_ask(*admin) && asking.iter().any(|(_, p)| applies(p, *action)));
    let all_alone = asked.map(|(_, action)| alone(action)).collect::<Vec<_>>();
    (!all_alone.is_empty() && all_alone.into_iter().all(|alone| alone))
        .then(|| format!("{only} is the only one who may do ApproveChange, and nobody approves what they asked for themselves"))
}
