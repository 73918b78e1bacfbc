//! Attributes of the task that the credential belongs to.

use super::{Fact, Value};

pub(super) const FACTS: &[Fact] = &[
    Fact::new("context.task.id", |c| c.question.task()?.id.map(Value::Text)),
    Fact::new("context.task.purpose", |c| Some(Value::Text(c.question.task()?.purpose))),
    Fact::new("context.task.owner", |c| Some(Value::Text(c.question.task()?.owner))),
    Fact::new("context.task.environment", |c| Some(Value::Text(c.question.task()?.environment))),
    Fact::new("context.task.depth", |c| Some(Value::Long(c.question.task()?.depth))),
    Fact::new("context.task.ttl_seconds", |c| Some(Value::Long(c.question.task()?.ttl_seconds))),
    Fact::new("context.task.heartbeat", |c| Some(Value::Bool(c.question.task()?.heartbeat))),
    Fact::new("context.task.upstreams", |c| Some(Value::Texts(c.question.task()?.upstreams.to_vec()))),
    Fact::new("context.task.tools", |c| Some(Value::Texts(c.question.task()?.tools.to_vec()))),
    Fact::new("context.task.callers", |c| Some(Value::Texts(c.question.task()?.callers.to_vec()))),
];
