//! The stem of a policy: its head, and its first conditions as long as they concern only the caller's roles and the resource.
//!
//! Cedar evaluates `head && first && second …` from the left and stops at the first condition that is false or fails. A policy with a false
//! stem is therefore false without an error, whatever conditions follow. A stem reads nothing of the context, so one evaluation serves many
//! requests.

use std::sync::Arc;

use cedar_policy::PolicyId;
use cedar_policy::pst::{BinaryOp, Clause, Effect, Expr, Policy, StaticPolicy, Template, UnaryOp};

use super::attribute_reads::AttributeReads;

/// The stems of some policies, and the attributes that they read.
#[derive(Default)]
pub(super) struct ScopeConditions {
    /// Each stem has its policy's id. All stems are permits, so that Cedar reports every stem that holds and not only those that forbid.
    pub policies: cedar_policy::PolicySet,
    pub reads: AttributeReads,
    /// Policies without a stem. These are always evaluated.
    pub without: Vec<PolicyId>,
}

impl ScopeConditions {
    /// Adds the stem of a policy.
    pub fn add(&mut self, id: &PolicyId, body: &Template) {
        let added = stem(body).and_then(|(stem, reads)| {
            self.policies.add(cedar_policy::Policy::from_pst(stem).ok()?).ok()?;
            Some(reads)
        });
        match added {
            Some(reads) => self.reads.join(&reads),
            None => self.without.push(id.clone()),
        }
    }
}

/// `None` where the policy is not understood, for example because its head has a slot.
fn stem(body: &Template) -> Option<(Policy, AttributeReads)> {
    let (id, principal, action, resource) = (body.id.clone(), body.principal.clone(), body.action.clone(), body.resource.clone());
    let mut stem = Template::new(id, Effect::Permit, principal, action, resource);
    let mut reads = AttributeReads::default();
    reads.add(&stem);
    for expr in conditions(body) {
        let own = AttributeReads::of(&expr);
        if !own.understood() || !own.paths().all(|(path, _)| same_for_many(path)) {
            break;
        }
        reads.join(&own);
        stem.try_add_clause(Clause::When(expr)).ok()?;
    }
    Some((Policy::Static(StaticPolicy::try_from(stem).ok()?), reads))
}

/// Whether many requests share the value of this attribute. The caller's own name is accepted in heads only; as a condition it would give
/// each caller its own slice.
fn same_for_many(path: &str) -> bool {
    matches!(path, "resource" | "principal.in" | "principal.environment" | "principal.trust_domain")
        || path.starts_with("resource.")
}

/// The conditions of a policy, in the order in which Cedar evaluates them.
fn conditions(body: &Template) -> Vec<Arc<Expr>> {
    let mut found = Vec::new();
    for clause in body.clauses() {
        match clause {
            Clause::When(expr) => split(expr, &mut found),
            Clause::Unless(expr) => found.push(Arc::new(Expr::UnaryOp { op: UnaryOp::Not, expr: expr.clone() })),
        }
    }
    found
}

fn split(expr: &Arc<Expr>, found: &mut Vec<Arc<Expr>>) {
    match &**expr {
        Expr::BinaryOp { op: BinaryOp::And, left, right } => {
            split(left, found);
            split(right, found);
        }
        _ => found.push(expr.clone()),
    }
}
