//! Attributes that change by themselves: time, counts, approvals. A verdict that depends on one of them is never cached.

use super::{AttributeValue, PolicyAttribute};

pub(super) const FACTS: &[PolicyAttribute] = &[
    PolicyAttribute::volatile("context.now", |c| Some(AttributeValue::Moment(c.question.now()))),
    PolicyAttribute::volatile("context.counts.issued_in_task", |c| {
        Some(AttributeValue::Long(c.question.counts()?.issued_in_task))
    }),
    PolicyAttribute::volatile("context.counts.live_in_task", |c| Some(AttributeValue::Long(c.question.counts()?.live_in_task))),
    PolicyAttribute::volatile("context.counts.live_of_caller", |c| {
        Some(AttributeValue::Long(c.question.counts()?.live_of_caller))
    }),
    PolicyAttribute::volatile("context.counts.uses_in_task", |c| Some(AttributeValue::Long(c.question.counts()?.uses_in_task))),
    PolicyAttribute::volatile("context.counts.refused_uses_in_task", |c| {
        Some(AttributeValue::Long(c.question.counts()?.refused_uses_in_task))
    }),
    PolicyAttribute::volatile("context.counts.authorized_in_task", |c| {
        Some(AttributeValue::Long(c.question.counts()?.authorized_in_task))
    }),
    PolicyAttribute::volatile("context.approvals.count", |c| c.question.approvals().map(|a| AttributeValue::Long(a.count))),
    PolicyAttribute::volatile("context.approvals.people", |c| {
        c.question.approvals().map(|a| AttributeValue::Texts(a.people.to_vec()))
    }),
];
