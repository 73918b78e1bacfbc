//! Attributes that change by themselves: time, counts, approvals. A verdict that depends on one of them is never cached.

use super::{Fact, Value};

pub(super) const FACTS: &[Fact] = &[
    Fact::volatile("context.now", |c| Some(Value::Moment(c.question.now()))),
    Fact::volatile("context.counts.issued_in_task", |c| Some(Value::Long(c.question.counts()?.issued_in_task))),
    Fact::volatile("context.counts.live_in_task", |c| Some(Value::Long(c.question.counts()?.live_in_task))),
    Fact::volatile("context.counts.live_of_caller", |c| Some(Value::Long(c.question.counts()?.live_of_caller))),
    Fact::volatile("context.counts.uses_in_task", |c| Some(Value::Long(c.question.counts()?.uses_in_task))),
    Fact::volatile("context.counts.refused_uses_in_task", |c| Some(Value::Long(c.question.counts()?.refused_uses_in_task))),
    Fact::volatile("context.counts.authorized_in_task", |c| Some(Value::Long(c.question.counts()?.authorized_in_task))),
    Fact::volatile("context.approvals.count", |c| c.question.approvals().map(|a| Value::Long(a.count))),
    Fact::volatile("context.approvals.people", |c| c.question.approvals().map(|a| Value::Texts(a.people.to_vec()))),
];
