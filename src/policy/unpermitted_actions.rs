//! Analysis: the operators' actions without which an environment can be neither defended nor changed, and which a policy set permits to
//! nobody.
//!
//! Only what is certain is reported: a condition (`when`, `unless`) of a permit counts as one that may be fulfilled, and of a forbid as one
//! that may not be.

use std::fmt::Write as _;

use cedar_policy::{Effect, Policy, PolicySet, PrincipalConstraint, ResourceConstraint};

use super::action::{Action, OperatorAction};
use super::compile::applies;
use super::dual_control::members;
use super::roles::Roles;
use super::set::within;
use mayfly_base::document::Diagnostic;

/// The actions that somebody must be permitted in each environment: without the first no change of policy can give back the others.
const NEEDED: [OperatorAction; 3] = [OperatorAction::ManagePolicy, OperatorAction::Revoke, OperatorAction::Lock];

/// The needed actions that the policies permit to nobody.
pub(super) fn nobody_may(policies: &PolicySet, roles: &Roles) -> Vec<OperatorAction> {
    NEEDED.into_iter().filter(|admin| permitted_to_nobody(policies, roles, Action::Admin(*admin))).collect()
}

fn permitted_to_nobody(policies: &PolicySet, roles: &Roles, action: Action) -> bool {
    let of = |effect| policies.policies().filter(move |p| p.effect() == effect && applies(p, action) && of_the_server(p));
    let forbidden: Vec<Option<Vec<String>>> =
        of(Effect::Forbid).filter(|p| unconditional(p)).map(|p| members(p, roles)).collect();
    if forbidden.iter().any(Option::is_none) {
        return true;
    }
    let forbidden: Vec<&String> = forbidden.iter().flatten().flatten().collect();
    let may = |id: &String| !forbidden.iter().any(|head| covers(head, id));
    !of(Effect::Permit).any(|p| members(p, roles).is_none_or(|ids| ids.iter().any(may)))
}

/// Whether a policy's head admits the resource of operators' actions.
fn of_the_server(policy: &Policy) -> bool {
    match policy.resource_constraint() {
        ResourceConstraint::Any => true,
        ResourceConstraint::Is(name) => name.basename() == "Mayfly",
        ResourceConstraint::Eq(uid) | ResourceConstraint::In(uid) | ResourceConstraint::IsIn(_, uid) => {
            uid.type_name().basename() == "Mayfly"
        }
    }
}

/// Whether a policy has no condition besides its head.
pub(super) fn unconditional(policy: &Policy) -> bool {
    policy.to_pst().is_ok_and(|tree| tree.body().clauses().is_empty())
}

/// Whether a policy's head restricts no principal.
pub(super) fn of_everybody(policy: &Policy) -> bool {
    matches!(policy.principal_constraint(), PrincipalConstraint::Any | PrincipalConstraint::Is(_))
}

/// Whether one member (an id, or a prefix with `/*` appended) contains another one.
fn covers(head: &str, member: &str) -> bool {
    match head.strip_suffix("/*") {
        Some(prefix) => within(member.strip_suffix("/*").unwrap_or(member), prefix),
        None => head == member,
    }
}

/// The complaint about actions that nobody may do in an environment; `None` if there are none.
pub fn complaint(missing: &[OperatorAction], environment: &str) -> Option<Diagnostic> {
    let names: Vec<&str> = missing.iter().map(|admin| Action::Admin(*admin).name()).collect();
    let mut listed = String::new();
    for (n, name) in names.iter().enumerate() {
        let between = match n {
            0 => "",
            n if n + 1 == names.len() => " or ",
            _ => ", ",
        };
        let _ = write!(listed, "{between}{name}");
    }
    let actions: Vec<String> = names.iter().map(|name| format!("Action::\"{name}\"")).collect();
    let remedy = format!(
        "add a policy that permits them to the operators, like permit (principal in Role::\"operator\", action in [{}], resource); \
         with the operators' ids in [role.operator] of the roles file",
        actions.join(", ")
    );
    let what = format!("with this set nobody may do {listed} in environment {environment}");
    (!names.is_empty()).then(|| Diagnostic::about("policies", what, remedy))
}
