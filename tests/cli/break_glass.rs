//! `mayfly break-glass` and `mayfly webhook`: requests, output and exit codes.

use mayfly::pb::mayfly::v1 as pb;
use mayfly::pb::mayfly::v1::open_break_glass_request::Open;

use crate::answers::{at, workload};
use crate::double::Stage;

const TASK: &str = "task_aaaaaaaaaaaaaaaaaaaaaaaaaa";

fn glass(people: &[&str], state: pb::TaskState) -> pb::BreakGlass {
    pb::BreakGlass {
        task: Some(pb::Task { task_id: TASK.into(), state: state.into(), environment: "prod".into(), ..Default::default() }),
        rights: "orders-down".into(),
        people: people.iter().filter_map(|id| workload(id)).collect(),
        reasons: people.iter().map(|_| "it burns \u{1b}[2J".into()).collect(),
        join_by: at(900),
        deadline: at(3600),
        ..Default::default()
    }
}

#[test]
fn opening_waits_for_a_second_person_and_says_how_they_join() {
    let stage = Stage::new();
    stage.double.on(|q: pb::OpenBreakGlassRequest| {
        assert_eq!((q.open, q.reason.as_str()), (Some(Open::Rights("orders-down".into())), "burns"));
        assert_eq!((q.ttl.map(|t| t.seconds), q.environment.as_str()), (Some(600), "prod"));
        assert!(!q.request_id.is_empty(), "a repeat by us is safe");
        let glass = glass(&["spiffe://td/ada"], pb::TaskState::PendingApproval);
        Ok(pb::OpenBreakGlassResponse { break_glass: Some(glass) })
    });
    let ran = stage.run("break-glass open orders-down --reason burns --ttl 10m --environment prod");
    assert_eq!(ran.exit, 9, "{ran:?}");
    assert!(ran.stderr.contains(&format!("mayfly break-glass join {TASK} --reason TEXT")), "{}", ran.stderr);
    assert!(!ran.stdout.contains('\u{1b}'), "a person's words do nothing to a terminal");
}

#[test]
fn what_nobody_reviewed_is_found_and_told() {
    let stage = Stage::new();
    let over = || pb::BreakGlass { unreviewed: true, ..glass(&["spiffe://td/ada", "spiffe://td/ben"], pb::TaskState::Completed) };
    stage.double.on(move |_: pb::CloseBreakGlassRequest| Ok(pb::CloseBreakGlassResponse { break_glass: Some(over()) }));
    stage.double.on(move |q: pb::ListBreakGlassRequest| {
        assert!(q.unreviewed);
        Ok(pb::ListBreakGlassResponse { break_glass: vec![over()], ..Default::default() })
    });
    let ran = stage.run(&format!("break-glass close {TASK}"));
    assert_eq!(ran.exit, 0, "{ran:?}");
    assert!(ran.stderr.contains("until a third person reviewed it, its people open no other"), "{}", ran.stderr);
    let ran = stage.run("report unreviewed");
    assert_eq!(ran.exit, 10, "{ran:?}");
    assert!(ran.stdout.contains("orders-down") && ran.stdout.contains("nobody yet"), "{}", ran.stdout);
    assert_eq!(stage.run("report unreviewed --environment dev").exit, 0);
}

#[test]
fn webhooks_are_listed_with_what_was_given_up() {
    let stage = Stage::new();
    stage.double.on(|_: pb::ListWebhooksRequest| {
        let given_up = pb::GivenUpEvent { event_id: "msg_1".into(), r#type: "revoked".into(), seq: 7, ..Default::default() };
        let hook = pb::Webhook {
            name: "pager".into(),
            url: "https://h.example/".into(),
            given_up: 1,
            given_up_newest: vec![given_up],
            ..Default::default()
        };
        Ok(pb::ListWebhooksResponse { webhooks: vec![hook] })
    });
    stage.double.on(|q: pb::TestWebhookRequest| {
        assert_eq!(q.name, "pager");
        Ok(pb::TestWebhookResponse { status: 204 })
    });
    let ran = stage.run("webhook list -o json");
    let shown = ran.json();
    let hook = shown.as_array().map_or(&shown, |all| &all[0]);
    assert_eq!((hook["given_up"].as_u64(), hook["given_up_newest"][0]["type"].as_str()), (Some(1), Some("revoked")));
    let ran = stage.run("webhook test pager");
    assert!(ran.exit == 0 && ran.stderr.contains("204"), "{ran:?}");
}
