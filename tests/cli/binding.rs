//! `mayfly binding`: arguments, requests, confirmations and output.

use std::fs;
use std::sync::{Arc, Mutex};

use mayfly::pb::mayfly::v1 as pb;
use mayfly::refusal::Reason;

use crate::answers::hits;
use crate::double::Stage;
use crate::refusals::refusal;

const FILE: &str = "name = 'search'\nupstream = 'echo'\nids = ['spiffe://example.org/mcp']\ntools = ['find', 'list']\n\
                    scopes = ['echo:read', 'echo:write']\n";

fn in_force() -> pb::Binding {
    let texts = |list: &[&str]| list.iter().map(|t| (*t).to_owned()).collect();
    pb::Binding {
        binding: "search".into(),
        version: 3,
        environment: "dev".into(),
        upstream: "echo".into(),
        callers: texts(&["spiffe://example.org/mcp"]),
        scopes: texts(&["echo:read", "echo:write"]),
        tools: texts(&["find", "list"]),
        ..Default::default()
    }
}

fn stage() -> (Stage, Arc<Mutex<Vec<pb::SetBindingRequest>>>) {
    let stage = Stage::new();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let keeps = seen.clone();
    stage.double.on(|q: pb::ListBindingsRequest| {
        let all = [in_force()].into_iter().filter(|b| q.binding.is_empty() || b.binding == q.binding);
        Ok(pb::ListBindingsResponse { bindings: all.collect(), ..Default::default() })
    });
    stage.double.on(move |q: pb::SetBindingRequest| {
        keeps.lock().unwrap().push(q.clone());
        let binding = q.binding.clone().unwrap();
        if binding.version == 0 && !q.dry_run {
            return Err(refusal(
                Reason::ApprovalNeeded,
                "another operator has to approve this",
                &[("approval_id", "approval_x")],
            ));
        }
        Ok(pb::SetBindingResponse {
            binding: Some(binding),
            hits: hits(2, 1, 1),
            takes_another: q.dry_run,
            not_read: true,
            beyond: 0,
        })
    });
    fs::write(stage.folder.path().join("search.toml"), FILE).unwrap();
    (stage, seen)
}

#[test]
fn a_new_one_waits_for_another_operator() {
    let (stage, seen) = stage();
    let ran = stage.run("binding add search.toml --reason triage");
    assert_eq!(ran.exit, 9, "{ran:?}");
    let sent = seen.lock().unwrap().remove(0);
    let binding = sent.binding.unwrap();
    assert_eq!((binding.version, binding.tools.len(), sent.reason.as_str()), (0, 2, "triage"));
    let ran = stage.run("binding add search.toml --dry-run");
    assert!(ran.exit == 0 && ran.stderr.contains("takes effect when another operator approves it"), "{ran:?}");
    assert!(
        ran.stderr.contains("no policy of  reads context.binding") || ran.stderr.contains("reads context.binding"),
        "{ran:?}"
    );
    fs::write(stage.folder.path().join("search.toml"), FILE.replace("scopes", "scope")).unwrap();
    let ran = stage.run("binding add search.toml --reason x");
    assert!(ran.exit == 2 && ran.stderr.contains("did you mean scopes?"), "{ran:?}");
}

#[test]
fn one_is_narrowed_by_what_is_taken_out() {
    let (stage, seen) = stage();
    let ran = stage.run("binding narrow search --without-tool list --without-scope echo:write --reason less -o json");
    assert!(ran.stderr.contains("revoked 2 credentials"), "{ran:?}");
    let sent = seen.lock().unwrap().remove(0).binding.unwrap();
    assert_eq!((sent.version, sent.tools, sent.scopes), (3, vec!["find".to_owned()], vec!["echo:read".to_owned()]));
    for (line, said) in [
        ("binding narrow search --without-tool fly --reason x", "has no tool fly; it has find, list"),
        ("binding narrow search --without-tool find --without-tool list --reason x", "binding remove search"),
        ("binding narrow search --without-caller spiffe://example.org/mcp --reason x", "binding remove search"),
        ("binding narrow other --without-tool find --reason x", "there is no binding other"),
        ("binding narrow search --reason x", "--without-tool"),
    ] {
        let ran = stage.run(line);
        // Every command reports a missing binding in the same way.
        let exit = if said.starts_with("there is no") { 3 } else { 2 };
        assert!(ran.exit == exit && ran.stderr.contains(said), "{line}: {ran:?}");
    }
    assert!(seen.lock().unwrap().is_empty());
    stage.run("binding remove search --reason gone").ok();
    let sent = seen.lock().unwrap().remove(0).binding.unwrap();
    assert!(sent.scopes.is_empty() && sent.callers.is_empty() && sent.upstream == "echo" && sent.version == 3);
}

#[test]
fn they_are_listed_and_shown() {
    let (stage, _) = stage();
    let ran = stage.run("binding list");
    assert!(ran.stdout.contains("find,list") && ran.stdout.contains("echo:read,echo:write"), "{ran:?}");
    assert_eq!(stage.run("binding show search -o name").ok(), "search\n");
    let changed = stage.run("binding change search.toml --reason same");
    assert_eq!(changed.exit, 0, "{changed:?}");
}
