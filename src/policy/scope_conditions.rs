//! The scope conditions of a policy: its head, and its first conditions as long as they concern only the caller's roles and the resource.
//!
//! Cedar evaluates `head && first && second …` from the left and stops at the first condition that is false or fails. A policy whose
//! scope conditions are false is therefore false without an error, whatever conditions follow. Scope conditions read nothing of the
//! context, so one evaluation serves many requests.

use std::sync::Arc;

use cedar_policy::PolicyId;
use cedar_policy::pst::{BinaryOp, Clause, Effect, Expr, Policy, StaticPolicy, Template, UnaryOp};

use super::attribute_reads::AttributeReads;

/// The scope conditions of some policies, and the attributes that they read.
#[derive(Default)]
pub(super) struct ScopeConditions {
    /// The scope conditions of each policy, as a policy with its id. All are permits, so that Cedar reports each that holds and not only
    /// those that forbid.
    pub policies: cedar_policy::PolicySet,
    pub reads: AttributeReads,
    /// Policies without scope conditions. These are always evaluated.
    pub without: Vec<PolicyId>,
}

impl ScopeConditions {
    /// Adds the scope conditions of a policy.
    pub fn add(&mut self, id: &PolicyId, body: &Template) {
        let added = scope_conditions(body).and_then(|(conditions, reads)| {
            self.policies.add(cedar_policy::Policy::from_pst(conditions).ok()?).ok()?;
            Some(reads)
        });
        match added {
            Some(reads) => self.reads.join(&reads),
            None => self.without.push(id.clone()),
        }
    }
}

/// `None` where the policy is not understood, for example because its head has a slot.
fn scope_conditions(body: &Template) -> Option<(Policy, AttributeReads)> {
    let (id, principal, action, resource) = (body.id.clone(), body.principal.clone(), body.action.clone(), body.resource.clone());
    let mut template = Template::new(id, Effect::Permit, principal, action, resource);
    let mut reads = AttributeReads::default();
    reads.add(&template);
    for expr in conditions(body) {
        let own = AttributeReads::of(&expr);
        if !own.understood() || !own.paths().all(|(path, _)| same_for_many(path)) {
            break;
        }
        reads.join(&own);
        template.try_add_clause(Clause::When(expr)).ok()?;
    }
    Some((Policy::Static(StaticPolicy::try_from(template).ok()?), reads))
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
