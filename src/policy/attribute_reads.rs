//! The attributes that a policy reads, on which its verdict can depend. Found by walking the policy's syntax tree.
//!
//! Overestimating costs cache hits. Underestimating would answer one question with the verdict of another, so an expression that is not
//! understood counts as reading everything and makes the set uncacheable. Short-circuiting is ignored: every branch counts.

use std::collections::BTreeMap;

use cedar_policy::pst::{
    BinaryOp, Clause, EntityOrSlot, EntityUID, Expr, Literal, PrincipalConstraint, ResourceConstraint, Template, Var,
};

use super::attributes::{self, PolicyAttribute};

/// One attribute that is read.
#[derive(Clone, Copy)]
pub struct AttributeRead {
    pub(super) fact: &'static PolicyAttribute,
    /// Whether the value is read, or (by `has`) only the presence.
    pub(super) value: bool,
}

/// All attributes that some policies read.
#[derive(Clone, Default)]
pub struct AttributeReads {
    found: BTreeMap<&'static str, AttributeRead>,
    not_understood: bool,
}

impl AttributeReads {
    /// Adds the attributes that one policy reads.
    pub(super) fn add(&mut self, policy: &Template) {
        match &policy.principal {
            PrincipalConstraint::Any | PrincipalConstraint::Is(_) => {}
            PrincipalConstraint::Eq(_) => self.value("principal"),
            PrincipalConstraint::In(other) | PrincipalConstraint::IsIn(_, other) => self.scope_in("principal", other),
        }
        match &policy.resource {
            ResourceConstraint::Any | ResourceConstraint::Is(_) => {}
            ResourceConstraint::Eq(_) => self.value("resource"),
            ResourceConstraint::In(other) | ResourceConstraint::IsIn(_, other) => self.scope_in("resource", other),
        }
        // The action, and everything that depends on the action alone, is already in every key.
        for clause in policy.clauses() {
            match clause {
                Clause::When(expr) | Clause::Unless(expr) => self.walk(expr),
            }
        }
    }

    /// The attributes that one condition reads.
    pub(super) fn of(expr: &Expr) -> AttributeReads {
        let mut reads = AttributeReads::default();
        reads.walk(expr);
        reads
    }

    /// Adds everything from `other`.
    pub(super) fn join(&mut self, other: &AttributeReads) {
        self.not_understood |= other.not_understood;
        other.found.values().for_each(|read| self.insert(read.fact, read.value));
    }

    /// Whether every expression was understood, so that the listed attributes are all that is read.
    pub fn understood(&self) -> bool {
        !self.not_understood
    }

    /// Reads of every attribute in the table.
    pub(super) fn of_everything() -> AttributeReads {
        let mut reads = AttributeReads::default();
        reads.everything();
        reads
    }

    /// Whether a verdict may be cached: every expression was understood, and no attribute is volatile.
    pub fn cacheable(&self) -> bool {
        !self.not_understood && self.found.values().all(|r| !r.fact.volatile)
    }

    /// Whether one verdict holds for all exchanges that are decided at the same time and differ only in the values of tool, purpose and
    /// arguments. Whether those attributes are present must be the same for all.
    pub fn shared(&self) -> bool {
        self.cacheable() && !self.reads_own()
    }

    /// Whether an approval may turn a refusal into a permission.
    pub fn reads_approvals(&self) -> bool {
        self.not_understood || self.found.keys().any(|path| path.starts_with("context.approvals"))
    }

    /// Whether the attribute at this path may be read.
    pub fn may_read(&self, path: &str) -> bool {
        self.not_understood || self.found.contains_key(path)
    }

    /// Whether an attribute below this path may be read.
    pub fn may_read_below(&self, path: &str) -> bool {
        let below = |found: &str| found.strip_prefix(path).is_some_and(|rest| rest.starts_with('.'));
        self.not_understood || self.found.keys().any(|found| below(found))
    }

    /// Whether the value of an attribute is read that each exchange has for itself ([`PolicyAttribute`]'s `own`).
    pub fn reads_own(&self) -> bool {
        self.found.values().any(|r| r.fact.own && r.value)
    }

    /// The paths that are read. `true`: the value is read; `false`: only the presence.
    pub fn paths(&self) -> impl Iterator<Item = (&'static str, bool)> {
        self.found.values().map(|r| (r.fact.path, r.value))
    }

    /// A copy that lacks one path. A cache key made from it is wrong; tests use it to show that the key needs each path.
    pub fn without(&self, path: &str) -> AttributeReads {
        let mut rest = self.clone();
        rest.found.retain(|p, _| *p != path);
        rest
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &AttributeRead> {
        self.found.values()
    }

    /// Splits the reads into those of principal and resource, and those of the context.
    pub(super) fn split(&self) -> (Vec<AttributeRead>, Vec<AttributeRead>) {
        self.found.values().partition(|read| !read.fact.path.starts_with("context."))
    }

    fn insert(&mut self, fact: &'static PolicyAttribute, value: bool) {
        self.found.entry(fact.path).or_insert(AttributeRead { fact, value }).value |= value;
    }

    /// Adds the attribute at a path, or all attributes below the path.
    fn below(&mut self, path: &str, value: bool) {
        let mut any = false;
        for fact in
            attributes::all().filter(|f| f.path == path || f.path.strip_prefix(path).is_some_and(|rest| rest.starts_with('.')))
        {
            self.insert(fact, value);
            any = true;
        }
        // `has` may test for attributes that the schema does not know. Reading such an attribute's value does not pass validation.
        self.not_understood |= value && !any;
    }

    /// Adds exactly the attribute at this path: `principal` is the name, without its attributes.
    fn value(&mut self, path: &str) {
        for fact in attributes::all().filter(|f| f.path == path) {
            self.insert(fact, true);
        }
    }

    fn everything(&mut self) {
        self.not_understood = true;
        for fact in attributes::all() {
            self.insert(fact, true);
        }
    }

    fn scope_in(&mut self, root: &'static str, other: &EntityOrSlot) {
        match other {
            EntityOrSlot::Entity(uid) => self.belongs(root, std::slice::from_ref(uid)),
            EntityOrSlot::Slot(_) => self.everything(),
        }
    }

    /// Reads of `root in [others]`: the parents of `root`, and its name where one of `others` could be `root` itself, since `in` holds for
    /// equal entities.
    fn belongs(&mut self, root: &'static str, others: &[EntityUID]) {
        self.value(if root == "principal" { "principal.in" } else { "resource.in" });
        if others.iter().any(|uid| !matches!(uid.ty.to_string().as_str(), "Role" | "Environment")) {
            self.value(root);
        }
    }

    fn walk(&mut self, expr: &Expr) {
        if let Some(path) = path_of(expr) {
            return self.read_path(&path);
        }
        match expr {
            Expr::Literal(_) => {}
            Expr::UnaryOp { expr, .. } | Expr::Like { expr, .. } | Expr::GetAttr { expr, .. } => self.walk(expr),
            Expr::BinaryOp { op, left, right } => self.binary(op, left, right),
            Expr::HasAttr { expr, attrs } => self.has(expr, attrs.iter().map(|a| a.as_str())),
            Expr::Is { expr, in_expr, .. } => match in_expr {
                // `is` tests the type, which follows from the action. The action is in the key.
                None if entity_root(expr).is_some() => {}
                None => self.walk(expr),
                Some(other) => self.is_in(expr, other),
            },
            Expr::IfThenElse { cond, then_expr, else_expr } => {
                self.walk(cond);
                self.walk(then_expr);
                self.walk(else_expr);
            }
            Expr::Set(items) => items.iter().for_each(|e| self.walk(e)),
            Expr::Record(fields) => fields.values().for_each(|e| self.walk(e)),
            _ => self.everything(),
        }
    }

    /// Adds a path whose value is read.
    fn read_path(&mut self, path: &str) {
        if path != "action" {
            // An entity in the middle of an expression may be dereferenced further out, so all attributes below the entity count as read.
            self.below(path, true);
        }
    }

    fn has<'e>(&mut self, expr: &Expr, attrs: impl Iterator<Item = &'e str>) {
        let Some(mut path) = path_of(expr) else {
            return self.walk(expr);
        };
        if path.contains('.') {
            self.below(&path, false);
        }
        for attr in attrs {
            path.push('.');
            path.push_str(attr);
            self.below(&path, false);
        }
    }

    fn binary(&mut self, op: &BinaryOp, left: &Expr, right: &Expr) {
        match op {
            BinaryOp::Eq | BinaryOp::NotEq => {
                self.name_or_walk(left);
                self.name_or_walk(right);
            }
            BinaryOp::In => self.is_in(left, right),
            _ => {
                self.walk(left);
                self.walk(right);
            }
        }
    }

    /// Walks an operand of a comparison. Of an entity only the name is compared.
    fn name_or_walk(&mut self, expr: &Expr) {
        match entity_root(expr) {
            Some(root) => self.value(root),
            None => self.walk(expr),
        }
    }

    fn is_in(&mut self, left: &Expr, right: &Expr) {
        let Some(root) = entity_root(left) else {
            self.walk(left);
            return self.name_or_walk(right);
        };
        match literals(right) {
            Some(others) => self.belongs(root, &others),
            None => {
                self.value(root);
                self.belongs(root, &[]);
                self.name_or_walk(right);
            }
        }
    }
}

/// The path of a chain of attribute accesses that begins at a variable, such as `context.task.purpose`.
pub(super) fn path_of(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Var(Var::Principal) => Some("principal".to_owned()),
        Expr::Var(Var::Resource) => Some("resource".to_owned()),
        Expr::Var(Var::Context) => Some("context".to_owned()),
        Expr::Var(Var::Action) => Some("action".to_owned()),
        Expr::GetAttr { expr, attr } => path_of(expr).map(|path| format!("{path}.{attr}")),
        _ => None,
    }
}

fn entity_root(expr: &Expr) -> Option<&'static str> {
    match expr {
        Expr::Var(Var::Principal) => Some("principal"),
        Expr::Var(Var::Resource) => Some("resource"),
        _ => None,
    }
}

/// The entities of a literal or of a set of literals.
fn literals(expr: &Expr) -> Option<Vec<EntityUID>> {
    match expr {
        Expr::Literal(Literal::EntityUID(uid)) => Some(vec![uid.clone()]),
        Expr::Set(items) => {
            let each: Option<Vec<Vec<EntityUID>>> = items.iter().map(|e| literals(e)).collect();
            each.map(|lists| lists.into_iter().flatten().collect())
        }
        _ => None,
    }
}
