//! Policies that ask for more approvals than a request can have: one.
//!
//! Whoever writes one wants two people, and would get nobody through. It is refused where it is set, not found out where it is needed.

use cedar_policy::Policy;
use cedar_policy::pst::{BinaryOp, Clause, Expr, Literal};

use super::reads::path_of;

/// What of a policy no request can have.
pub(super) fn more_than_one(policy: &Policy) -> Option<String> {
    let tree = policy.to_pst().ok()?;
    tree.body().clauses().iter().find_map(|clause| match clause {
        Clause::When(expr) | Clause::Unless(expr) => within(expr),
    })
}

fn within(expr: &Expr) -> Option<String> {
    match expr {
        Expr::UnaryOp { expr, .. } | Expr::Like { expr, .. } | Expr::GetAttr { expr, .. } | Expr::HasAttr { expr, .. } => {
            within(expr)
        }
        Expr::BinaryOp { op, left, right } => {
            compared(op, left, right).or_else(|| named(op, left, right)).or_else(|| within(left)).or_else(|| within(right))
        }
        Expr::IfThenElse { cond, then_expr, else_expr } => [cond, then_expr, else_expr].into_iter().find_map(|expr| within(expr)),
        Expr::Set(items) => items.iter().find_map(|expr| within(expr)),
        Expr::Record(fields) => fields.values().find_map(|expr| within(expr)),
        _ => None,
    }
}

/// The number of approvals is 0 or 1: what tells neither apart from the other tells nothing.
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

/// Nor are two people among those who approved.
fn named(op: &BinaryOp, left: &Expr, right: &Expr) -> Option<String> {
    let people = path_of(left).is_some_and(|path| path == "context.approvals.people");
    let Expr::Set(names) = right else { return None };
    let mut texts: Vec<&str> = names
        .iter()
        .filter_map(|n| if let Expr::Literal(Literal::String(text)) = &**n { Some(text.as_str()) } else { None })
        .collect();
    texts.sort_unstable();
    texts.dedup();
    let several = people && matches!(op, BinaryOp::ContainsAll | BinaryOp::Eq) && texts.len() > 1;
    several.then(|| format!("wants {} to have approved, and one does", texts.join(" and ")))
}
