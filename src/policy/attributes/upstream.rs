//! Attributes of the upstream's registration. The cache key holds their values, not the registration's version, so a change that no policy
//! reads keeps cached verdicts valid.

use super::{AttributeValue, PolicyAttribute};

pub(super) const FACTS: &[PolicyAttribute] = &[
    PolicyAttribute::new("resource", |c| {
        Some(AttributeValue::Text(c.question.upstream().map_or(super::super::ADMIN, |u| u.name.as_str())))
    }),
    PolicyAttribute::new("resource.in", |c| {
        Some(AttributeValue::Texts(c.question.upstream().map(|u| u.environment.as_str()).into_iter().collect()))
    }),
    PolicyAttribute::new("resource.owner", |c| Some(AttributeValue::Text(&c.question.upstream()?.owner))),
    PolicyAttribute::new("resource.purpose", |c| Some(AttributeValue::Text(&c.question.upstream()?.purpose))),
    PolicyAttribute::new("resource.environment", |c| Some(AttributeValue::Text(&c.question.upstream()?.environment))),
    PolicyAttribute::new("resource.audience", |c| Some(AttributeValue::Text(&c.question.upstream()?.audience))),
    PolicyAttribute::new("resource.system", |c| Some(AttributeValue::Text(&c.question.upstream()?.classification.system))),
    PolicyAttribute::new("resource.privilege", |c| {
        Some(AttributeValue::Text(c.question.upstream()?.classification.privilege.as_str()))
    }),
    PolicyAttribute::new("resource.blast_radius", |c| {
        Some(AttributeValue::Text(c.question.upstream()?.classification.blast_radius.as_str()))
    }),
    PolicyAttribute::new("resource.kinds", |c| {
        Some(AttributeValue::Texts(c.question.upstream()?.kinds.iter().map(|k| k.as_str()).collect()))
    }),
    PolicyAttribute::new("resource.scopes", |c| {
        Some(AttributeValue::Texts(c.question.upstream()?.scopes.iter().map(|s| s.name.as_str()).collect()))
    }),
    PolicyAttribute::new("resource.sensitive_scopes", |c| {
        let sensitive = c.question.upstream()?.scopes.iter().filter(|s| s.sensitive);
        Some(AttributeValue::Texts(sensitive.map(|s| s.name.as_str()).collect()))
    }),
    PolicyAttribute::new("resource.servers", |c| {
        Some(AttributeValue::Texts(c.question.upstream()?.servers.iter().map(|s| s.as_str()).collect()))
    }),
];
