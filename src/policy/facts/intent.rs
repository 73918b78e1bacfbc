//! Attributes of the request: what is asked for and for which purpose.

use super::{Fact, Value};

pub(super) const FACTS: &[Fact] = &[
    Fact::new("context.environment", |c| c.question.environment().map(Value::Text)),
    Fact::own("context.purpose", |c| Some(Value::Text(c.question.intent()?.purpose))),
    Fact::own("context.tool", |c| c.question.intent()?.tool.map(Value::Text)),
    Fact::own("context.arguments_digest", |c| c.question.intent()?.arguments_digest.map(Value::Text)),
    Fact::new("context.kind", |c| c.question.intent()?.kind.map(|k| Value::Text(k.as_str()))),
    Fact::new("context.scopes", |c| Some(Value::Texts(c.question.intent()?.scopes.to_vec()))),
    Fact::own("context.binding", |c| c.question.intent()?.binding.map(Value::Text)),
    Fact::new("context.sensitive", |c| {
        let (scopes, upstream) = (c.question.intent()?.scopes, c.question.upstream()?);
        // An unregistered scope counts as sensitive. The exchange refuses such a scope in any case.
        Some(Value::Bool(scopes.iter().any(|s| upstream.scope(s).is_none_or(|s| s.sensitive))))
    }),
    Fact::new("context.ttl_seconds", |c| Some(Value::Long(c.question.ask()?.ttl_seconds))),
    Fact::new("context.renewal", |c| Some(Value::Bool(c.question.ask()?.renewal))),
    Fact::new("context.break_glass", |c| {
        let in_ask = c.question.ask().map(|a| a.break_glass);
        in_ask.or(c.question.act().map(|a| a.break_glass)).map(Value::Bool)
    }),
    Fact::new("context.delegate", |c| c.question.ask()?.delegate.map(Value::Text)),
    Fact::new("context.caller", |c| c.question.asked_by().map(Value::Text)),
    Fact::new("context.outcome", |c| Some(Value::Text(c.question.used_as()?.outcome))),
    Fact::new("context.declared", |c| Some(Value::Bool(c.question.used_as()?.declared))),
    Fact::new("context.after_end", |c| Some(Value::Bool(c.question.used_as()?.after_end))),
    Fact::new("context.server", |c| Some(Value::Text(c.question.used_as()?.server))),
    Fact::new("context.target_kind", |c| c.question.act()?.target_kind.map(Value::Text)),
    Fact::new("context.target", |c| c.question.act()?.target.map(Value::Text)),
];
