//! Attributes of the caller, and its roles.

use super::{Fact, Value};

/// A role is a parent entity, not an attribute. It is listed here because it belongs in the cache key like any other attribute.
pub(super) const FACTS: &[Fact] = &[
    Fact::new("principal", |c| Some(Value::Text(c.question.caller.as_str()))),
    Fact::new("principal.in", |c| Some(Value::Texts(c.member.roles.clone()))),
    Fact::new("principal.trust_domain", |c| Some(Value::Text(c.question.caller.trust_domain()))),
    Fact::new("principal.path", |c| Some(Value::Text(c.question.caller.path()))),
    Fact::new("principal.environment", |c| c.member.environment.map(Value::Text)),
];
