//! Attributes of the task that the credential belongs to.

use super::{AttributeValue, PolicyAttribute};

pub(super) const FACTS: &[PolicyAttribute] = &[
    PolicyAttribute::new("context.task.id", |c| c.question.task()?.id.map(AttributeValue::Text)),
    PolicyAttribute::new("context.task.purpose", |c| Some(AttributeValue::Text(c.question.task()?.purpose))),
    PolicyAttribute::new("context.task.owner", |c| Some(AttributeValue::Text(c.question.task()?.owner))),
    PolicyAttribute::new("context.task.environment", |c| Some(AttributeValue::Text(c.question.task()?.environment))),
    PolicyAttribute::new("context.task.depth", |c| Some(AttributeValue::Long(c.question.task()?.depth))),
    PolicyAttribute::new("context.task.ttl_seconds", |c| Some(AttributeValue::Long(c.question.task()?.ttl_seconds))),
    PolicyAttribute::new("context.task.heartbeat", |c| Some(AttributeValue::Bool(c.question.task()?.heartbeat))),
    PolicyAttribute::new("context.task.upstreams", |c| Some(AttributeValue::Texts(c.question.task()?.upstreams.to_vec()))),
    PolicyAttribute::new("context.task.tools", |c| Some(AttributeValue::Texts(c.question.task()?.tools.to_vec()))),
    PolicyAttribute::new("context.task.callers", |c| Some(AttributeValue::Texts(c.question.task()?.callers.to_vec()))),
];
