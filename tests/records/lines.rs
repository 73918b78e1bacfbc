//! A task that was opened on a credential of ours says all that this rests on.

use mayfly::ledger::record::*;

use super::samples::{agent, digest, id, person, text};

/// By the folder and name of the sample.
pub fn all() -> Vec<(String, Record)> {
    let ancestor = |n: u8| Ancestor { credential: id(n), caller: agent() };
    let opened = TaskOpened {
        owner: Some(person("ada")),
        ancestor: id(0xc2),
        ancestors: vec![ancestor(0xc1), ancestor(0xc2)],
        ..TaskOpened::default()
    };
    let mut all =
        vec![(text("v8/11-task-opened-ancestors"), Record::new(Author::SpiffeId(agent()), Event::TaskOpened(opened.into())))];
    all.extend(trust());
    all
}

/// What a second operator lets through of trust and registrations, and an operator's call that was approved.
fn trust() -> impl Iterator<Item = (String, Record)> {
    let bundle = BundleUpdated {
        trust_domain: text("example.org"),
        reason: text("a partner"),
        added: vec![digest(0xa6)],
        gone: vec![digest(0xa7)],
        planned_on: Some((1 << 45) + 5),
        ..BundleUpdated::default()
    };
    let upstream = UpstreamUpdated {
        name: text("github"),
        version: 4,
        digest: digest(0xe5),
        text: text("{}"),
        ..UpstreamUpdated::default()
    };
    let asked = |of: ApprovalKind, to: Option<ProposedChange>| {
        let change = to.map(|to| ProposedChangeRecord { to: Some(to) });
        let (approval, digest) = (id(8), digest(0xb4));
        Event::ApprovalAsked(ApprovalRequested { approval, digest, of: of as i32, change, ..ApprovalRequested::default() }.into())
    };
    let used = UsedOnce { digest: digest(0xb5), until: 1_700_000_900_000, approval: id(8) };
    let events = [
        ("43-bundle-set-why", Event::BundleSet(bundle.clone())),
        ("50-approval-asked-bundle", asked(ApprovalKind::Change, Some(ProposedChange::Bundle(bundle.into())))),
        ("50-approval-asked-upstream", asked(ApprovalKind::Change, Some(ProposedChange::Upstream(upstream)))),
        ("50-approval-asked-call", asked(ApprovalKind::Call, None)),
        ("52-used-once-approval", Event::UsedOnce(used)),
    ];
    events.into_iter().map(|(name, event)| (format!("v12/{name}"), Record::new(Author::LocalUid(1000), event)))
}
