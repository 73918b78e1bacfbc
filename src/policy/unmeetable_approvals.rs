//! Finds policies that demand more approvals than a request can have, which is one.
//!
//! An author of such a policy wants two people to approve, but the policy would refuse every request. It is therefore refused when it is
//! set.

use std::collections::BTreeSet;

use cedar_policy::Policy;
use cedar_policy::pst::{BinaryOp, Clause, Expr, Literal};

use super::attribute_reads::path_of;

/// Describes the condition of a policy that no request can meet, if there is one.
pub(super) fn unmeetable_condition(policy: &Policy) -> Option<String> {
    let tree = policy.to_pst().ok()?;
    let clauses = tree.body().clauses();
    let mut together = BTreeSet::new();
    for clause in clauses {
        if let Clause::When(expr) = clause {
            at_once(expr, &mut together);
        }
    }
    let each = |clause| match clause {
        &Clause::When(ref expr) | &Clause::Unless(ref expr) => within(expr),
    };
    several_people(&together).or_else(|| clauses.iter().find_map(each))
}

fn within(expr: &Expr) -> Option<String> {
    match expr {
        Expr::UnaryOp { expr, .. } | Expr::Like { expr, .. } | Expr::GetAttr { expr, .. } | Expr::HasAttr { expr, .. } => {
            within(expr)
        }
        Expr::BinaryOp { op, left, right } => {
            let mut together = BTreeSet::new();
            at_once(expr, &mut together);
            let here = compared(op, left, right).or_else(|| several_people(&together));
            here.or_else(|| within(left)).or_else(|| within(right))
        }
        Expr::IfThenElse { cond, then_expr, else_expr } => [cond, then_expr, else_expr].into_iter().find_map(|expr| within(expr)),
        Expr::Set(items) => items.iter().find_map(|expr| within(expr)),
        Expr::Record(fields) => fields.values().find_map(|expr| within(expr)),
        _ => None,
    }
}

/// The number of approvals is 0 or 1. A comparison with the same result for both is meaningless.
fn compared(op: &BinaryOp, left: &Expr, right: &Expr) -> Option<String> {
    let count = |expr: &Expr| path_of(expr).is_some_and(|path| path == "context.approvals.count");
    let number = |expr: &Expr| if let Expr::Literal(Literal::Long(n)) = expr { Some(*n) } else { None };
    let (turned, n) = match (count(left), count(right)) {
        (true, false) => (false, number(right)?),
        (false, true) => (true, number(left)?),
        _ => return None,
    };
    let with = |count: i64| if turned { holds(op, n, count) } else { holds(op, count, n) };
    let alike = with(0)? == with(1)?;
    alike.then(|| format!("compares context.approvals.count with {n}, and it is 0 or 1"))
}

fn holds(op: &BinaryOp, a: i64, b: i64) -> Option<bool> {
    Some(match op {
        BinaryOp::Eq => a == b,
        BinaryOp::NotEq => a != b,
        BinaryOp::Less => a < b,
        BinaryOp::LessEq => a <= b,
        BinaryOp::Greater => a > b,
        BinaryOp::GreaterEq => a >= b,
        _ => return None,
    })
}

/// A comparison that needs two people among the approvers can never hold.
fn several_people(names: &BTreeSet<&str>) -> Option<String> {
    let names: Vec<&str> = names.iter().copied().collect();
    (names.len() > 1).then(|| format!("wants {} to have approved, and one does", names.join(" and ")))
}

/// Collects the people who must all be among the approvers for an expression to hold.
fn at_once<'a>(expr: &'a Expr, names: &mut BTreeSet<&'a str>) {
    let Expr::BinaryOp { op, left, right } = expr else { return };
    let people = path_of(left).is_some_and(|path| path == "context.approvals.people");
    match (op, &**right) {
        (BinaryOp::And, right) => {
            at_once(left, names);
            at_once(right, names);
        }
        (BinaryOp::Contains, name) if people => names.extend(text(name)),
        (BinaryOp::ContainsAll | BinaryOp::Eq, Expr::Set(all)) if people => names.extend(all.iter().filter_map(|n| text(n))),
        _ => {}
    }
}

fn text(expr: &Expr) -> Option<&str> {
    if let Expr::Literal(Literal::String(text)) = expr { Some(text.as_str()) } else { None }
}
