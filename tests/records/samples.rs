//! One record of each event, every field set that version 1 had: what its samples hold. What came later stands beside them.

use mayfly::ledger::record::*;

/// Credential kinds by their persisted numbers.
pub const KINDS: &[(u8, &str)] = &[
    (1, "jwt"),
    (2, "reference"),
    (3, "x509"),
    (4, "ssh"),
    (5, "postgres"),
    (6, "oauth"),
    (7, "aws"),
    (8, "github"),
    (9, "secret"),
    (10, "mysql"),
    (11, "redis"),
    (12, "federation"),
];

pub fn id(n: u8) -> Vec<u8> {
    vec![n; 16]
}

pub fn digest(n: u8) -> Vec<u8> {
    vec![n; 32]
}

pub fn text(t: &str) -> String {
    t.to_owned()
}

pub fn person(name: &str) -> Principal {
    Principal { issuer: text("https://idp.example"), sub: text(name) }
}

pub fn agent() -> String {
    text("spiffe://example.org/ns/agents/one")
}

fn svid() -> SvidEvidence {
    SvidEvidence { anchor: digest(0xa1), issuing_key: digest(0xa2), serial: vec![1, 2, 3], not_after: 1_700_000_300_000 }
}

/// Every event with its name, in the order of the tags. The authors take turns.
pub fn all() -> Vec<(String, Record)> {
    let events = [tasks(), credentials(), revocations(), registry(), approvals(), upkeep()].concat();
    let authors = [
        Author::SpiffeId(agent()),
        Author::Person(person("grace")),
        Author::LocalUid(1000),
        Author::Mayfly(text("heartbeat missed")),
    ];
    let records = events.into_iter().enumerate().map(|(n, (name, event))| {
        let request = RequestRecord { caller: agent(), id: format!("request-{n}"), digest: digest(0xd0) };
        let who = Some(authors[n % authors.len()].clone());
        let revision = (1 << 45) + n as u64;
        (
            text(name),
            Record {
                author: Some(AuthorRecord { who }),
                revision,
                request: Some(request),
                group: 1 << 31 | 9,
                trace: Vec::new(),
                event: Some(event),
            },
        )
    });
    records.collect()
}

fn tasks() -> Vec<(&'static str, Event)> {
    let allowance = Allowance {
        upstreams: vec![AllowedUpstream { name: text("echo"), scopes: vec![text("echo:read"), text("echo:write")] }],
        tools: vec![text("search")],
        kinds: vec![1, 2],
        key_bound: true,
        any_tool: true,
    };
    let opened = TaskOpened {
        task: id(2),
        parent: id(1),
        owner: Some(person("grace")),
        opener: agent(),
        callers: vec![text("spiffe://example.org/ns/tools/echo")],
        environment: text("dev"),
        purpose: text("triage of ticket 7"),
        allowance: Some(allowance),
        opened_at: 1_700_000_000_000,
        deadline: 1_700_000_600_000,
        max_deadline: 1_700_003_600_000,
        heartbeat: 10_000,
        policy_version: 3,
        svid: Some(svid()),
        approval: id(4),
        ancestor: id(5),
        break_glass: true,
        ..TaskOpened::default()
    };
    let begun =
        GenerationBegun { generation: 2, cause: text("recovered"), store: id(9), after: (1 << 45) + 77, reset_time: true };
    let closed =
        TaskClosed { task: id(2), outcome: TaskOutcome::Cancelled as i32, reason: text("done"), keep_until: 1_700_004_000_000 };
    let extended = TaskExtended {
        task: id(2),
        deadline: 1_700_001_200_000,
        decided_at: 1_700_000_100_000,
        policy_version: 3,
        ..Default::default()
    };
    vec![
        ("10-generation-begun", Event::GenerationBegun(begun)),
        ("11-task-opened", Event::TaskOpened(opened.into())),
        ("12-task-closed", Event::TaskClosed(closed)),
        ("13-task-held", Event::TaskHeld(TaskHeld { task: id(2), rank: HoldRank::Operator as i32, reason: text("odd use") })),
        (
            "14-task-resumed",
            Event::TaskResumed(TaskResumed { task: id(2), rank: HoldRank::Operator as i32, reason: text("explained") }),
        ),
        ("15-task-extended", Event::TaskExtended(extended)),
        (
            "16-task-heartbeats",
            Event::TaskHeartbeats(TaskHeartbeats { tasks: vec![id(2), id(3)], all: true, away_since: 1_700_000_000_500 }),
        ),
    ]
}

fn credentials() -> Vec<(&'static str, Event)> {
    let issued = CredentialIssued {
        credential: id(0xc1),
        task: id(2),
        kind: 1,
        caller: agent(),
        subject: Some(person("grace")),
        actors: vec![Principal { issuer: text("example.org"), sub: agent() }],
        upstream: text("echo"),
        scopes: vec![text("echo:read")],
        details: text("[{\"type\":\"echo\"}]"),
        tool: text("search"),
        purpose: text("look for duplicates"),
        arguments: digest(0xa6),
        binding: text("agents-search"),
        environment: text("dev"),
        issued_at: 1_700_000_000_000,
        expires_at: 1_700_000_300_000,
        renewable_until: 1_700_003_600_000,
        bound: 6,
        svid: Some(svid()),
        subject_token: Some(TokenEvidence {
            issuer: text("https://idp.example"),
            id: text("t-1"),
            expires_at: 1_700_000_900_000,
        }),
        ancestors: vec![Ancestor { credential: id(0xc0), caller: agent() }],
        key: text("key-1"),
        x5t: digest(0x51),
        jkt: digest(0x52),
        status_list: 17,
        status_index: 1_048_575,
        policy_version: 3,
        upstream_version: 2,
        binding_version: 1,
        approval: id(4),
        lease: id(6),
        token_digest: digest(0x77),
        policies: vec![text("agents-read")],
        renews: id(0xc0),
        shown: id(0xc0),
        replaces: Vec::new(),
        ..CredentialIssued::default()
    };
    let authorized = ActionAuthorized {
        credential: id(0xc1),
        tool: text("search"),
        arguments: digest(0xa6),
        policy_version: 3,
        ..ActionAuthorized::default()
    };
    let uses = UsesReported {
        credential: id(0xc1),
        tool: text("search"),
        outcome: text("ok"),
        minute: 1_700_000_040_000,
        count: 12,
        ..UsesReported::default()
    };
    let refused = RequestsRefused {
        caller: agent(),
        reason: text("DENIED_BY_POLICY"),
        rule: text("agents-read"),
        asked: text("github"),
        task: text("task_aaaa"),
        since: 1_700_000_000_000,
        count: 5,
        wanted: None,
        break_glass: false,
    };
    vec![
        ("20-issued", Event::Issued(issued.into())),
        ("21-released", Event::Released(CredentialReleased { credential: id(0xc1), keep_until: 1_700_004_000_000 })),
        ("22-authorized", Event::Authorized(authorized)),
        ("23-uses-reported", Event::UsesReported(uses)),
        ("24-refused", Event::Refused(refused)),
    ]
}

fn revocations() -> Vec<(&'static str, Event)> {
    let two = |a: &str, b: &str| Principal { issuer: text(a), sub: text(b) };
    let aims = [
        RecordedTarget::Credential(id(0xc1)),
        RecordedTarget::Task(id(2)),
        RecordedTarget::Caller(agent()),
        RecordedTarget::Prefix(text("spiffe://example.org/ns/agents")),
        RecordedTarget::TrustDomain(text("example.org")),
        RecordedTarget::TrustAnchor(digest(0xa1)),
        RecordedTarget::Subject(person("grace")),
        RecordedTarget::Upstream(text("echo")),
        RecordedTarget::UpstreamScope(two("echo", "echo:write")),
        RecordedTarget::Binding(text("agents-search")),
        RecordedTarget::Tool(text("search")),
        RecordedTarget::Environment(text("dev")),
        RecordedTarget::PolicyBelow(PolicyBelow { environment: text("dev"), version: 3 }),
        RecordedTarget::SigningKey(text("key-1")),
        RecordedTarget::Svid(SvidTarget { trust_domain: text("example.org"), issuing_key: digest(0xa2), serial: vec![1, 2, 3] }),
        RecordedTarget::SubjectToken(two("https://idp.example", "t-1")),
        RecordedTarget::Everything(true),
    ];
    let targets: Vec<TargetRecord> = aims.into_iter().map(|aim| TargetRecord { aim: Some(aim) }).collect();
    let revoked = TargetsRevoked {
        targets: targets.clone(),
        issued_only: true,
        reason: text("laptop lost"),
        keep_until: 1_700_004_000_000,
        lock_only: true,
    };
    vec![
        ("30-revoked", Event::Revoked(revoked)),
        ("31-lock-lifted", Event::LockLifted(LockLifted { targets, reason: text("found again") })),
    ]
}

fn registry() -> Vec<(&'static str, Event)> {
    let policy = PolicySetUpdated {
        environment: text("dev"),
        version: 4,
        digest: digest(0xe1),
        text: text("{\"format\":1}"),
        audit_only: true,
        looked: 0,
    };
    let upstream = UpstreamUpdated {
        name: text("echo"),
        version: 2,
        digest: digest(0xe2),
        text: text("{}"),
        disabled: true,
        retired: true,
        looked: 0,
    };
    let binding = BindingUpdated {
        name: text("agents-search"),
        version: 1,
        digest: digest(0xe3),
        text: text("{}"),
        pending: true,
        looked: 0,
    };
    let bundle = BundleUpdated {
        trust_domain: text("example.org"),
        sequence: Some(12),
        anchors: vec![digest(0xa1), digest(0xa3)],
        digest: digest(0xe4),
        document: b"{\"keys\":[]}".to_vec(),
        source: text("file"),
        removed: true,
        kept_out: vec![digest(0xa4)],
        kept_in: vec![digest(0xa5)],
        ..BundleUpdated::default()
    };
    let added = KeyAdded {
        key: text("key-1"),
        purpose: KeyPurpose::AccessToken as i32,
        algorithm: text("ES256"),
        public: vec![4; 65],
        environment: text("dev"),
        state: KeyState::Next as i32,
        publish_ahead: 600_000,
    };
    let changed = KeyChanged { key: text("key-1"), state: KeyState::Compromised as i32, reason: text("backup stolen") };
    let glass = BreakGlassStepTaken {
        task: id(2),
        people: vec![person("grace"), person("ada")],
        reviewer: Some(person("mary")),
        text: text("database down"),
        ..BreakGlassStepTaken::default()
    };
    vec![
        ("40-policy-set", Event::PolicySet(policy)),
        ("41-upstream-set", Event::UpstreamSet(upstream)),
        ("42-binding-set", Event::BindingSet(binding)),
        ("43-bundle-set", Event::BundleSet(bundle)),
        ("44-key-added", Event::KeyAdded(added)),
        ("45-key-changed", Event::KeyChanged(changed)),
        ("46-break-glass", Event::BreakGlass(glass)),
    ]
}

fn approvals() -> Vec<(&'static str, Event)> {
    let asked = ApprovalRequested {
        approval: id(4),
        digest: digest(0xb1),
        caller: agent(),
        task: id(2),
        upstream: text("github"),
        expires_at: 1_700_000_900_000,
        ..ApprovalRequested::default()
    };
    vec![
        ("50-approval-asked", Event::ApprovalAsked(asked.into())),
        (
            "51-approval-decided",
            Event::ApprovalDecided(ApprovalDecided {
                approval: id(4),
                given: true,
                reason: text("as agreed"),
                digest: vec![],
                login: vec![],
            }),
        ),
        ("52-used-once", Event::UsedOnce(UsedOnce { digest: digest(0xb2), until: 1_700_000_900_000, ..UsedOnce::default() })),
    ]
}

fn upkeep() -> Vec<(&'static str, Event)> {
    let opened = LeaseOpened {
        lease: id(6),
        credential: id(0xc1),
        task: id(2),
        upstream: text("warehouse"),
        kind: 5,
        handle: text("mayfly_c1c1"),
        ends_at: 1_700_000_300_000,
        terms: String::new(),
    };
    let closed = LeaseClosed { lease: id(6), end: LeaseEnd::Undone as i32, detail: text("role dropped") };
    let taken = SnapshotTaken { seq: (1 << 45) + 99, position: 40, digest: digest(0xf1) };
    vec![
        ("60-lease-opened", Event::LeaseOpened(opened)),
        ("61-lease-closed", Event::LeaseClosed(closed)),
        ("70-snapshot-taken", Event::SnapshotTaken(taken)),
        ("71-maintained", Event::Maintained(Maintained { what: text("exported") })),
    ]
}
