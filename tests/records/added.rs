//! Records with fields that version 1 did not have: only the new fields of each record.

use mayfly::ledger::record::*;

use super::samples::{agent, digest, id, person, text};

/// The records by the folder and name of their samples.
pub fn all() -> Vec<(String, Record)> {
    let issued = CredentialIssued { credential: id(0xc2), replaces: id(0xc1), ..CredentialIssued::default() };
    let request = RequestRecord { caller: agent(), id: text("request-5"), digest: digest(0xd0) };
    let plain = Record::new(Author::SpiffeId(agent()), Event::Issued(issued.into()));
    let repeated = Record { request: Some(request.clone()), ..plain.clone() };
    // Since this version, a caller who is the author is not stored twice.
    let own = plain.for_request(Some(request));
    let chain = WriterHeadRecord { writer: 1, number: 39, header: digest(0xf2) };
    let removed =
        HistoryRemoved { before: 40, seq: (1 << 45) + 98, bytes: 123_456, time: 1_700_000_000_000, chains: vec![chain] };
    let removed = Record::new(Author::Mayfly(text("audit.keep")), Event::HistoryRemoved(removed));
    vec![
        (text("v2/20-issued-replaces"), repeated),
        (text("v3/20-issued-own-request"), own),
        (text("v4/72-history-removed"), removed),
    ]
    .into_iter()
    .chain(narrowing())
    .chain(asking())
    .chain(policies())
    .chain(acting())
    .chain(behalf())
    .chain(people())
    .chain(glass())
    .chain(tasks())
    .chain(traces())
    .chain(readings())
    .chain(leases())
    .chain(secrets())
    .chain(access())
    .chain(certified())
    .collect()
}

/// An issuance with the access that it gives at its upstream, and a refusal of a request for a part of what its scopes give.
fn access() -> impl Iterator<Item = (String, Record)> {
    let access = vec![text("can do: read, write"), text("database orders"), text("may INSERT on tables public.orders")];
    let issued = CredentialIssued { credential: id(0xc6), access, ..CredentialIssued::default() };
    let details = text(r#"[{"type":"postgres","grants":["SELECT on tables public.orders"]}]"#);
    let wanted = Some(Box::new(RefusedExchange { details, ..RefusedExchange::default() }));
    let refused = RequestsRefused { wanted, ..RequestsRefused::default() };
    let events = [("20-issued-access", Event::Issued(issued.into())), ("24-refused-details", Event::Refused(refused))];
    events.into_iter().map(|(name, event)| (format!("v16/{name}"), Record::new(Author::SpiffeId(agent()), event)))
}

/// A certificate with the key that it is for.
fn certified() -> impl Iterator<Item = (String, Record)> {
    let issued = CredentialIssued { kind: 3, key: text("key-2"), certified_key: digest(0x61), ..CredentialIssued::default() };
    let events = [("20-issued-certified-key", Event::Issued(issued.into()))];
    events.into_iter().map(|(name, event)| (format!("v16/{name}"), Record::new(Author::SpiffeId(agent()), event)))
}

/// Static secrets.
fn secrets() -> impl Iterator<Item = (String, Record)> {
    let stored = SecretStored {
        upstream: text("sentry"),
        environment: text("prod"),
        version: 3,
        value: id(0x51),
        target: text("https://sentry.example.org/api/0"),
        digest: digest(0x52),
        current: true,
        ends_previous: true,
        attempt: id(0x53),
    };
    let changed = SecretChanged {
        upstream: text("sentry"),
        environment: text("prod"),
        version: 3,
        step: SecretStep::RotationRequested as i32,
        reason: text("a credential was revoked"),
        attempt: id(0x54),
        at_once: true,
    };
    let events = [("62-secret-stored", Event::SecretStored(stored)), ("63-secret-changed", Event::SecretChanged(changed))];
    events.into_iter().map(|(name, event)| (format!("v15/{name}"), Record::new(Author::SpiffeId(agent()), event)))
}

/// A lease with the terms under which it is undone.
fn leases() -> impl Iterator<Item = (String, Record)> {
    let terms = text(r#"{"admin":"mayfly","target":"postgres://db.example.org/orders"}"#);
    let opened = LeaseOpened { lease: id(7), credential: id(0xc5), terms, ..LeaseOpened::default() };
    [(text("v14/60-lease-opened-terms"), Record::new(Author::SpiffeId(agent()), Event::LeaseOpened(opened)))].into_iter()
}

/// Records of audit reads and backups.
fn readings() -> impl Iterator<Item = (String, Record)> {
    let read = AuditRead {
        of: AuditReadKind::Search as i32,
        asked: vec![text("event=revoked"), text("names=c1")],
        reads: 3,
        returned: 120,
        since: 1_700_000_000_000,
    };
    let taken = BackedUp { to: text("/backup/tuesday"), head: (1 << 45) + 99, whole: true };
    let events = [("90-audit-read", Event::AuditRead(read)), ("91-backed-up", Event::BackedUp(taken))];
    events.into_iter().map(|(name, event)| (format!("v13/{name}"), Record::new(Author::SpiffeId(agent()), event)))
}

/// Records of a traced call: an issuance, and a record that is no issuance.
fn traces() -> impl Iterator<Item = (String, Record)> {
    let issued = Event::Issued(CredentialIssued { credential: id(0xc3), ..CredentialIssued::default() }.into());
    let noted = Event::Maintained(Maintained { what: text("a drill") });
    let events = [("20-issued-traced", issued), ("71-maintained-traced", noted)];
    events
        .map(|(name, event)| (format!("v11/{name}"), Record { trace: id(0x7f), ..Record::new(Author::SpiffeId(agent()), event) }))
        .into_iter()
}

/// Approved tasks: opened, and extended.
fn tasks() -> impl Iterator<Item = (String, Record)> {
    let upstreams = vec![AllowedUpstream { name: text("warehouse"), scopes: vec![text("export")] }];
    let terms = RequestedTask {
        owner: Some(person("ada")),
        parent: id(1),
        callers: vec![text("spiffe://prod.example.org/mcp/tools")],
        allowance: Some(Allowance { upstreams, tools: vec![text("export")], ..Allowance::default() }),
        purpose: text("nightly export"),
        ttl: 600_000,
        max_ttl: 3_600_000,
        heartbeat: 30_000,
        registrations: vec![RequestedRegistration { upstream: text("warehouse"), version: 4 }],
        deadline: 1_700_001_200_000,
    };
    let asked = ApprovalRequested {
        approval: id(7),
        of: ApprovalKind::Extension as i32,
        task: id(2),
        terms: Some(terms.into()),
        ..ApprovalRequested::default()
    };
    let extended = TaskExtended { task: id(2), approval: id(7), caller: agent(), ..TaskExtended::default() };
    let events = [
        ("15-task-extended-approved", Event::TaskExtended(extended)),
        ("50-approval-asked-task", Event::ApprovalAsked(asked.into())),
    ];
    events.into_iter().map(|(name, event)| (format!("v10/{name}"), Record::new(Author::SpiffeId(agent()), event)))
}

/// Records of people who sign in, sign out, and decide.
fn people() -> impl Iterator<Item = (String, Record)> {
    let logged_in = LoggedIn {
        credential: id(0xe1),
        person: Some(person("ada")),
        caller: text("spiffe://people.example.org/people/corp/ada"),
        amr: vec![text("mfa"), text("pwd")],
        acr: text("urn:example:high"),
        auth_time: 1_700_000_000_000,
        issued_at: 1_700_000_001_000,
        expires_at: 1_700_003_600_000,
        key: text("cakey"),
        svid: Some(SvidEvidence {
            anchor: digest(0xe2),
            issuing_key: digest(0xe3),
            serial: id(0xe1),
            not_after: 1_700_003_600_000,
        }),
        certificate: digest(0xe4),
        token: Some(TokenEvidence { issuer: text("https://idp.example"), id: text("jti-1"), expires_at: 1_700_000_300_000 }),
        flow: text("code"),
        environment: text("dev"),
        policy_version: 5,
        policies: vec![text("people-sign-in")],
        provider: text("corp"),
        job: None,
    };
    let job = LoggedIn {
        person: Some(Principal { issuer: text("https://token.example"), sub: text("repo:acme/web:ref:refs/heads/main") }),
        caller: text("spiffe://people.example.org/ci/hub/1296269/deploy"),
        flow: text("attested"),
        provider: text("hub"),
        job: Some(Attestation {
            rule: text("deploy"),
            id: text("1296269"),
            claims: vec![text("ref=refs/heads/main"), text("repository_id=1296269")],
        }),
        ..LoggedIn::default()
    };
    let decided =
        ApprovalDecided { approval: id(7), given: true, reason: text("as agreed"), digest: digest(0xb1), login: id(0xe1) };
    let events = [
        ("51-approval-decided-login", Event::ApprovalDecided(decided)),
        ("80-logged-in", Event::LoggedIn(Box::new(logged_in))),
        ("81-logged-out", Event::LoggedOut(LoggedOut { credential: id(0xe1) })),
    ];
    let by_person = |(name, event)| (format!("v7/{name}"), Record::new(Author::Person(person("ada")), event));
    let caller = Author::SpiffeId(job.caller.clone());
    let attested = (text("v8/80-logged-in-job"), Record::new(caller, Event::LoggedIn(Box::new(job))));
    events.into_iter().map(by_person).chain([attested])
}

/// Records of break-glass, step by step, and of actions in it.
fn glass() -> impl Iterator<Item = (String, Record)> {
    let svid = SvidEvidence { anchor: digest(0xe1), issuing_key: digest(0xe2), serial: vec![7], not_after: 1_700_000_600_000 };
    let joined = BreakGlassStepTaken {
        task: id(2),
        people: vec![person("grace"), person("ada")],
        reviewer: None,
        text: text("database down"),
        rights: text("production-down"),
        step: BreakGlassStep::Joined as i32,
        caller: agent(),
        policy_version: 3,
        decided_at: 1_700_000_100_000,
        environment: text("dev"),
        svid: Some(svid),
        ancestor: id(5),
    };
    let refused = RequestsRefused { count: 1, break_glass: true, ..RequestsRefused::default() };
    let due = DeadlineReached {
        of: DeadlineKind::Upstream as i32,
        id: id(7),
        name: text("github"),
        version: 3,
        at: 1_700_000_900_000,
        environment: text("dev"),
        owner: text("payments-team"),
    };
    let issued = CredentialIssued { credential: id(0xc3), break_glass: true, ..CredentialIssued::default() };
    let events = [
        ("46-break-glass-joined", Event::BreakGlass(joined)),
        ("24-refused-break-glass", Event::Refused(refused)),
        ("20-issued-break-glass", Event::Issued(issued.into())),
        ("82-fell-due", Event::FellDue(due)),
    ];
    events.into_iter().map(|(name, event)| (format!("v7/{name}"), Record::new(Author::LocalUid(1000), event)))
}

/// Refusals by policy, and decisions that another policy set would have made differently.
fn policies() -> impl Iterator<Item = (String, Record)> {
    let wanted = RefusedExchange {
        environment: text("dev"),
        upstream: text("github"),
        upstream_version: 3,
        policy_version: 5,
        task: id(2),
        kind: 1,
        scopes: vec![text("repo:write")],
        tool: text("deploy"),
        purpose: text("release"),
        arguments: digest(0xb3),
        ttl: 300_000,
        renewal: true,
        binding: text("agents-deploy"),
        ..RefusedExchange::default()
    };
    let differed = PolicyDiffered {
        environment: text("dev"),
        version: 2,
        enforced: 5,
        caller: agent(),
        action: text("Exchange"),
        upstream: text("github"),
        permits: true,
        policies: vec![text("agents-read")],
        since: 1_700_000_000_000,
        count: 12,
    };
    let refused = RequestsRefused { count: 1, wanted: Some(wanted.into()), ..RequestsRefused::default() };
    let events = [("24-refused-wanted", Event::Refused(refused)), ("49-policy-differed", Event::PolicyDiffered(differed.into()))];
    events.into_iter().map(|(name, event)| (format!("v6/{name}"), Record::new(Author::LocalUid(1000), event)))
}

/// Authorizations without an issuance, and uses with their credentials.
fn acting() -> impl Iterator<Item = (String, Record)> {
    let decided = CredentialIssued { caller: agent(), task: id(2), upstream: text("github"), ..CredentialIssued::default() };
    let authorized =
        ActionAuthorized { decided: Some(decided.into()), good_until: 1_700_000_010_000, ..ActionAuthorized::default() };
    let used =
        UsesReported { task: id(2), undeclared: true, after_end: true, upstream: text("github"), ..UsesReported::default() };
    let events = [("22-authorized-decided", Event::Authorized(authorized)), ("23-uses-reported-task", Event::UsesReported(used))];
    events.into_iter().map(|(name, event)| (format!("v7/{name}"), Record::new(Author::SpiffeId(agent()), event)))
}

/// Records on behalf of a subject, with the claims of its token.
fn behalf() -> impl Iterator<Item = (String, Record)> {
    let token = TokenEvidence { issuer: text("https://idp.example"), id: text("t-1"), expires_at: 1_700_000_900_000 };
    let claims = SubjectClaims { groups: vec![text("finance")], scopes: vec![text("orders:read")] };
    let actors = vec![Principal { issuer: text("example.org"), sub: agent() }];
    let opened = TaskOpened {
        owner: Some(person("ada")),
        subject_token: Some(token),
        actors: actors.clone(),
        subject_claims: Some(claims.clone()),
        ..TaskOpened::default()
    };
    let issued =
        CredentialIssued { subject: Some(person("ada")), subject_claims: Some(claims.clone()), ..CredentialIssued::default() };
    let wanted =
        RefusedExchange { subject: Some(person("ada")), actors, subject_claims: Some(claims), ..RefusedExchange::default() };
    let refused = RequestsRefused { count: 1, wanted: Some(wanted.into()), ..RequestsRefused::default() };
    let events = [
        ("11-task-opened-behalf", Event::TaskOpened(opened.into())),
        ("20-issued-subject-claims", Event::Issued(issued.into())),
        ("24-refused-behalf", Event::Refused(refused)),
    ];
    events.into_iter().map(|(name, event)| (format!("v7/{name}"), Record::new(Author::SpiffeId(agent()), event)))
}

/// Approvals with the kind of action that they permit.
fn asking() -> impl Iterator<Item = (String, Record)> {
    let binding = BindingUpdated { name: text("agents-search"), version: 2, ..BindingUpdated::default() };
    let policy = PolicySetUpdated { environment: text("dev"), version: 5, ..PolicySetUpdated::default() };
    let asked = |to| ApprovalRequested {
        approval: id(7),
        digest: digest(0xb1),
        caller: agent(),
        task: id(2),
        upstream: text("github"),
        expires_at: 1_700_000_900_000,
        of: ApprovalKind::Change as i32,
        environment: text("dev"),
        scopes: vec![text("repo:write")],
        kind: 1,
        ttl: 300_000,
        tool: text("deploy"),
        arguments: digest(0xb3),
        purpose: text("release"),
        upstream_version: 3,
        binding: text("agents-deploy"),
        binding_version: 2,
        approvers: vec![person("grace")],
        policies: vec![text("deploys-need-somebody")],
        subject: Some(person("ada")),
        actors: vec![person("mary")],
        details: text("[]"),
        opens: true,
        change: Some(ProposedChangeRecord { to: Some(to) }),
        reason: text("as agreed"),
        terms: None,
    };
    let decided =
        ApprovalDecided { approval: id(7), given: true, reason: text("as agreed"), digest: digest(0xb1), login: vec![] };
    let events = [
        ("50-approval-asked-binding", Event::ApprovalAsked(asked(ProposedChange::Binding(binding)).into())),
        ("50-approval-asked-policy", Event::ApprovalAsked(asked(ProposedChange::Policy(policy)).into())),
        ("51-approval-decided-digest", Event::ApprovalDecided(decided)),
    ];
    events.into_iter().map(|(name, event)| (format!("v5/{name}"), Record::new(Author::LocalUid(1000), event)))
}

/// Versions that revoke credentials, and owners who leave.
fn narrowing() -> impl Iterator<Item = (String, Record)> {
    let looked = (1 << 45) + 7;
    let left = OwnerLeft { owner: text("payments-team"), reason: text("team dissolved"), returned: true };
    let narrowed = NarrowingCompleted { what: NarrowedKind::Upstream as i32, name: text("github"), version: 3 };
    let events = [
        ("40-policy-set-looked", Event::PolicySet(PolicySetUpdated { looked, ..PolicySetUpdated::default() })),
        ("41-upstream-set-looked", Event::UpstreamSet(UpstreamUpdated { looked, ..UpstreamUpdated::default() })),
        ("42-binding-set-looked", Event::BindingSet(BindingUpdated { looked, ..BindingUpdated::default() })),
        ("47-owner-left", Event::OwnerLeft(left)),
        ("48-narrowed", Event::Narrowed(narrowed)),
    ];
    events.into_iter().map(|(name, event)| (format!("v5/{name}"), Record::new(Author::LocalUid(1000), event)))
}
