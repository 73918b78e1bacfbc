//! The stem of a policy: its head, and what its first conditions say about the caller's roles and the resource.
//!
//! Cedar evaluates `head && first && second …` from the left and stops at the first that is false, and an error ends it. So a policy of
//! which the stem is false is false, without an error, whatever follows. A stem reads nothing of the context, so one answer holds for
//! many requests.

use std::sync::Arc;

use cedar_policy::PolicyId;
use cedar_policy::pst::{BinaryOp, Clause, Effect, Expr, Policy, StaticPolicy, Template, UnaryOp};

use super::reads::Reads;

/// The stems of some policies, and what they read.
#[derive(Default)]
pub(super) struct Stems {
    /// Each under its policy's id; all permit, so that Cedar names all that hold, and not only those that forbid.
    pub policies: cedar_policy::PolicySet,
    pub reads: Reads,
    /// Policies that have no stem: they are always looked at.
    pub without: Vec<PolicyId>,
}

impl Stems {
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

/// `None` where the policy is not understood: a slot in its head, say.
fn stem(body: &Template) -> Option<(Policy, Reads)> {
    let (id, principal, action, resource) = (body.id.clone(), body.principal.clone(), body.action.clone(), body.resource.clone());
    let mut stem = Template::new(id, Effect::Permit, principal, action, resource);
    let mut reads = Reads::default();
    reads.add(&stem);
    for expr in conditions(body) {
        let own = Reads::of(&expr);
        if !own.understood() || !own.paths().all(|(path, _)| same_for_many(path)) {
            break;
        }
        reads.join(&own);
        stem.try_add_clause(Clause::When(expr)).ok()?;
    }
    Some((Policy::Static(StaticPolicy::try_from(stem).ok()?), reads))
}

/// What many requests have in common. The caller's own name is left to heads: with it, each caller would have a slice of its own.
fn same_for_many(path: &str) -> bool {
    matches!(path, "resource" | "principal.in" | "principal.environment" | "principal.trust_domain")
        || path.starts_with("resource.")
}

/// What has to hold, in the order in which Cedar looks at it.
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
