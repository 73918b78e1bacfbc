//! Tests of the content of events: what each record's event contains, and what no event may contain.

use super::*;
use mayfly_base::limits;
use mayfly_ledger::State;
use mayfly_ledger::record::*;

fn record(event: Event) -> Record {
    Record::new(Author::SpiffeId("spiffe://td/ada".into()), event)
}

fn of(event: Event) -> Option<WebhookEvent> {
    webhook_event(&record(event), &State::default())
}

fn json(told: &WebhookEvent) -> serde_json::Value {
    serde_json::from_str(&told.body(Seq::start_of(1), Millis(1_795_161_600_000))).unwrap()
}

#[test]
fn every_type_is_one_that_some_record_is() {
    let step = |step: BreakGlassStep| {
        Event::BreakGlass(BreakGlassStepTaken {
            step: step as i32,
            environment: "prod".into(),
            rights: "down".into(),
            ..Default::default()
        })
    };
    let break_glass = CredentialIssued { break_glass: true, environment: "prod".into(), ..Default::default() };
    let due =
        |of: DeadlineKind| Event::FellDue(DeadlineReached { of: of as i32, environment: "prod".into(), ..Default::default() });
    let decided = |given| Event::ApprovalDecided(ApprovalDecided { given, ..Default::default() });
    let lock = LockLifted::default();
    let read = |of: AuditReadKind, reads| Event::AuditRead(AuditRead { of: of as i32, reads, ..Default::default() });
    let events = [
        Event::ApprovalAsked(ApprovalRequested { environment: "prod".into(), ..Default::default() }.into()),
        decided(true),
        decided(false),
        due(DeadlineKind::Approval),
        step(BreakGlassStep::Opened),
        step(BreakGlassStep::Joined),
        Event::Issued(break_glass.into()),
        Event::Refused(RequestsRefused { break_glass: true, ..Default::default() }),
        step(BreakGlassStep::Reviewed),
        Event::TaskHeld(TaskHeld { rank: HoldRank::Policy as i32, ..Default::default() }),
        Event::Revoked(TargetsRevoked::default()),
        Event::Revoked(TargetsRevoked { lock_only: true, ..Default::default() }),
        Event::LockLifted(lock),
        due(DeadlineKind::Upstream),
        Event::OwnerLeft(OwnerLeft::default()),
        Event::BundleSet(BundleUpdated::default()),
        Event::PolicySet(PolicySetUpdated::default()),
        Event::UpstreamSet(UpstreamUpdated::default()),
        Event::BindingSet(BindingUpdated::default()),
        Event::KeyAdded(KeyAdded::default()),
        Event::SecretStored(SecretStored::default()),
        Event::LoggedIn(LoggedIn::default().into()),
        Event::GenerationBegun(GenerationBegun::default()),
        Event::BackedUp(BackedUp::default()),
        Event::BackedUp(BackedUp { whole: true, ..Default::default() }),
        read(AuditReadKind::Export, 1),
    ];
    assert_eq!(of(Event::KeyChanged(KeyChanged::default())).map(|told| told.kind), Some("key.changed"));
    assert_eq!(of(Event::SecretChanged(SecretChanged::default())).map(|told| told.kind), Some("secret.changed"));
    let mut kinds: Vec<&str> = events.into_iter().filter_map(of).map(|told| told.kind).collect();
    // The state tells whether a closed task was break-glass.
    kinds.insert(8, "break_glass.closed");
    assert_eq!(kinds, TYPES);
    for quiet in [
        Event::Issued(CredentialIssued::default().into()),
        Event::Refused(RequestsRefused::default()),
        Event::TaskHeld(TaskHeld { rank: HoldRank::Operator as i32, ..Default::default() }),
        Event::OwnerLeft(OwnerLeft { returned: true, ..Default::default() }),
        Event::TaskClosed(TaskClosed::default()),
        step(BreakGlassStep::Unspecified),
        read(AuditReadKind::Search, 1),
        read(AuditReadKind::Explain, 4),
        read(AuditReadKind::Export, 0),
    ] {
        assert_eq!(of(quiet), None);
    }
}

#[test]
fn an_action_that_was_authorized_in_break_glass_is_a_use_of_it() {
    let decided = |break_glass| {
        let decided =
            CredentialIssued { break_glass, caller: "spiffe://td/ada".into(), environment: "prod".into(), ..Default::default() };
        Event::Authorized(ActionAuthorized { decided: Some(decided.into()), good_until: 1_795_161_600_000, ..Default::default() })
    };
    assert_eq!(of(decided(false)), None);
    let told = of(decided(true)).unwrap();
    let (data, kind) = (&json(&told)["data"], told.kind);
    assert_eq!((kind, data["authorized_only"].as_bool(), data["credential"].is_null()), ("break_glass.used", Some(true), true));
    assert_eq!((data["by"].as_str(), data["expires_at"].as_str()), (Some("spiffe://td/ada"), Some("2026-11-20T08:00:00Z")));
}

#[test]
fn a_body_says_what_and_when_in_texts_that_do_nothing_to_a_screen() {
    let joined = BreakGlassStepTaken {
        step: BreakGlassStep::Joined as i32,
        task: vec![1; 16],
        people: vec![Principal { issuer: "https://idp".into(), sub: "a\u{202e}da".into() }],
        text: "it\u{1b}[2J burns\u{200b}".into(),
        rights: "down".into(),
        environment: "prod".into(),
        ..Default::default()
    };
    let told = of(Event::BreakGlass(joined)).unwrap();
    let body = json(&told);
    assert_eq!((body["type"].as_str(), body["timestamp"].as_str()), (Some("break_glass.joined"), Some("2026-11-20T08:00:00Z")));
    let data = &body["data"];
    assert_eq!((data["text"].as_str(), data["environment"].as_str()), (Some("it[2J burns"), Some("prod")));
    assert_eq!((data["people"][0].as_str(), data["seq"].as_u64()), (Some("https://idp#ada"), Some(Seq::start_of(1).as_u64())));
}

#[test]
fn arguments_are_told_by_their_digest_and_a_body_that_would_be_too_large_by_its_record() {
    let mut asked =
        ApprovalRequested { environment: "prod".into(), arguments: vec![7; 32], purpose: "export".into(), ..Default::default() };
    let told = of(Event::ApprovalAsked(asked.clone().into())).unwrap();
    assert_eq!(json(&told)["data"]["arguments_sha256"].as_str().unwrap(), "07".repeat(32));
    asked.purpose = "x".repeat(limits::WEBHOOK_BODY_BYTES);
    let body = of(Event::ApprovalAsked(asked.into())).unwrap().body(Seq::start_of(1), Millis(0));
    assert!(body.len() < limits::WEBHOOK_BODY_BYTES);
    let body: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!((body["data"]["truncated"].as_bool(), body["type"].as_str()), (Some(true), Some("approval.asked")));
}

#[test]
fn environments_are_walls_here_too() {
    let (dev, all) = (["dev".to_owned()], []);
    assert!(
        EventEnvironment::In("dev".into()).fits(&dev)
            && !EventEnvironment::In("prod".into()).fits(&dev)
            && EventEnvironment::In("prod".into()).fits(&all)
    );
    assert!(EventEnvironment::Everywhere.fits(&dev), "what concerns all concerns each");
    assert!(!EventEnvironment::Unknown.fits(&dev) && EventEnvironment::Unknown.fits(&all));
    let aim = |aim| Event::Revoked(TargetsRevoked { targets: vec![TargetRecord { aim: Some(aim) }], ..Default::default() });
    assert_eq!(of(aim(RecordedTarget::Environment("prod".into()))).unwrap().of, EventEnvironment::In("prod".into()));
    assert_eq!(of(aim(RecordedTarget::Caller("spiffe://td/x".into()))).unwrap().of, EventEnvironment::Everywhere);
}

#[test]
fn groups_name_all_of_a_kind_and_nothing_else() {
    assert!(is_of("break_glass.opened", "break_glass.*") && is_of("revoked", "revoked"));
    assert!(!is_of("revoked", "revoked.*") && !is_of("break_glassy.opened", "break_glass.*") && !is_of("approval.asked", "*"));
    assert!(TYPES.iter().all(|kind| names_some(kind)) && names_some("lock.*") && !names_some("lock") && !names_some("x.*"));
}

#[test]
fn every_type_is_documented() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/webhooks.md")).unwrap();
    for kind in TYPES.iter().chain([&TEST]) {
        assert!(page.contains(&format!("`{kind}`")), "docs/webhooks.md lacks {kind}");
    }
}
