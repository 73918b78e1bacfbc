//! Attributes of the identities behind the caller: the actor chain, the subject, and the person or job that signed in.

use super::{Fact, Value};

pub(super) const FACTS: &[Fact] = &[
    Fact::new("context.act_chain", |c| Some(Value::Texts(c.question.ask()?.act_chain.to_vec()))),
    Fact::new("context.act_depth", |c| i64::try_from(c.question.ask()?.act_chain.len()).ok().map(Value::Long)),
    Fact::new("context.subject.issuer", |c| c.question.ask()?.subject.map(|s| Value::Text(s.issuer))),
    Fact::new("context.subject.id", |c| c.question.ask()?.subject.map(|s| Value::Text(s.id))),
    Fact::own("context.subject.groups", |c| c.question.ask()?.subject.map(|s| Value::Texts(s.groups.to_vec()))),
    Fact::new("context.person.issuer", |c| c.question.person().map(|p| Value::Text(p.issuer))),
    Fact::new("context.person.id", |c| c.question.person().map(|p| Value::Text(p.id))),
    Fact::new("context.person.amr", |c| c.question.person().map(|p| Value::Texts(p.amr.to_vec()))),
    Fact::new("context.person.acr", |c| c.question.person().and_then(|p| p.acr).map(Value::Text)),
    Fact::new("context.person.auth_time", |c| c.question.person().map(|p| Value::Moment(p.auth_time))),
    Fact::new("context.job.issuer", |c| c.question.attested().map(|j| Value::Text(j.issuer))),
    Fact::new("context.job.rule", |c| c.question.attested().map(|j| Value::Text(j.rule))),
    Fact::new("context.job.id", |c| c.question.attested().map(|j| Value::Text(j.id))),
    Fact::new("context.job.claims", |c| c.question.attested().map(|j| Value::Texts(j.claims.to_vec()))),
];
