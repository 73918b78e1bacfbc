//! `mayfly audit` against a test double of the server.

use mayfly::pb::mayfly::v1 as pb;
use mayfly::refusal::Reason;

use crate::answers::{TASK, at, uid};
use crate::double::{Stage, program, ran};
use crate::refusals::refusal;

fn record(seq: u64) -> pb::Record {
    pb::Record {
        seq,
        at: at(0),
        event: "revoked".into(),
        author: uid(7),
        body: "{\"reason\":\"it \\u001b[31mleaked\"}".into(),
        ..Default::default()
    }
}

#[test]
fn a_search_asks_for_what_was_typed_and_goes_on_over_pages_without_records() {
    let stage = Stage::new();
    stage.double.on(|q: pb::SearchRecordsRequest| {
        let filter = q.filter.unwrap();
        assert_eq!((filter.names.as_str(), filter.task_id.as_str(), filter.event.as_str()), ("github", TASK, "revoked"));
        assert_eq!(filter.since.map(|t| t.seconds), Some(1_795_161_600));
        Ok(match q.page_token.as_str() {
            "" => pb::SearchRecordsResponse { records: vec![record(44)], next_page_token: "2".into(), ..Default::default() },
            "2" => pb::SearchRecordsResponse { next_page_token: "3".into(), ..Default::default() },
            _ => pb::SearchRecordsResponse { records: vec![record(42)], removed_up_to: 40, ..Default::default() },
        })
    });
    let command = format!("audit search github --event revoked --task {TASK} --since 2026-11-20T08:00:00Z");
    let ran = stage.run(&command);
    assert_eq!(ran.exit, 0, "{ran:?}");
    assert!(ran.stderr.contains("records up to seq 40 were removed"), "{}", ran.stderr);
    assert_eq!(ran.stdout.lines().count(), 3, "{}", ran.stdout);
    let wide = stage.run(&format!("{command} -o wide")).stdout;
    assert!(!wide.contains('\u{1b}') && wide.contains("leaked"), "{wide}");
    assert_eq!(stage.run(&format!("{command} -o name")).stdout, "44\n42\n");
    let json: serde_json::Value = serde_json::from_str(&stage.run(&format!("{command} -o json")).stdout).unwrap();
    assert_eq!(json[0]["body"]["reason"], "it \u{1b}[31mleaked");
    let first = stage.run(&format!("{command} --limit 1"));
    assert!(first.stdout.lines().count() == 2 && first.stderr.contains("raise --limit"), "{first:?}");
}

#[test]
fn one_record_is_shown_and_one_that_is_not_there_is_exit_3() {
    let stage = Stage::new();
    stage.double.on(|q: pb::SearchRecordsRequest| {
        let seq = q.filter.unwrap().seq;
        let records = if seq == 44 { vec![record(44)] } else { Vec::new() };
        Ok(pb::SearchRecordsResponse { records, removed_up_to: 40, ..Default::default() })
    });
    assert!(stage.run("audit show 44").ok().contains("revoked"));
    let gone = stage.run("audit show 40");
    assert!(gone.exit == 3 && gone.stderr.contains("audit.keep"), "{gone:?}");
    let none = stage.run("audit show 45");
    assert!(none.exit == 3 && none.stderr.contains("there is no record 45"), "{none:?}");
    assert_eq!(stage.run("audit show x").exit, 2);
}

#[test]
fn a_tail_is_a_line_for_each_record_and_says_where_to_go_on() {
    let stage = Stage::new();
    stage.double.on(|q: pb::TailRecordsRequest| {
        assert_eq!((q.resume_after, q.filter.unwrap().tool.as_str()), (Some(40), "deploy"));
        Ok(vec![
            Ok(pb::TailRecordsResponse { record: Some(record(44)), seq: 44 }),
            Ok(pb::TailRecordsResponse { record: None, seq: 50 }),
            Err(refusal(Reason::LimitReached, "this one can't keep up", &[])),
        ])
    });
    let ran = stage.run("audit tail --tool deploy --resume-after 40");
    assert_eq!((ran.exit, ran.stdout.lines().count()), (8, 1), "{ran:?}");
    let line: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!((line["seq"].as_u64(), line["event"].as_str()), (Some(44), Some("revoked")));
    assert!(!ran.stdout.contains('\u{1b}') && ran.stderr.contains("--resume-after 50"), "{ran:?}");
}

#[test]
fn an_empty_filter_and_a_limit_of_nothing_are_wrong_command_lines() {
    let home = tempfile::tempdir().unwrap();
    let filters = ["--event", "--task", "--workload", "--upstream", "--tool", "--environment", "--since", "--until"];
    for command in ["search", "tail", "export"] {
        let named = filters.iter().map(|flag| vec!["audit", command, *flag, ""]);
        for words in named.chain([vec!["audit", command, ""]]) {
            let refused = ran(program(home.path()).args(&words), "");
            // Without a server's address the exit code is 2 as well, so the text tells which of them it is.
            assert_eq!((refused.exit, refused.stdout.as_str()), (2, ""), "{words:?}: {refused:?}");
            assert!(!refused.stderr.contains("MAYFLY_ADDRESS"), "{words:?}: {refused:?}");
        }
    }
    let lists = ["audit search", "lock list", "rules list", "credential list", "key list", "upstream list", "binding list"];
    for list in lists {
        for limit in ["0", "x"] {
            let words = list.split(' ').chain(["--limit", limit]);
            let refused = ran(program(home.path()).args(words), "");
            assert_eq!(refused.exit, 2, "{list} {limit:?}: {refused:?}");
            assert!(refused.stderr.contains("whole number from 1"), "{list} {limit:?}: {refused:?}");
        }
    }
}
