//! The governing part of a policy set: who may operate and approve, which actions need a second person, and the break-glass rights.
//! Changing the governing part always takes two people, whatever policy says: otherwise one person could first remove
//! the requirement.

use std::collections::{BTreeMap, BTreeSet};

use cedar_policy::{Effect, EntityUid, Policy, PolicySet};

use super::action::Action;
use super::attribute_reads::AttributeReads;
use super::compile::applies;
use super::roles::Roles;

/// The governing part of a policy set.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct GovernanceRules {
    /// Policies that can apply to operators or approvers, or that read approvals, by id. The values are Cedar's JSON, so a changed comment
    /// is no difference.
    policies: BTreeMap<String, String>,
    /// The members of each role that those policies name.
    roles: BTreeMap<String, Vec<String>>,
    /// The members of each environment, if one of those policies reads the environment of a caller.
    environments: BTreeMap<String, Vec<String>>,
    /// The break-glass rights, by name.
    rights: BTreeMap<String, String>,
}

impl GovernanceRules {
    pub(super) fn of(policies: &PolicySet, roles: &Roles) -> GovernanceRules {
        let mut own = GovernanceRules::default();
        let (mut named, mut reads) = (BTreeSet::new(), AttributeReads::default());
        for policy in policies.policies().filter(|p| governs(p)) {
            match policy.to_pst() {
                Ok(tree) => reads.add(tree.body()),
                Err(_) => reads = AttributeReads::of_everything(),
            }
            // A policy that cannot be written as JSON is compared by its text.
            let text = policy.to_json().map_or_else(|_| policy.to_string(), |json| json.to_string());
            own.policies.insert(policy.id().to_string(), text);
            let of_roles = |uid: &EntityUid| uid.type_name().basename() == "Role";
            named.extend(policy.entity_literals().into_iter().filter(of_roles).map(|uid| uid.id().unescaped().to_owned()));
        }
        own.rights = roles.rights().iter().map(|(name, rights)| (name.clone(), rights.text())).collect();
        if !reads.understood() {
            named.extend(roles.names().iter().cloned());
        }
        if reads.may_read("principal.environment") {
            let members = |name: &String| (name.clone(), roles.members_of_environment(name));
            own.environments = roles.environments().iter().map(members).collect();
        }
        own.roles = named.into_iter().map(|role| (role.clone(), roles.members(&role))).collect();
        own
    }

    /// The names of the policies, roles, environments and break-glass rights that differ.
    pub fn differences(&self, other: &GovernanceRules) -> Vec<String> {
        let policies = differing(&self.policies, &other.policies).map(|id| format!("policy {id}"));
        let roles = differing(&self.roles, &other.roles).map(|role| format!("role {role}"));
        let rights = differing(&self.rights, &other.rights).map(|name| format!("break-glass {name}"));
        let environments = differing(&self.environments, &other.environments).map(|name| format!("environment {name}"));
        policies.chain(roles).chain(environments).chain(rights).collect()
    }
}

/// The principals named by policies that permit an operator's action: members of roles (prefixes with `/*` appended) and workloads by
/// SPIFFE ID.
pub(super) fn operators(policies: &PolicySet, roles: &Roles) -> Vec<String> {
    let admin = |policy: &&Policy| {
        let mut actions = Action::ALL.iter().filter(|a| matches!(a, Action::Admin(_)));
        policy.effect() == Effect::Permit && actions.any(|action| applies(policy, *action))
    };
    let mut named = BTreeSet::new();
    for uid in policies.policies().filter(admin).flat_map(|policy| policy.entity_literals()) {
        match uid.type_name().basename() {
            "Role" => named.extend(roles.members(uid.id().unescaped())),
            "Workload" => drop(named.insert(uid.id().unescaped().to_owned())),
            _ => {}
        }
    }
    named.into_iter().collect()
}

fn differing<'a, T: PartialEq>(a: &'a BTreeMap<String, T>, b: &'a BTreeMap<String, T>) -> impl Iterator<Item = &'a String> {
    let names: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
    names.into_iter().filter(|name| a.get(*name) != b.get(*name))
}

fn governs(policy: &Policy) -> bool {
    let mut governed = Action::ALL.iter().filter(|a| matches!(a, Action::Admin(_) | Action::Approve | Action::SignIn));
    governed.any(|action| applies(policy, *action)) || asks_for_approvals(policy)
}

fn asks_for_approvals(policy: &Policy) -> bool {
    policy.to_pst().map_or(true, |tree| {
        let mut reads = AttributeReads::default();
        reads.add(tree.body());
        reads.reads_approvals()
    })
}
