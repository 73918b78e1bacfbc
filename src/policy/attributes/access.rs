//! Attributes of the access that a credential gives at its upstream, as the registration says.

use std::collections::BTreeSet;

use super::{AttributeValue, PolicyAttribute, ResolvedQuestion};
use mayfly_ledger::upstream::access::GrantedAccess;

pub(super) const FACTS: &[PolicyAttribute] = &[
    PolicyAttribute::new("context.access.read_only", |c| Some(AttributeValue::Bool(c.question.access()?.read_only()))),
    PolicyAttribute::new("context.access.levels", |c| {
        Some(AttributeValue::Texts(c.question.access()?.levels.iter().map(|level| level.as_str()).collect()))
    }),
    PolicyAttribute::new("context.access.host", |c| text(c, |a| a.host.as_deref())),
    PolicyAttribute::new("context.access.database", |c| text(c, |a| a.database.as_deref())),
    PolicyAttribute::new("context.access.role_arn", |c| text(c, |a| a.role_arn.as_deref())),
    PolicyAttribute::new("context.access.audience", |c| text(c, |a| a.audience.as_deref())),
    PolicyAttribute::new("context.access.resource", |c| text(c, |a| a.resource.as_deref())),
    PolicyAttribute::new("context.access.privileges", |c| texts(c, |a| &a.privileges)),
    PolicyAttribute::new("context.access.objects", |c| texts(c, |a| &a.objects)),
    PolicyAttribute::new("context.access.grants", |c| texts(c, |a| &a.grants)),
    PolicyAttribute::new("context.access.roles", |c| texts(c, |a| &a.roles)),
    PolicyAttribute::new("context.access.repositories", |c| texts(c, |a| &a.repositories)),
    PolicyAttribute::new("context.access.repository_names", |c| texts(c, |a| &a.repository_names)),
    PolicyAttribute::new("context.access.all_repositories", |c| {
        Some(AttributeValue::Bool(c.question.access()?.all_repositories))
    }),
    PolicyAttribute::new("context.access.permissions", |c| texts(c, |a| &a.permissions)),
    PolicyAttribute::new("context.access.upstream_scopes", |c| texts(c, |a| &a.upstream_scopes)),
];

fn text<'a>(case: &ResolvedQuestion<'a>, of: fn(&GrantedAccess) -> Option<&str>) -> Option<AttributeValue<'a>> {
    of(case.question.access()?).map(AttributeValue::Text)
}

fn texts<'a>(case: &ResolvedQuestion<'a>, of: fn(&GrantedAccess) -> &BTreeSet<String>) -> Option<AttributeValue<'a>> {
    Some(AttributeValue::Texts(of(case.question.access()?).iter().map(String::as_str).collect()))
}
