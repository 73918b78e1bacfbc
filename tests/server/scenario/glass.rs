//! The night of the story: two people open a break-glass, every step of it is reported, and a third person reviews it.

use std::path::Path;

use mayfly::pb::mayfly::v1 as pb;
use mayfly::pb::mayfly::v1::open_break_glass_request::Open;
use mayfly::pb::mayfly::v1::token_service_client::TokenServiceClient;

use super::audit::Reader;
use super::{Story, alone, call, typed};
use crate::kit::{reason, until};
use crate::metrics::scraped;
use crate::people_rig::{Person, no_change};
use crate::receiver::Receiver;

pub(super) const POLICY: &str = r#"
@id("break-glass")
permit (principal in Role::"people", action in Action::"Work", resource == Upstream::"tickets")
when { context.break_glass };
"#;

/// Ada may open it, and review what others did. Bob may open it. Carol reviews.
pub(super) const RIGHTS: &str = r#"
[break_glass.tickets-down]
environment = "dev"
open = [{ issuer = "ISSUER", subject = "ada" }, { issuer = "ISSUER", subject = "bob" }]
review = [{ issuer = "ISSUER", subject = "ada" }, { issuer = "ISSUER", subject = "carol" }]
upstreams = { tickets = ["tickets:read"] }
any_tool = true
ttl = "30m"
"#;

fn rights() -> Open {
    Open::Rights("tickets-down".into())
}

/// A call for the tickets upstream, in a task.
fn tickets(task: &str) -> pb::ExchangeRequest {
    pb::ExchangeRequest { upstream: "tickets".into(), ..call(task, "tickets:read", "psql") }
}

fn person(told: &serde_json::Value) -> String {
    told.as_str().unwrap().rsplit('#').next().unwrap().to_owned()
}

/// No caller has the needed rights by day. Two people get them together for half an hour; the pager, the metrics and the audit report each
/// step. Its credentials end with it, and neither of the two can open another until a third person has reviewed it.
pub(super) async fn two_people_open_it_and_a_third_looks_at_it(
    story: &Story,
    pager: &Receiver,
    ada: &Person,
    context: &Path,
) -> String {
    let rig = &story.0;
    let (bob, carol) = (rig.sign_in("bob", no_change).await, rig.sign_in("carol", no_change).await);
    let by_day = rig.exchange(ada, alone("tickets", "tickets:read")).await.unwrap_err();
    assert_eq!(reason(&by_day), "DENIED_BY_POLICY");

    // A single person cannot activate break-glass.
    let opened = rig.glass(ada, rights()).await.unwrap();
    let task = opened.task.unwrap().task_id;
    assert_eq!(reason(&rig.exchange(ada, tickets(&task)).await.unwrap_err()), "TASK_NOT_ACTIVE", "one person is none");
    assert_eq!(reason(&rig.glass(ada, Open::TaskId(task.clone())).await.unwrap_err()), "NOT_YOURS", "nor is she two");
    assert_eq!(
        reason(&rig.glass(&carol, Open::TaskId(task.clone())).await.unwrap_err()),
        "NOT_FOUND",
        "who reviews does not open"
    );
    rig.glass(&bob, Open::TaskId(task.clone())).await.unwrap();

    // The permissions of the two people in the break-glass task, and their limits.
    let issued = rig.exchange(&bob, tickets(&task)).await.unwrap();
    let act = pb::AuthorizeRequest {
        task_id: task.clone(),
        upstream: "tickets".into(),
        scopes: vec!["tickets:read".into()],
        tool: "psql".into(),
        ..Default::default()
    };
    TokenServiceClient::new(rig.channel(ada, false).await).authorize(act).await.unwrap();
    let wider = pb::ExchangeRequest { scopes: vec!["tickets:delete".into()], ..tickets(&task) };
    assert_eq!(reason(&rig.exchange(&bob, wider).await.unwrap_err()), "OUTSIDE_TASK");
    assert_eq!(reason(&rig.exchange(&carol, tickets(&task)).await.unwrap_err()), "NOT_FOUND", "nobody else acts in it");
    assert!(story.good(&issued).await);
    counted(story, [1, 2, 1, 0]);

    // The break-glass task ends, and its credentials with it. Neither of the two people can open another one, nor review this one.
    rig.close_glass(&bob, &task).await.unwrap();
    assert!(!story.good(&issued).await, "what it issued died with it");
    counted(story, [1, 2, 0, 1]);
    let report = || typed(&["--config", context.to_str().unwrap(), "report", "unreviewed"]);
    let (code, said) = report();
    assert!(code == 10 && said.contains(&task), "{code}: {said}");
    for blocked in [ada, &bob] {
        let no = rig.glass(blocked, rights()).await.unwrap_err();
        assert_eq!(reason(&no), "APPROVAL_NEEDED");
        assert!(no.message().contains(&task), "{no:?}");
        assert!(rig.review_glass(blocked, &task).await.is_err());
    }
    assert_eq!(reason(&rig.review_glass(ada, &task).await.unwrap_err()), "NOT_YOURS", "she may review what others did");
    rig.review_glass(&carol, &task).await.unwrap();
    assert_eq!(report().0, 0);
    counted(story, [1, 2, 0, 0]);

    the_pager_was_told(pager, &task).await;
    let again = rig.glass(ada, rights()).await.unwrap();
    rig.close_glass(ada, &again.task.unwrap().task_id).await.unwrap();
    task
}

/// The metrics: opened in total, uses, open now, ended and not reviewed.
fn counted(story: &Story, expected: [u64; 4]) {
    let told = scraped(story.0.running().addresses().metrics.unwrap());
    let names = ["opened_total", "uses_total", "open", "unreviewed"];
    for (name, expected) in names.iter().zip(expected) {
        let line = format!("mayfly_break_glass_{name} {expected}");
        assert!(told.lines().any(|l| l == line || l == format!("{line}.0")), "{line} in\n{told}");
    }
}

/// The pager receives each step, each use and each refusal, with its author.
async fn the_pager_was_told(pager: &Receiver, task: &str) {
    until("the pager was told of the review", || pager.events().iter().any(|e| e.kind() == "break_glass.reviewed")).await;
    let told: Vec<(String, String)> = pager
        .events()
        .iter()
        .filter(|event| event.json()["data"]["task"] == *task)
        .map(|event| {
            let data = &event.json()["data"];
            let by = match event.kind().as_str() {
                "break_glass.opened" | "break_glass.joined" => data["people"].as_array().unwrap().last().unwrap().clone(),
                "break_glass.reviewed" => data["reviewer"].clone(),
                _ => data["by"].clone(),
            };
            (event.kind().trim_start_matches("break_glass.").to_owned(), person(&by))
        })
        .collect();
    let did = |step: &str, by: &str| told.contains(&(step.to_owned(), by.to_owned()));
    for (step, by) in [
        ("opened", "ada"),
        ("refused", "ada"),
        ("joined", "bob"),
        ("used", "bob"),
        ("used", "ada"),
        ("refused", "bob"),
        ("closed", "bob"),
        ("reviewed", "carol"),
    ] {
        assert!(did(step, by), "{step} by {by} in {told:?}");
    }
}

/// The audit shows the same, with the authors.
pub(super) fn the_audit_tells_it(reader: &Reader, task: &str) {
    let events = ["task opened", "break-glass", "refused", "credential issued", "action authorized", "task closed"];
    let story = reader.tells(task, &events);
    for said in ["echo is down", "echo is back", "looked", "ada", "bob", "carol"] {
        assert!(story.contains(said), "the export does not tell: {said}\n{story}");
    }
}
