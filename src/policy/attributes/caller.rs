//! Attributes of the caller, and its roles.

use super::{AttributeValue, PolicyAttribute};

/// A role is a parent entity, not an attribute. It is listed here because it belongs in the cache key like any other attribute.
pub(super) const FACTS: &[PolicyAttribute] = &[
    PolicyAttribute::new("principal", |c| Some(AttributeValue::Text(c.question.caller.as_str()))),
    PolicyAttribute::new("principal.in", |c| Some(AttributeValue::Texts(c.member.roles.clone()))),
    PolicyAttribute::new("principal.trust_domain", |c| Some(AttributeValue::Text(c.question.caller.trust_domain()))),
    PolicyAttribute::new("principal.path", |c| Some(AttributeValue::Text(c.question.caller.path()))),
    PolicyAttribute::new("principal.environment", |c| c.member.environment.map(AttributeValue::Text)),
];
