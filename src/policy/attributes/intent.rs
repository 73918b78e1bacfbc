//! Attributes of the request: what is asked for and for which purpose.

use super::{AttributeValue, PolicyAttribute};

pub(super) const FACTS: &[PolicyAttribute] = &[
    PolicyAttribute::new("context.environment", |c| c.question.environment().map(AttributeValue::Text)),
    PolicyAttribute::own("context.purpose", |c| Some(AttributeValue::Text(c.question.intent()?.purpose))),
    PolicyAttribute::own("context.tool", |c| c.question.intent()?.tool.map(AttributeValue::Text)),
    PolicyAttribute::own("context.arguments_digest", |c| c.question.intent()?.arguments_digest.map(AttributeValue::Text)),
    PolicyAttribute::new("context.kind", |c| c.question.intent()?.kind.map(|k| AttributeValue::Text(k.as_str()))),
    PolicyAttribute::new("context.scopes", |c| Some(AttributeValue::Texts(c.question.intent()?.scopes.to_vec()))),
    PolicyAttribute::own("context.binding", |c| c.question.intent()?.binding.map(AttributeValue::Text)),
    PolicyAttribute::new("context.sensitive", |c| {
        let (scopes, upstream) = (c.question.intent()?.scopes, c.question.upstream()?);
        // An unregistered scope counts as sensitive. The exchange refuses such a scope in any case.
        Some(AttributeValue::Bool(scopes.iter().any(|s| upstream.scope(s).is_none_or(|s| s.sensitive))))
    }),
    PolicyAttribute::new("context.ttl_seconds", |c| Some(AttributeValue::Long(c.question.ask()?.ttl_seconds))),
    PolicyAttribute::new("context.renewal", |c| Some(AttributeValue::Bool(c.question.ask()?.renewal))),
    PolicyAttribute::new("context.break_glass", |c| {
        let in_ask = c.question.ask().map(|a| a.break_glass);
        in_ask.or(c.question.act().map(|a| a.break_glass)).map(AttributeValue::Bool)
    }),
    PolicyAttribute::new("context.delegate", |c| c.question.ask()?.delegate.map(AttributeValue::Text)),
    PolicyAttribute::new("context.caller", |c| c.question.asked_by().map(AttributeValue::Text)),
    PolicyAttribute::new("context.outcome", |c| Some(AttributeValue::Text(c.question.used_as()?.outcome))),
    PolicyAttribute::new("context.declared", |c| Some(AttributeValue::Bool(c.question.used_as()?.declared))),
    PolicyAttribute::new("context.after_end", |c| Some(AttributeValue::Bool(c.question.used_as()?.after_end))),
    PolicyAttribute::new("context.server", |c| Some(AttributeValue::Text(c.question.used_as()?.server))),
    PolicyAttribute::new("context.target_kind", |c| c.question.act()?.target_kind.map(AttributeValue::Text)),
    PolicyAttribute::new("context.target", |c| c.question.act()?.target.map(AttributeValue::Text)),
];
