//! Attributes of the identities behind the caller: the actor chain, the subject, and the person or job that signed in.

use super::{AttributeValue, PolicyAttribute};

pub(super) const FACTS: &[PolicyAttribute] = &[
    PolicyAttribute::new("context.act_chain", |c| Some(AttributeValue::Texts(c.question.ask()?.act_chain.to_vec()))),
    PolicyAttribute::new("context.act_depth", |c| {
        i64::try_from(c.question.ask()?.act_chain.len()).ok().map(AttributeValue::Long)
    }),
    PolicyAttribute::new("context.subject.issuer", |c| c.question.ask()?.subject.map(|s| AttributeValue::Text(s.issuer))),
    PolicyAttribute::new("context.subject.id", |c| c.question.ask()?.subject.map(|s| AttributeValue::Text(s.id))),
    PolicyAttribute::own("context.subject.groups", |c| {
        c.question.ask()?.subject.map(|s| AttributeValue::Texts(s.groups.to_vec()))
    }),
    PolicyAttribute::new("context.person.issuer", |c| c.question.person().map(|p| AttributeValue::Text(p.issuer))),
    PolicyAttribute::new("context.person.id", |c| c.question.person().map(|p| AttributeValue::Text(p.id))),
    PolicyAttribute::new("context.person.amr", |c| c.question.person().map(|p| AttributeValue::Texts(p.amr.to_vec()))),
    PolicyAttribute::new("context.person.acr", |c| c.question.person().and_then(|p| p.acr).map(AttributeValue::Text)),
    PolicyAttribute::new("context.person.auth_time", |c| c.question.person().map(|p| AttributeValue::Moment(p.auth_time))),
    PolicyAttribute::new("context.job.issuer", |c| c.question.attested().map(|j| AttributeValue::Text(j.issuer))),
    PolicyAttribute::new("context.job.rule", |c| c.question.attested().map(|j| AttributeValue::Text(j.rule))),
    PolicyAttribute::new("context.job.id", |c| c.question.attested().map(|j| AttributeValue::Text(j.id))),
    PolicyAttribute::new("context.job.claims", |c| c.question.attested().map(|j| AttributeValue::Texts(j.claims.to_vec()))),
];
