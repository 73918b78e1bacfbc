//! Analysis: the operators' actions without which an environment can be neither defended nor changed, and which a policy set permits to
//! nobody.
//!
//! Only what is certain is reported: a condition (`when`, `unless`) of a permit counts as one that may be fulfilled, and of a forbid as one
//! that may not be, unless it follows from the kind of the target alone (`context.target_kind`).

use std::fmt::Write as _;
use std::sync::Arc;

use cedar_policy::pst::{BinaryOp, Clause, Expr, Literal, UnaryOp, Var};
use cedar_policy::{Effect, Policy, PolicySet, PrincipalConstraint, ResourceConstraint};

use super::action::{Action, OperatorAction};
use super::attribute_reads::path_of;
use super::compile::applies;
use super::dual_control::members;
use super::roles::Roles;
use super::set::within;
use mayfly_base::document::Diagnostic;
use mayfly_verify::revocation::TargetKind;

/// The actions that somebody must be permitted in each environment: without the first no change of policy can give back the others.
const NEEDED: [OperatorAction; 3] = [OperatorAction::ManagePolicy, OperatorAction::Revoke, OperatorAction::Lock];

/// The needed actions that the policies permit to nobody.
pub(super) fn nobody_may(policies: &PolicySet, roles: &Roles) -> Vec<OperatorAction> {
    NEEDED.into_iter().filter(|admin| permitted_to_nobody(policies, roles, *admin)).collect()
}

/// The kinds of the targets that a needed action is asked about.
fn target_kinds(action: OperatorAction) -> Vec<&'static str> {
    let of = |kinds: &dyn Fn(&TargetKind) -> bool| TargetKind::ALL.into_iter().filter(kinds).map(TargetKind::word).collect();
    match action {
        OperatorAction::Revoke => of(&|_| true),
        OperatorAction::Lock => of(&|kind| kind.locks()),
        _ => vec!["policy"],
    }
}

fn permitted_to_nobody(policies: &PolicySet, roles: &Roles, needed: OperatorAction) -> bool {
    let action = Action::Admin(needed);
    let concerned = policies.policies().filter(|p| applies(p, action) && of_the_server(p));
    let concerned: Vec<(&Policy, Vec<Clause>)> = concerned.map(|p| (p, clauses(p))).collect();
    target_kinds(needed).into_iter().all(|kind| permitted_to_nobody_on(&concerned, roles, kind))
}

fn clauses(policy: &Policy) -> Vec<Clause> {
    // A policy that is not understood counts as one with a condition about which nothing is known.
    let unknown = || vec![Clause::When(Arc::new(Expr::Var(Var::Context)))];
    policy.to_pst().map_or_else(|_| unknown(), |tree| tree.body().clauses().to_vec())
}

/// Whether nobody is permitted an action on a target of this kind.
fn permitted_to_nobody_on(policies: &[(&Policy, Vec<Clause>)], roles: &Roles, kind: &str) -> bool {
    let of = |effect, held: fn(Option<bool>) -> bool| {
        let of = policies.iter().filter(move |(p, _)| p.effect() == effect);
        of.filter(move |(_, clauses)| held(all_hold(clauses, kind))).map(|(p, _)| *p)
    };
    let forbidden: Vec<Option<Vec<String>>> =
        of(Effect::Forbid, |holds| holds == Some(true)).map(|p| members(p, roles)).collect();
    if forbidden.iter().any(Option::is_none) {
        return true;
    }
    let forbidden: Vec<&String> = forbidden.iter().flatten().flatten().collect();
    let may = |id: &String| !forbidden.iter().any(|head| covers(head, id));
    !of(Effect::Permit, |holds| holds != Some(false)).any(|p| members(p, roles).is_none_or(|ids| ids.iter().any(may)))
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

/// Whether the conditions of a policy hold for a target of this kind; `None` where that depends on something else.
fn all_hold(clauses: &[Clause], kind: &str) -> Option<bool> {
    let each = clauses.iter().map(|clause| match clause {
        Clause::When(expr) => holds(expr, kind),
        Clause::Unless(expr) => holds(expr, kind).map(|holds| !holds),
    });
    each.fold(Some(true), and)
}

fn and(one: Option<bool>, other: Option<bool>) -> Option<bool> {
    match (one, other) {
        (Some(false), _) | (_, Some(false)) => Some(false),
        (Some(true), Some(true)) => Some(true),
        _ => None,
    }
}

fn not(holds: Option<bool>) -> Option<bool> {
    holds.map(|holds| !holds)
}

/// The value of a condition for a target of this kind; `None` where it depends on something else.
fn holds(expr: &Expr, kind: &str) -> Option<bool> {
    let of_kind = |expr: &Expr| path_of(expr).is_some_and(|path| path == "context.target_kind");
    let is = |expr: &Expr| if let Expr::Literal(Literal::String(text)) = expr { Some(text == kind) } else { None };
    match expr {
        Expr::Literal(Literal::Bool(value)) => Some(*value),
        Expr::UnaryOp { op: UnaryOp::Not, expr } => not(holds(expr, kind)),
        Expr::BinaryOp { op: BinaryOp::And, left, right } => and(holds(left, kind), holds(right, kind)),
        Expr::BinaryOp { op: BinaryOp::Or, left, right } => not(and(not(holds(left, kind)), not(holds(right, kind)))),
        Expr::BinaryOp { op: BinaryOp::Eq, left, right } if of_kind(left) => is(right),
        Expr::BinaryOp { op: BinaryOp::Eq, left, right } if of_kind(right) => is(left),
        Expr::BinaryOp { op: BinaryOp::NotEq, left, right } if of_kind(left) => not(is(right)),
        Expr::BinaryOp { op: BinaryOp::NotEq, left, right } if of_kind(right) => not(is(left)),
        Expr::BinaryOp { op: BinaryOp::Contains, left, right } if of_kind(right) => match &**left {
            Expr::Set(items) => not(items.iter().map(|item| not(is(item))).fold(Some(true), and)),
            _ => None,
        },
        Expr::IfThenElse { cond, then_expr, else_expr } => match holds(cond, kind) {
            Some(true) => holds(then_expr, kind),
            Some(false) => holds(else_expr, kind),
            None => None,
        },
        Expr::HasAttr { expr, attrs } => {
            (path_of(expr).is_some_and(|path| path == "context") && attrs.len() == 1 && attrs.first() == "target_kind")
                .then_some(true)
        }
        _ => None,
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
