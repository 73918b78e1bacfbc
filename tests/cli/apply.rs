//! `mayfly apply` and `mayfly export`: requests, order, what is told of a run that stops, and what a second run does. The double keeps what it
//! is given, with versions that are compared as the server compares them.

use std::collections::BTreeMap;
use std::fs;
use std::sync::{Arc, Mutex};

use mayfly::pb::mayfly::v1 as pb;
use mayfly::refusal::Reason;
use tonic::Status;

use crate::answers::hits;
use crate::double::{Ran, Stage};
use crate::refusals::refusal;

const ECHO: &str = include_str!("../../src/cli/samples/upstreams/echo.toml");
const POLICY: &str = include_str!("../../src/cli/samples/policy.cedar");
const ROLES: &str = include_str!("../../src/cli/samples/roles.toml");
const NAMES: [&str; 3] = ["alpha", "beta", "gamma"];

/// A defect of the double, for one upstream.
#[derive(Clone, Copy, PartialEq)]
enum Fault {
    /// Somebody changed it a moment before.
    Changed,
    /// No answer comes.
    Silent,
    /// Policy refuses the change.
    Denied,
    /// Policy refuses even the preview.
    Reader,
}

#[derive(Default)]
struct Held {
    upstreams: BTreeMap<String, pb::Upstream>,
    bindings: BTreeMap<String, pb::Binding>,
    policy: pb::PolicySet,
    fault: Option<(&'static str, Fault)>,
    /// The changes, in order.
    changed: Vec<String>,
    /// How many requests were sent that were no dry runs.
    sent: usize,
    /// The number of credentials that each change of a registration revokes.
    revokes: u64,
    confirmed: Vec<pb::Confirmation>,
}

impl Held {
    fn upstream(&mut self, q: pb::SetUpstreamRequest) -> Result<pb::SetUpstreamResponse, Status> {
        let new = q.upstream.unwrap();
        let name = new.upstream.clone();
        self.sent += usize::from(!q.dry_run);
        let fault = self.fault.filter(|(of, fault)| *of == name && (!q.dry_run || *fault == Fault::Reader));
        match fault.map(|(_, fault)| fault) {
            Some(Fault::Silent) => return Err(Status::unavailable("the connection was lost")),
            Some(Fault::Denied | Fault::Reader) => return Err(refusal(Reason::DeniedByPolicy, "policy refuses it", &[])),
            Some(Fault::Changed) => self.upstreams.get_mut(&name).unwrap().version += 1,
            None => {}
        }
        if self.upstreams.get(&name).map_or(0, |u| u.version) != new.version {
            return Err(refusal(Reason::DecidedOnOldState, "another version is in force", &[]));
        }
        let next = pb::Upstream { version: new.version + 1, state: pb::RegistrationState::Active.into(), ..new };
        if !q.dry_run {
            self.confirmed.extend(q.confirmation);
            self.changed.push(name.clone());
            self.upstreams.insert(name, next.clone());
        }
        Ok(pb::SetUpstreamResponse { upstream: Some(next), hits: hits(self.revokes, 1, 1), ..Default::default() })
    }

    fn retire(&mut self, q: pb::SetUpstreamStateRequest) -> Result<pb::SetUpstreamStateResponse, Status> {
        let upstream = self.upstreams.get_mut(&q.upstream).unwrap();
        if upstream.version != q.read_version {
            return Err(refusal(Reason::DecidedOnOldState, "another version is in force", &[]));
        }
        if !q.dry_run {
            upstream.state = q.state;
            self.changed.push(format!("retired {}", q.upstream));
        }
        Ok(pb::SetUpstreamStateResponse { upstream: Some(upstream.clone()), hits: hits(0, 0, 0) })
    }

    fn binding(&mut self, q: pb::SetBindingRequest) -> Result<pb::SetBindingResponse, Status> {
        let new = q.binding.unwrap();
        if !q.dry_run && !new.scopes.is_empty() {
            return Err(refusal(Reason::ApprovalNeeded, "another operator has to approve this", &[("approval_id", "appr_x")]));
        }
        if !q.dry_run {
            self.changed.push(format!("removed {}", new.binding));
            self.bindings.insert(new.binding.clone(), pb::Binding { version: new.version + 1, ..new.clone() });
        }
        Ok(pb::SetBindingResponse { takes_another: !new.scopes.is_empty(), binding: Some(new), ..Default::default() })
    }

    fn policy(&mut self, q: pb::SetPolicyRequest) -> Result<pb::SetPolicyResponse, Status> {
        if q.read_version != self.policy.version {
            return Err(refusal(Reason::DecidedOnOldState, "another version is in force", &[]));
        }
        let Some(pb::policy_source::From::Files(files)) = q.set.unwrap().from else { panic!("the files are sent") };
        let next = pb::PolicySet { version: q.read_version + 1, files: Some(files), ..self.policy.clone() };
        if !q.dry_run {
            self.changed.push("policy".to_owned());
            self.policy = next.clone();
        }
        Ok(pb::SetPolicyResponse { policy: Some(next), ..Default::default() })
    }
}

/// A server with three upstreams, and the folder that an export of it wrote.
fn stage() -> (Stage, Arc<Mutex<Held>>) {
    let (stage, held) = (Stage::new(), Arc::new(Mutex::new(Held::default())));
    let file = |name: &str, text: &str| pb::PolicyFile { name: name.to_owned(), text: text.to_owned() };
    held.lock().unwrap().policy = pb::PolicySet {
        environment: "dev".to_owned(),
        version: 5,
        files: Some(pb::PolicyFiles { policies: vec![file("policy.cedar", POLICY)], roles: Some(file("people.toml", ROLES)) }),
        ..Default::default()
    };
    macro_rules! on {
        ($request:ident, $held:ident, $q:ident, $answer:expr) => {
            let own = held.clone();
            stage.double.on(move |$q: pb::$request| {
                let mut $held = own.lock().unwrap();
                let _ = (&mut $held, &$q);
                $answer
            });
        };
    }
    on!(GetStatusRequest, held, q, Ok(pb::GetStatusResponse { environments: vec!["dev".to_owned()], ..Default::default() }));
    on!(GetPolicyRequest, held, q, Ok(pb::GetPolicyResponse { policy: Some(held.policy.clone()) }));
    on!(ValidatePolicyRequest, held, q, Ok(pb::ValidatePolicyResponse::default()));
    on!(
        ListUpstreamsRequest,
        held,
        q,
        Ok(pb::ListUpstreamsResponse { upstreams: held.upstreams.values().cloned().collect(), ..Default::default() })
    );
    on!(
        ListBindingsRequest,
        held,
        q,
        Ok(pb::ListBindingsResponse { bindings: held.bindings.values().cloned().collect(), ..Default::default() })
    );
    on!(SetUpstreamRequest, held, q, held.upstream(q));
    on!(SetUpstreamStateRequest, held, q, held.retire(q));
    on!(SetBindingRequest, held, q, held.binding(q));
    on!(SetPolicyRequest, held, q, held.policy(q));
    for name in NAMES {
        let text = ECHO.replace("\"echo\"", &format!("\"{name}\"")).replace("echo.dev", &format!("{name}.dev"));
        let text = text.replace("127.0.0.1:7780", &format!("127.0.0.1:{}", 7000 + name.len()));
        let target = if name == "gamma" { text.replace(":7005", ":7105") } else { text };
        fs::write(stage.folder.path().join("new.toml"), target).unwrap();
        stage.run("upstream add new.toml").ok();
    }
    stage.run("export config").ok();
    let mut now = held.lock().unwrap();
    (now.sent, now.changed) = (0, Vec::new());
    drop(now);
    (stage, held)
}

/// Every registration of the folder gets a shorter `ttl.max`, which only narrows it.
fn narrower(stage: &Stage) {
    for name in NAMES {
        let path = stage.folder.path().join(format!("config/upstreams/{name}.toml"));
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains("max = \"1h\""), "{text}");
        fs::write(path, text.replace("max = \"1h\"", "max = \"30m\"")).unwrap();
    }
}

fn json(ran: &Ran) -> serde_json::Value {
    serde_json::from_str(&ran.stdout).unwrap_or_else(|e| panic!("{e}: {ran:?}"))
}

fn outcomes(ran: &Ran) -> Vec<String> {
    let all = json(ran)["steps"].as_array().unwrap().clone();
    all.iter().map(|step| format!("{} {}", step["name"].as_str().unwrap(), step["outcome"].as_str().unwrap())).collect()
}

#[test]
fn what_an_export_wrote_differs_in_nothing_and_a_dry_run_sends_no_change() {
    let (stage, held) = stage();
    assert_eq!(fs::read_to_string(stage.folder.path().join("config/policy.cedar")).unwrap(), POLICY);
    assert_eq!(fs::read_to_string(stage.folder.path().join("config/roles.toml")).unwrap(), ROLES);
    let ran = stage.run("apply config --dry-run -o json");
    assert!(ran.exit == 0 && json(&ran)["differs"] == false, "{ran:?}");
    narrower(&stage);
    let ran = stage.run("apply config --dry-run -o json");
    assert_eq!((ran.exit, outcomes(&ran)), (10, NAMES.map(|name| format!("{name} planned")).to_vec()), "{ran:?}");
    assert!(ran.stderr.contains("-max = \"1h\"") && ran.stderr.contains("+max = \"30m\""), "{ran:?}");
    assert_eq!(held.lock().unwrap().sent, 0, "nothing but dry runs");
    assert_eq!(stage.run("apply config").exit, 2, "a reason is needed");
    let ran = stage.run("apply config --reason less");
    assert!(ran.exit == 0 && ran.stderr.contains("3 changes made"), "{ran:?}");
    let ran = stage.run("apply config --reason less");
    assert!(ran.exit == 0 && ran.stderr.contains("nothing differs"), "{ran:?}");
    assert_eq!(held.lock().unwrap().sent, 3);
}

#[test]
fn a_change_by_somebody_else_is_told_and_not_overwritten() {
    let (stage, held) = stage();
    narrower(&stage);
    held.lock().unwrap().fault = Some(("beta", Fault::Changed));
    let ran = stage.run("apply config --reason less --deadline 1s -o json");
    assert_eq!(
        (ran.exit, outcomes(&ran)),
        (7, vec!["alpha done".into(), "beta failed".into(), "gamma not_done".into()]),
        "{ran:?}"
    );
    assert!(ran.stderr.contains("somebody changed upstream beta since the plan was made"), "{ran:?}");
    assert!(held.lock().unwrap().upstreams["beta"].max_ttl.unwrap().seconds == 3600, "theirs stays");
    // If it is the first step, nothing was done, and the command may be run again.
    held.lock().unwrap().fault = Some(("beta", Fault::Changed));
    let ran = stage.run("apply config --reason less --deadline 1s -o json");
    assert_eq!((ran.exit, outcomes(&ran)), (8, vec!["beta failed".into(), "gamma not_done".into()]), "{ran:?}");
    held.lock().unwrap().fault = None;
    let ran = stage.run("apply config --reason less -o json");
    assert_eq!((ran.exit, outcomes(&ran)), (0, vec!["beta done".into(), "gamma done".into()]), "{ran:?}");
    assert_eq!(held.lock().unwrap().changed, NAMES);
}

#[test]
fn a_run_without_an_answer_says_what_it_does_not_know_and_a_second_one_goes_on() {
    let (stage, held) = stage();
    narrower(&stage);
    held.lock().unwrap().fault = Some(("beta", Fault::Silent));
    let ran = stage.run("apply config --reason less --deadline 1s -o json");
    assert_eq!(
        (ran.exit, outcomes(&ran)),
        (7, vec!["alpha done".into(), "beta unknown".into(), "gamma not_done".into()]),
        "{ran:?}"
    );
    assert!(ran.stderr.contains("upstream beta may have been changed, or not"), "{ran:?}");
    held.lock().unwrap().fault = Some(("beta", Fault::Denied));
    let ran = stage.run("apply config --reason less -o json");
    assert_eq!((ran.exit, outcomes(&ran)), (5, vec!["beta failed".into(), "gamma not_done".into()]), "{ran:?}");
    held.lock().unwrap().fault = None;
    assert_eq!(outcomes(&stage.run("apply config --reason less -o json")), ["beta done", "gamma done"]);
}

#[test]
fn who_may_not_preview_sees_the_difference_without_the_numbers() {
    let (stage, held) = stage();
    narrower(&stage);
    held.lock().unwrap().fault = Some(("beta", Fault::Reader));
    let ran = stage.run("apply config --dry-run -o json");
    assert_eq!(ran.exit, 10, "{ran:?}");
    let all = json(&ran);
    assert!(all["steps"][1]["revokes"].is_null() && all["steps"][0]["revokes"]["credentials"] == 0, "{all}");
    assert!(ran.stderr.contains("is told to operators who may make the changes"), "{ran:?}");
    let ran = stage.run("apply config --reason less");
    assert!(ran.exit == 5 && held.lock().unwrap().sent == 0, "not even the step before it: {ran:?}");
}

#[test]
fn the_sum_is_confirmed_and_each_step_carries_its_own_number() {
    let (stage, held) = stage();
    narrower(&stage);
    held.lock().unwrap().revokes = 7;
    for line in ["apply config --reason less", "apply config --reason less --confirm 19"] {
        let ran = stage.run(line);
        assert!(ran.exit == 2 && ran.stderr.contains("--confirm 21"), "{line}: {ran:?}");
    }
    assert_eq!(held.lock().unwrap().sent, 0);
    stage.run("apply config --reason less --confirm 20").ok();
    let one = pb::Confirmation { credentials: 7, all: false };
    assert_eq!(held.lock().unwrap().confirmed, [one, one, one]);
}

#[test]
fn what_takes_comes_first_and_what_gives_last() {
    let (stage, held) = stage();
    let at = |path: &str| stage.folder.path().join("config").join(path);
    held.lock().unwrap().bindings.insert(
        "old".into(),
        pb::Binding {
            binding: "old".into(),
            version: 2,
            upstream: "alpha".into(),
            callers: vec!["spiffe://dev.mayfly.internal/a".into()],
            scopes: vec!["echo:read".into()],
            ..Default::default()
        },
    );
    // alpha gives more, beta goes, gamma takes; the policy changes; the binding goes.
    let text = fs::read_to_string(at("upstreams/alpha.toml")).unwrap();
    fs::write(at("upstreams/alpha.toml"), text.replace("\"echo:read\"", "\"echo:read\", \"echo:list\"")).unwrap();
    let text = fs::read_to_string(at("upstreams/gamma.toml")).unwrap();
    fs::write(at("upstreams/gamma.toml"), text.replace("max = \"1h\"", "max = \"30m\"")).unwrap();
    fs::remove_file(at("upstreams/beta.toml")).unwrap();
    fs::write(at("policy.cedar"), format!("{POLICY}\n// more\n")).unwrap();
    let ran = stage.run("apply config --reason all --dry-run -o json");
    let kept = json(&ran)["unmanaged"].as_array().unwrap().len();
    assert_eq!((ran.exit, kept), (10, 2), "without --prune they are only listed: {ran:?}");
    let ran = stage.run("apply config --reason all --prune");
    assert_eq!(ran.exit, 0, "{ran:?}");
    assert_eq!(held.lock().unwrap().changed, ["removed old", "retired beta", "gamma", "policy", "alpha"]);
    // A binding waits for somebody else, and its command is named.
    fs::write(
        at("bindings/new.toml"),
        "name = 'new'\nupstream = 'gamma'\nids = ['spiffe://dev.mayfly.internal/a']\nscopes = ['echo:read']\n",
    )
    .unwrap();
    let ran = stage.run("apply config --reason bound -o json");
    assert_eq!((ran.exit, outcomes(&ran)), (9, vec!["new waits".into()]), "{ran:?}");
    assert!(ran.stderr.contains("mayfly approval give appr_x --reason TEXT"), "{ran:?}");
}

#[test]
fn a_step_that_takes_and_gives_is_refused_beside_a_new_policy_set() {
    let (stage, held) = stage();
    let at = |path: &str| stage.folder.path().join("config").join(path);
    let text = fs::read_to_string(at("upstreams/alpha.toml")).unwrap();
    fs::write(at("upstreams/alpha.toml"), text.replace("echo:write", "echo:list")).unwrap();
    fs::write(at("policy.cedar"), format!("{POLICY}\n// more\n")).unwrap();
    for line in ["apply config --reason both", "apply config --dry-run"] {
        let ran = stage.run(line);
        assert!(ran.exit == 2 && ran.stderr.contains("no order of the steps is safe"), "{line}: {ran:?}");
    }
    assert_eq!(held.lock().unwrap().sent, 0);
    stage.run("apply config --reason first --only policies").ok();
    stage.run("apply config --reason second").ok();
    assert_eq!(held.lock().unwrap().changed, ["policy", "alpha"]);
}

#[test]
fn each_environment_can_have_a_policy_set_of_its_own() {
    let (stage, held) = stage();
    let environments = || vec!["dev".to_owned(), "prod".to_owned()];
    stage
        .double
        .on(move |_: pb::GetStatusRequest| Ok(pb::GetStatusResponse { environments: environments(), ..Default::default() }));
    let own = held.clone();
    stage.double.on(move |q: pb::GetPolicyRequest| {
        let mut policy = pb::PolicySet { environment: q.environment, ..own.lock().unwrap().policy.clone() };
        if policy.environment == "prod" {
            policy.files.as_mut().unwrap().policies[0].text.push_str("// prod\n");
        }
        Ok(pb::GetPolicyResponse { policy: Some(policy) })
    });
    stage.run("export two").ok();
    let at = |path: &str| stage.folder.path().join("two").join(path);
    assert!(!at("policy.cedar").exists() && at("environments/dev/roles.toml").exists());
    assert_eq!(fs::read_to_string(at("environments/prod/policy.cedar")).unwrap(), format!("{POLICY}// prod\n"));
    assert_eq!(stage.run("apply two --dry-run").exit, 0);
    // The set of the folder itself is for the environments without one of their own.
    fs::remove_dir_all(at("environments/dev")).unwrap();
    fs::write(at("policy.cedar"), format!("{POLICY}// dev\n")).unwrap();
    fs::write(at("roles.toml"), ROLES).unwrap();
    let ran = stage.run("apply two --dry-run -o json");
    assert_eq!((ran.exit, outcomes(&ran)), (10, vec!["dev planned".to_owned()]), "{ran:?}");
    fs::rename(at("environments/prod"), at("environments/production")).unwrap();
    let ran = stage.run("apply two --dry-run");
    assert!(ran.exit == 2 && ran.stderr.contains("environment production") && ran.stderr.contains("dev, prod"), "{ran:?}");
}

#[test]
fn an_export_never_leaves_its_folder_and_replaces_no_file() {
    let (stage, held) = stage();
    assert_eq!(stage.run("export config").exit, 2);
    for (name, said) in [("../up.cedar", "no plain file name"), ("policy.txt", "does not end in .cedar")] {
        held.lock().unwrap().policy.files.as_mut().unwrap().policies[0].name = name.to_owned();
        let ran = stage.run("export other");
        assert!(ran.exit == 1 && ran.stderr.contains(said), "{name}: {ran:?}");
        assert!(!stage.folder.path().join("other").exists());
    }
}
