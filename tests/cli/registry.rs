//! Upstreams, owners and reports: arguments, requests, confirmations and output.

use std::fs;
use std::sync::{Arc, Mutex};

use mayfly::pb::mayfly::v1 as pb;
use mayfly::refusal::Reason;

use crate::answers::{at, echo, hits};
use crate::double::Stage;
use crate::refusals::refusal;

const FILE: &str = include_str!("../../src/cli/samples/upstreams/echo.toml");

fn registered() -> pb::Upstream {
    let finding = pb::RegistrationFinding {
        problem: pb::RegistrationProblem::Expiring.into(),
        text: "nothing will be issued from then on".into(),
        at: at(0),
    };
    let seconds = |seconds| Some(prost_types::Duration { seconds, nanos: 0 });
    pb::Upstream {
        version: 4,
        servers: vec!["spiffe://example.org/echo".into()],
        classification: Some(pb::Classification {
            system: "echo".into(),
            privilege: pb::Privilege::Write.into(),
            blast_radius: pb::BlastRadius::Low.into(),
        }),
        min_ttl: seconds(1),
        default_ttl: seconds(300),
        expires_at: Some(prost_types::Timestamp { seconds: 4_000_000_000, nanos: 0 }),
        algorithm: "ES256".into(),
        findings: vec![finding],
        live_credentials: 2,
        ..echo()
    }
}

fn stage() -> (Stage, Arc<Mutex<Vec<pb::SetUpstreamRequest>>>) {
    let stage = Stage::new();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let keeps = seen.clone();
    stage.double.on(|_: pb::GetUpstreamRequest| Ok(pb::GetUpstreamResponse { upstream: Some(registered()) }));
    stage.double.on(move |q: pb::SetUpstreamRequest| {
        keeps.lock().unwrap().push(q.clone());
        let agreed = q.confirmation.unwrap_or_default();
        if !q.dry_run && q.upstream.as_ref().is_some_and(|u| u.version > 0) && !agreed.all && agreed.credentials < 12 {
            return Err(refusal(Reason::ConfirmNeeded, "this would revoke 12", &[]));
        }
        Ok(pb::SetUpstreamResponse { upstream: Some(registered()), hits: hits(12, 3, 1), beyond: 2, ..Default::default() })
    });
    fs::write(stage.folder.path().join("echo.toml"), FILE).unwrap();
    (stage, seen)
}

#[test]
fn a_file_is_sent_as_a_new_registration() {
    let (stage, seen) = stage();
    let ran = stage.run("upstream add echo.toml --dry-run");
    assert_eq!(ran.exit, 0, "{ran:?}");
    let sent = seen.lock().unwrap().remove(0);
    let upstream = sent.upstream.unwrap();
    assert_eq!((sent.dry_run, upstream.version, upstream.upstream.as_str()), (true, 0, "echo"));
    assert_eq!(upstream.classification.unwrap().privilege(), pb::Privilege::Write);
    assert_eq!((upstream.min_ttl.unwrap().seconds, upstream.max_ttl.unwrap().seconds), (2, 3600));
    assert_eq!((upstream.approvers.len(), upstream.scopes.len()), (1, 3));
    assert!(ran.stderr.contains("expiring: nothing will be issued from then on"), "{}", ran.stderr);
}

#[test]
fn what_is_wrong_with_a_file_is_told_with_its_lines_before_anything_is_asked() {
    let (stage, seen) = stage();
    let wrong = FILE.replace("owner = \"you\"\n", "").replace("privilege = \"write\"", "privilege = \"all\"");
    fs::write(stage.folder.path().join("wrong.toml"), wrong).unwrap();
    let ran = stage.run("upstream add wrong.toml");
    assert_eq!((ran.exit, ran.stdout.as_str()), (2, ""));
    assert!(ran.stderr.contains("wrong.toml: lacks owner"), "{}", ran.stderr);
    assert!(ran.stderr.contains("classification.privilege is \"all\"") && ran.stderr.contains("wrong.toml:1"), "{}", ran.stderr);
    assert!(seen.lock().unwrap().is_empty());
    assert_eq!(stage.run("upstream add nowhere.toml").exit, 1);
}

#[test]
fn a_change_is_made_from_the_version_in_force_and_confirmed_by_its_number() {
    let (stage, seen) = stage();
    let ran = stage.run("upstream change echo.toml");
    assert_eq!(ran.exit, 2, "{ran:?}");
    assert!(ran.stderr.contains("this would hit 12 credentials, 3 tasks, 1 caller; nothing was done"), "{}", ran.stderr);
    assert!(ran.stderr.contains("`--confirm 12`"), "{}", ran.stderr);
    let ran = stage.run("upstream change echo.toml --confirm 12 --version 3 -o json");
    assert!(
        ran.stderr.contains("revoked 12 credentials") && ran.stderr.contains("2 of them would still be permitted"),
        "{ran:?}"
    );
    let json = ran.json();
    assert_eq!((&json["hits"]["credentials"], &json["beyond"], &json["version"]), (&12.into(), &2.into(), &4.into()));
    let versions: Vec<u64> = seen.lock().unwrap().iter().map(|q| q.upstream.as_ref().unwrap().version).collect();
    assert_eq!(versions, [4, 4, 3], "asked, dry run, and with the one that was named");
}

#[test]
fn what_is_shown_as_a_file_can_be_sent_back() {
    let (stage, seen) = stage();
    let file = stage.run("upstream show echo --file").ok();
    fs::write(stage.folder.path().join("again.toml"), &file).unwrap();
    let ran = stage.run("upstream change again.toml --dry-run");
    assert_eq!(ran.exit, 0, "{file}\n{ran:?}");
    let sent = seen.lock().unwrap().remove(0).upstream.unwrap();
    let shown = registered();
    assert!(file.starts_with("# version 4\n"), "{file}");
    assert_eq!((sent.scopes, sent.servers, sent.base_url), (shown.scopes, shown.servers, shown.base_url));
}

#[test]
fn a_change_is_based_on_the_version_that_its_file_names() {
    let (stage, seen) = stage();
    let write = |text: &str| fs::write(stage.folder.path().join("based.toml"), text).unwrap();
    write(&format!("# version 2\n{FILE}"));
    let ran = stage.run("upstream change based.toml --dry-run");
    assert_eq!(ran.exit, 0, "{ran:?}");
    assert_eq!(stage.run("upstream change based.toml --dry-run --version 2").exit, 0);
    let versions: Vec<u64> = seen.lock().unwrap().drain(..).map(|q| q.upstream.unwrap().version).collect();
    assert_eq!(versions, [2, 2], "not 4, the version in effect");
    let ran = stage.run("upstream change based.toml --dry-run --version 3");
    assert!(ran.exit == 2 && ran.stderr.contains("based on version 2, and --version says 3"), "{ran:?}");
    write(&format!("# version two\n{FILE}"));
    let ran = stage.run("upstream change based.toml --dry-run");
    assert!(ran.exit == 2 && ran.stderr.contains("based.toml:1") && ran.stderr.contains("is no version"), "{ran:?}");
    assert!(seen.lock().unwrap().is_empty());
    // A new registration has no version.
    write(&format!("# version 2\n{FILE}"));
    assert_eq!(stage.run("upstream add based.toml").exit, 0);
    assert_eq!(seen.lock().unwrap().remove(0).upstream.unwrap().version, 0);
}

#[test]
fn states_need_a_reason_and_say_what_they_revoked() {
    let stage = Stage::new();
    stage.double.on(|q: pb::SetUpstreamStateRequest| {
        let upstream = pb::Upstream { state: q.state, ..echo() };
        Ok(pb::SetUpstreamStateResponse { upstream: Some(upstream), hits: hits(1, 1, 1) })
    });
    assert_eq!(stage.run("upstream disable echo").exit, 2);
    for (word, state) in [("disable", "disabled"), ("enable", "active"), ("retire", "retired")] {
        let ran = stage.run(&format!("upstream {word} echo --reason over -o json"));
        assert!(ran.stderr.contains("revoked 1 credential, in 1 task of 1 caller"), "{ran:?}");
        assert_eq!(ran.json()["state"], state);
    }
}

#[test]
fn an_owner_who_left_leaves_a_list() {
    let stage = Stage::new();
    stage.double.on(|q: pb::OffboardRequest| {
        assert_eq!((q.owner.as_str(), q.person.unwrap().sub.as_str()), ("ada@example.org", "ada"));
        let upstreams = vec!["echo".to_owned(), "github".to_owned()];
        Ok(pb::OffboardResponse { seq: 77, upstreams, hits: hits(3, 2, 1) })
    });
    stage.double.on(|q: pb::ReturnOwnerRequest| Ok(pb::ReturnOwnerResponse { seq: 78, upstreams: vec![q.owner] }));
    let ran = stage.run("owner left ada@example.org --person https://idp.example ada --reason gone -o json");
    assert!(ran.stderr.contains("echo needs an owner") && ran.stderr.contains("github needs an owner"), "{}", ran.stderr);
    let json = ran.json();
    assert_eq!((&json["seq"], &json["upstreams"][1]), (&77.into(), &"github".into()));
    let back = stage.run("owner back ada@example.org --reason back");
    assert!(back.stderr.contains("what was revoked stays revoked"), "{back:?}");
    assert_eq!(stage.run("owner left ada@example.org").exit, 2);
}

#[test]
fn a_report_says_by_its_exit_code_whether_there_is_anything_to_mend() {
    let stage = Stage::new();
    stage.double.on(|q: pb::ListUpstreamsRequest| {
        // Two pages with one upstream each.
        let second = !q.page_token.is_empty();
        let upstream = if second { pb::Upstream { upstream: "=HYPERLINK(1)".into(), ..registered() } } else { registered() };
        let next_page_token = if second { String::new() } else { "2".to_owned() };
        Ok(pb::ListUpstreamsResponse { upstreams: vec![upstream], next_page_token })
    });
    let ran = stage.run("report expiring");
    assert_eq!(ran.exit, 10, "{ran:?}");
    assert_eq!(ran.stdout.lines().count(), 3, "{}", ran.stdout);
    let ran = stage.run("report broad");
    assert_eq!((ran.exit, ran.stdout.lines().count()), (0, 1), "{ran:?}");
    let csv = stage.run("report inventory -o csv").ok();
    let mut lines = csv.lines();
    assert!(
        lines.next().unwrap().starts_with("upstream,state,environment,kinds,scopes,owner,findings,purpose,audience"),
        "{csv}"
    );
    assert_eq!(lines.clone().count(), 2);
    assert!(lines.nth(1).unwrap().starts_with("'=HYPERLINK(1),"), "{csv}");
    let csv = stage.run("report expiring -o csv");
    assert_eq!(csv.exit, 10);
    assert!(csv.stdout.starts_with("upstream,environment,owner,at,finding,state\n"), "{}", csv.stdout);
    assert_eq!(stage.run("report everything").exit, 2);
}
