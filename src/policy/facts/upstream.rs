//! Attributes of the upstream's registration. The cache key holds their values, not the registration's version, so a change that no policy
//! reads keeps cached verdicts valid.

use super::{Fact, Value};

pub(super) const FACTS: &[Fact] = &[
    Fact::new("resource", |c| Some(Value::Text(c.question.upstream().map_or(super::super::ADMIN, |u| u.name.as_str())))),
    Fact::new("resource.in", |c| Some(Value::Texts(c.question.upstream().map(|u| u.environment.as_str()).into_iter().collect()))),
    Fact::new("resource.owner", |c| Some(Value::Text(&c.question.upstream()?.owner))),
    Fact::new("resource.purpose", |c| Some(Value::Text(&c.question.upstream()?.purpose))),
    Fact::new("resource.environment", |c| Some(Value::Text(&c.question.upstream()?.environment))),
    Fact::new("resource.audience", |c| Some(Value::Text(&c.question.upstream()?.audience))),
    Fact::new("resource.system", |c| Some(Value::Text(&c.question.upstream()?.classification.system))),
    Fact::new("resource.privilege", |c| Some(Value::Text(c.question.upstream()?.classification.privilege.as_str()))),
    Fact::new("resource.blast_radius", |c| Some(Value::Text(c.question.upstream()?.classification.blast_radius.as_str()))),
    Fact::new("resource.kinds", |c| Some(Value::Texts(c.question.upstream()?.kinds.iter().map(|k| k.as_str()).collect()))),
    Fact::new("resource.scopes", |c| Some(Value::Texts(c.question.upstream()?.scopes.iter().map(|s| s.name.as_str()).collect()))),
    Fact::new("resource.sensitive_scopes", |c| {
        let sensitive = c.question.upstream()?.scopes.iter().filter(|s| s.sensitive);
        Some(Value::Texts(sensitive.map(|s| s.name.as_str()).collect()))
    }),
    Fact::new("resource.servers", |c| Some(Value::Texts(c.question.upstream()?.servers.iter().map(|s| s.as_str()).collect()))),
];
