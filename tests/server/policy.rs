//! Changes of policy sets by operators: what they revoke, who has to agree, and what they would have decided.

use mayfly::cli::dev::DevSettings;
use mayfly::ledger::ProposalKind;
use mayfly::ledger::record::{Author, Event, PolicySetUpdated, Record};
use mayfly::pb::mayfly::v1 as pb;
use mayfly::pb::mayfly::v1::policy_service_client::PolicyServiceClient;
use mayfly::policy::set::files;
use mayfly::serve::client;
use tonic_types::StatusExt as _;

use crate::kit::{Up, reason};
use crate::policy_rig::{Change, Rig, approval_of, forbidding};

#[tokio::test(flavor = "multi_thread")]
async fn what_a_stricter_set_refuses_is_revoked_with_it_and_nothing_else() {
    let rig = Rig::new();
    let (mut goes, mut stays) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        goes.push(rig.exchange("agent/demo", "echo", "echo:write").await.unwrap());
        stays.push(rig.exchange("agent/demo", "echo", "echo:read").await.unwrap());
        stays.push(rig.exchange("mcp/echo", "echo", "echo:write").await.unwrap());
    }
    let set = rig.changed(&forbidding("echo:write")).await;
    let would = rig.set(pb::SetPolicyRequest { dry_run: true, ..rig.request(Some(set.clone())).await }).await.unwrap();
    assert_eq!((would.hits.unwrap().credentials, would.beyond, would.policy.unwrap().version), (3, 0, 2));
    let unconfirmed = pb::SetPolicyRequest { confirmation: None, ..rig.request(Some(set.clone())).await };
    assert_eq!(reason(&rig.set(unconfirmed).await.unwrap_err()), "CONFIRM_NEEDED");
    assert!(rig.good(&goes[0]).await, "nothing was done so far");
    let confirmed = pb::SetPolicyRequest {
        confirmation: Some(pb::Confirmation { credentials: 3, all: false }),
        request_id: "narrow".into(),
        ..rig.request(Some(set)).await
    };
    let done = rig.set(confirmed.clone()).await.unwrap();
    assert_eq!((done.hits.unwrap().credentials, done.policy.unwrap().version), (3, 2));
    assert_eq!(rig.set(confirmed).await.unwrap().hits.unwrap().credentials, 3, "the same request has the same answer");
    for issued in &goes {
        assert!(!rig.good(issued).await);
    }
    for issued in &stays {
        assert!(rig.good(issued).await);
    }
    assert_eq!(reason(&rig.exchange("agent/demo", "echo", "echo:write").await.unwrap_err()), "DENIED_BY_POLICY");
    let now = rig.get(pb::PolicyMode::Enforce, None).await.unwrap();
    assert!(!now.narrowing, "all of it was looked for");
    let stale = pb::SetPolicyRequest { read_version: 1, ..rig.request(Some(rig.changed(&|t| t + "\n").await)).await };
    assert_eq!(reason(&rig.set(stale).await.unwrap_err()), "DECIDED_ON_OLD_STATE");
    // The previous set again: a version like any other, and revoked credentials stay revoked.
    let back = Some(pb::PolicySource { from: Some(pb::policy_source::From::Version(1)) });
    let back = rig.set(rig.request(back).await).await.unwrap();
    assert_eq!((back.policy.unwrap().version, back.hits.unwrap().credentials), (3, 0));
    rig.exchange("agent/demo", "echo", "echo:write").await.unwrap();
    assert!(!rig.good(&goes[0]).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workload_that_loses_its_role_loses_what_it_had() {
    let rig = Rig::new();
    let mut goes = Vec::new();
    for _ in 0..70 {
        goes.push(rig.exchange("ci/demo", "echo", "echo:read").await.unwrap());
    }
    let stays = rig.exchange("agent/demo", "echo", "echo:read").await.unwrap();
    let mut files = rig.get(pb::PolicyMode::Enforce, None).await.unwrap().files.unwrap();
    let roles = files.roles.as_mut().unwrap();
    roles.text = roles.text.replace(
        "[role.ci]\nunder = [\"spiffe://dev.mayfly.internal/ci\"]",
        "[role.ci]\nunder = [\"spiffe://dev.mayfly.internal/none\"]",
    );
    let set = Some(pb::PolicySource { from: Some(pb::policy_source::From::Files(files)) });
    let done = rig.set(rig.request(set).await).await.unwrap();
    assert_eq!((done.hits.unwrap().credentials, done.beyond), (70, 0), "one rule for all of them, and for nobody else");
    assert!(!rig.good(&goes[0]).await && !rig.good(&goes[69]).await && rig.good(&stays).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_set_before_would_refuse_by_now_is_not_revoked_because_of_another_change() {
    let rig = Rig::new();
    let once = |text: String| {
        text + "\n@id(\"once-a-task\")\nforbid (principal, action == Action::\"Exchange\", resource == Upstream::\"echo\")\n\
                when { context.counts.issued_in_task >= 1 };\n"
    };
    rig.put(&once).await.unwrap();
    let held = rig.exchange("agent/demo", "echo", "echo:read").await.unwrap();
    let unrelated = |text: String| text.replace("context.act_depth > 3", "context.act_depth > 2");
    assert_eq!(rig.put(&unrelated).await.unwrap().hits.unwrap().credentials, 0);
    assert!(rig.good(&held).await);
    let tighter = |text: String| text.replace("issued_in_task >= 1", "issued_in_task >= 0");
    assert_eq!(rig.put(&tighter).await.unwrap().hits.unwrap().credentials, 1, "another policy by the same name");
    assert!(!rig.good(&held).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn narrowing_that_a_stop_cut_short_goes_on() {
    let rig = Rig::new();
    let authority = rig.up.running().authority().clone();
    let early = rig.exchange("agent/demo", "echo", "echo:write").await.unwrap();
    let looked = authority.ledger.durable();
    let late = rig.exchange("agent/demo", "echo", "echo:write").await.unwrap();
    // The state that a server leaves when it is killed between the change and the second search.
    let text = authority.ledger.peek(|s| s.policies["dev"].text.clone());
    let (mut policies, roles) = files(&text).unwrap();
    policies[0].text = forbidding("echo:write")(policies[0].text.clone());
    let stricter = mayfly::policy::PolicySet::compile(policies, roles).unwrap();
    let set = PolicySetUpdated {
        environment: "dev".into(),
        version: 2,
        digest: stricter.digest().to_vec(),
        text: stricter.to_text().to_owned(),
        audit_only: false,
        looked: looked.as_u64(),
    };
    authority.ledger.commit(ProposalKind::Change, vec![Record::new(Author::LocalUid(0), Event::PolicySet(set))]).await.unwrap();
    assert!(rig.get(pb::PolicyMode::Enforce, None).await.unwrap().narrowing && rig.good(&late).await);
    authority.finish_narrowings().await.unwrap();
    assert_eq!((rig.good(&early).await, rig.good(&late).await), (true, false), "what the first look saw was its to revoke");
    assert!(!rig.get(pb::PolicyMode::Enforce, None).await.unwrap().narrowing);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_operates_is_changed_by_two() {
    let rig = Rig::new();
    let held = rig.exchange("agent/demo", "echo", "echo:write").await.unwrap();
    let more = rig.exchange("agent/demo", "echo", "echo:write").await.unwrap();
    // One change of policies that govern admin actions and of policies that do not.
    let change = |text: String| {
        let text = forbidding("echo:write")(text);
        text + "\n@id(\"ci-observes\")\npermit (principal in Role::\"ci\", action == Action::\"Observe\", resource);\n"
    };
    let request = rig.request(Some(rig.changed(&change).await)).await;
    let would = rig.set(pb::SetPolicyRequest { dry_run: true, ..request.clone() }).await.unwrap();
    assert_eq!(would.governs, ["policy ci-observes", "role ci"]);
    assert_eq!(would.hits.unwrap().credentials, 2);
    // A local operator (uid) is neither a second person nor the first of two.
    let mut socket = PolicyServiceClient::new(client::unix(&rig.up.socket()).await.unwrap());
    assert_eq!(reason(&socket.set_policy(request.clone()).await.unwrap_err()), "NOT_YOURS");
    let id = approval_of(&rig.set(request.clone()).await.unwrap_err());
    assert_eq!(approval_of(&rig.set(request.clone()).await.unwrap_err()), id, "the same change asks once");
    assert_eq!(rig.get(pb::PolicyMode::Enforce, None).await.unwrap().version, 1);
    let shown = rig.show("operator/colleague", &id).await;
    assert_eq!((shown.of(), shown.asked_because.as_str()), (pb::ApprovalOf::Change, "test"));
    let Some(pb::approval_change::To::Policy(set)) = shown.change.unwrap().to else { panic!("no policy set") };
    assert!(set.files.unwrap().policies[0].text.contains("ci-observes"));
    assert_eq!(reason(&rig.give("operator/you", &id, true).await.unwrap_err()), "NOT_YOURS", "whoever asked");
    assert_eq!(reason(&rig.give("operator/colleague", &id, false).await.unwrap_err()), "CONFIRM_NEEDED");
    assert!(rig.good(&held).await);
    let given = rig.give("operator/colleague", &id, true).await.unwrap();
    assert_eq!((given.approval.unwrap().state(), given.hits.unwrap().credentials), (pb::ApprovalState::Used, 2));
    let now = rig.get(pb::PolicyMode::Enforce, None).await.unwrap();
    let Some(pb::identity::Identity::SpiffeId(author)) = now.author.unwrap().identity else { panic!("no author") };
    assert_eq!((now.version, author.as_str(), now.narrowing), (2, "spiffe://dev.mayfly.internal/operator/you", false));
    assert!(!rig.good(&held).await && !rig.good(&more).await);
    assert_eq!(reason(&rig.give("operator/colleague", &id, true).await.unwrap_err()), "ALREADY_EXISTS");
    assert!(rig.show("operator/you", &id).await.change.is_none(), "it is in the ledger, and no longer in memory");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_takes_approval_is_changed_by_two_and_by_no_role_of_exchanging_alone() {
    let rig = Rig::new();
    let approve = |text: String| {
        text + "\n@id(\"writes-need-somebody\")\nforbid (principal, action == Action::\"Exchange\", resource == Upstream::\"echo\")\n\
                when { context.scopes.contains(\"echo:write\") } unless { context.approvals.count >= 1 };\n"
    };
    let id = approval_of(&rig.put(&approve).await.unwrap_err());
    rig.give("operator/colleague", &id, true).await.unwrap();
    // Removing the policy again would permit what needs an approval.
    let away = rig.put(&|text: String| text.split("\n@id(\"writes-need-somebody\")").next().unwrap().to_owned()).await;
    approval_of(&away.unwrap_err());
    // Another change takes effect meanwhile: the pending one is obsolete.
    let id = approval_of(&rig.put(&|text: String| text.replace("action in Action::\"Admin\"", "action")).await.unwrap_err());
    rig.put(&|text: String| text + "// a comment\n").await.unwrap();
    assert_eq!(reason(&rig.give("operator/colleague", &id, true).await.unwrap_err()), "DECIDED_ON_OLD_STATE");
}

#[tokio::test(flavor = "multi_thread")]
async fn policy_may_want_a_second_operator_for_any_change() {
    let rig = Rig::new();
    let change = |text: String| {
        text + "\n@id(\"two-for-policy\")\nforbid (principal, action == Action::\"ManagePolicy\", resource)\n\
                unless { context.approvals.count >= 1 };\n"
    };
    let id = approval_of(&rig.put(&change).await.unwrap_err());
    rig.give("operator/colleague", &id, true).await.unwrap();
    // Nothing of this change governs admin actions.
    let id = approval_of(&rig.put(&forbidding("echo:write")).await.unwrap_err());
    assert!(rig.show("operator/colleague", &id).await.governs.is_empty());
    let refused = pb::DecideApprovalRequest {
        approval_id: id.clone(),
        request_sha256: rig.show("operator/colleague", &id).await.request_sha256,
        decision: pb::ApprovalDecision::Refuse.into(),
        reason: "no".into(),
        ..Default::default()
    };
    let refused = rig.approvals("operator/colleague").await.decide_approval(refused).await.unwrap().into_inner();
    assert_eq!(refused.approval.unwrap().state(), pb::ApprovalState::Refused);
    assert_eq!(rig.get(pb::PolicyMode::Enforce, None).await.unwrap().version, 2);
    // Workloads change nothing.
    let mut agent = PolicyServiceClient::new(rig.up.channel("agent/demo").await);
    let request = rig.request(Some(rig.changed(&|t| t + "\n").await)).await;
    let no = agent.set_policy(request).await.unwrap_err();
    assert_eq!((no.code(), reason(&no).as_str()), (tonic::Code::Unimplemented, "NOT_SERVED"), "it is on another listener");
    assert!(no.message().contains("this address is the workload listener") && no.message().contains("listen.admin"), "{no:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_who_is_alone_says_so_in_the_configuration() {
    let set = vec![("admin.single_operator".to_owned(), "true".to_owned())];
    let rig = Rig { up: Up::new(DevSettings { set, ..DevSettings::default() }) };
    let request =
        rig.request(Some(rig.changed(&|text: String| text.replace("action in Action::\"Admin\"", "action")).await)).await;
    approval_of(&rig.set(request.clone()).await.unwrap_err());
    let mut socket = PolicyServiceClient::new(client::unix(&rig.up.socket()).await.unwrap());
    let done = socket.set_policy(request).await.unwrap().into_inner();
    assert_eq!((done.policy.unwrap().version, done.governs), (2, vec!["policy operators".to_owned()]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_set_beside_the_one_in_force_is_asked_and_not_listened_to() {
    let rig = Rig::new();
    assert_eq!(reason(&rig.get(pb::PolicyMode::Audit, None).await.unwrap_err()), "NOT_FOUND");
    let held = rig.exchange("agent/demo", "echo", "echo:write").await.unwrap();
    let beside = pb::SetPolicyRequest {
        mode: pb::PolicyMode::Audit.into(),
        read_version: 0,
        ..rig.request(Some(rig.changed(&forbidding("echo:write")).await)).await
    };
    let set = rig.set(beside).await.unwrap();
    assert_eq!((set.hits.unwrap().credentials, set.policy.unwrap().version), (0, 1), "it revokes nothing");
    rig.exchange("agent/demo", "echo", "echo:write").await.unwrap();
    rig.exchange("agent/demo", "echo", "echo:read").await.unwrap();
    assert!(rig.good(&held).await);
    let audited = rig.get(pb::PolicyMode::Audit, None).await.unwrap().audited.unwrap();
    // Opening a task is evaluated by the shadow policy as well.
    assert_eq!((audited.same, audited.would_refuse, audited.would_permit), (3, 1, 0));
    // Making the shadow policy the one in effect is a change of mode, which needs two people.
    let promote = Some(pb::PolicySource { from: Some(pb::policy_source::From::Audited(true)) });
    let request = rig.request(promote).await;
    let id = approval_of(&rig.set(request).await.unwrap_err());
    assert_eq!(rig.show("operator/colleague", &id).await.governs, ["mode"]);
    rig.give("operator/colleague", &id, true).await.unwrap();
    assert!(!rig.good(&held).await);
    // Removing the shadow policy needs no second person.
    let off = pb::SetPolicyRequest { mode: pb::PolicyMode::Audit.into(), read_version: 1, ..rig.request(None).await };
    assert_eq!(rig.set(off).await.unwrap().policy.unwrap().version, 2);
    assert!(rig.get(pb::PolicyMode::Audit, None).await.unwrap().files.is_none());
    let none = rig.set(rig.request(None).await).await.unwrap_err();
    assert_eq!(reason(&none), "INVALID_FIELD", "an environment is never without a set");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_set_is_checked_before_anybody_relies_on_it() {
    let rig = Rig::new();
    let validate = async |change: Change<'_>| {
        let request = pb::ValidatePolicyRequest { environment: "dev".into(), set: Some(rig.changed(change).await) };
        rig.policies("operator/you").await.validate_policy(request).await.unwrap().into_inner()
    };
    let wrong =
        validate(&|text: String| text + "\npermit (principal in Role::\"agnet\", action, resource) when { context.tol == 1 };")
            .await;
    assert!(wrong.violations.len() >= 2, "{wrong:?}");
    assert!(wrong.violations.iter().all(|v| v.field.starts_with("policy.cedar")), "{wrong:?}");
    let many =
        validate(&|text: String| text + &"permit (principal, action, resource) when { context.tol == 1 };\n".repeat(500)).await;
    assert_eq!(many.violations.len(), mayfly::limits::POLICY_VIOLATIONS + 1);
    let last = many.violations.last().unwrap();
    assert!(last.field == "…" && last.description.contains(" more were found"), "{last:?}");
    let right = validate(&|text: String| text.replace("Upstream::\"repos\"", "Upstream::\"gitlab\"")).await;
    assert!(right.violations.is_empty() && right.governs.is_empty(), "{right:?}");
    assert!(right.warnings.iter().any(|w| w.description.contains("upstream gitlab is not registered")), "{right:?}");
    let locked = validate(&|text: String| text.replace("action in Action::\"Admin\"", "action == Action::\"Observe\"")).await;
    let said = locked.violations.iter().map(|v| v.description.as_str()).collect::<String>();
    assert!(said.contains("nobody may do ManagePolicy, Revoke or Lock in environment dev"), "{locked:?}");
    let governs = validate(&|text: String| text.replace(OPERATORS, "action")).await;
    assert!(governs.violations.is_empty(), "{governs:?}");
    assert_eq!(governs.governs, ["policy operators"]);
    let no = rig.put(&|_| "permit (principal".to_owned()).await.unwrap_err();
    assert_eq!(reason(&no), "INVALID_FIELD");
    let request = pb::ValidatePolicyRequest { environment: "elsewhere".into(), set: Some(rig.changed(&|t| t).await) };
    let no = rig.policies("operator/you").await.validate_policy(request.clone()).await.unwrap_err();
    assert_eq!(reason(&no), "NOT_FOUND");
    assert!(no.message().contains("there is no environment elsewhere"), "{no:?}");
    assert_eq!(no.get_error_details().error_info().unwrap().metadata["way_out"], "name one of: dev", "the known names are told");
    // Somebody who operates nothing learns no names.
    let no = rig.policies("agent/demo").await.validate_policy(request).await.unwrap_err();
    let told = format!("{no:?} {:?}", no.get_error_details());
    assert!(reason(&no) != "NOT_FOUND" && !told.contains("name one of"), "{told}");
}

const OPERATORS: &str = "action in Action::\"Admin\"";

/// Such a set could be replaced by nobody: neither by its author nor by a colleague.
#[tokio::test(flavor = "multi_thread")]
async fn a_set_that_leaves_nobody_who_may_act_is_refused() {
    let rig = Rig::new();
    let no = rig.put(&|text: String| text.replace(OPERATORS, "action == Action::\"Observe\"")).await.unwrap_err();
    assert_eq!(reason(&no), "INVALID_FIELD");
    let said = format!("{} {:?}", no.message(), no.get_details_bad_request());
    assert!(said.contains("nobody may do ManagePolicy, Revoke or Lock in environment dev"), "{said}");
    assert!(said.contains("permit (principal in Role::"), "{said}");
    // Each of the three is needed.
    for lost in ["ManagePolicy", "Revoke", "Lock"] {
        let forbid = format!("\nforbid (principal, action == Action::\"{lost}\", resource);");
        let no = rig.put(&|text: String| text + &forbid).await.unwrap_err();
        assert!(format!("{no:?}").contains(&format!("nobody may do {lost} in environment dev")), "{lost}: {no:?}");
    }
    // A dry run says the same; a shadow policy set has no effect and may be anything.
    let change: Change<'_> = &|text: String| text.replace(OPERATORS, "action == Action::\"Observe\"");
    let request = rig.request(Some(rig.changed(change).await)).await;
    let no = rig.set(pb::SetPolicyRequest { dry_run: true, ..request.clone() }).await.unwrap_err();
    assert_eq!(reason(&no), "INVALID_FIELD");
    let beside = pb::SetPolicyRequest { mode: pb::PolicyMode::Audit.into(), read_version: 0, ..request };
    rig.set(beside).await.unwrap();
    let promote = Some(pb::PolicySource { from: Some(pb::policy_source::From::Audited(true)) });
    let no = rig.set(rig.request(promote).await).await.unwrap_err();
    assert_eq!(reason(&no), "INVALID_FIELD", "{no:?}");
    assert_eq!(rig.get(pb::PolicyMode::Enforce, None).await.unwrap().version, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_may_already_does_not_keep_a_set_from_being_changed() {
    let (dir, world) = crate::kit::world(DevSettings { engine: mayfly::cli::dev::DevEngine::Memory, ..DevSettings::default() });
    let file = world.dir().join("policy/policy.cedar");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text + "\nforbid (principal, action == Action::\"Lock\", resource);").unwrap();
    let running = world.start().unwrap_or_else(|no| panic!("{no}"));
    let rig = Rig { up: Up::of(running, world) };
    let answer = rig.put(&|text: String| text + "\n// The same, with a comment.").await.unwrap();
    assert_eq!(answer.policy.unwrap().version, 2);
    let no = rig.put(&|text: String| text + "\nforbid (principal, action == Action::\"Revoke\", resource);").await.unwrap_err();
    assert!(format!("{no:?}").contains("nobody may do Revoke in environment dev"), "{no:?}");
    drop((rig, dir));
}

/// With `admin.single_operator` the socket can give everything back. A change that waits for an approval is checked when it is given, too,
/// since the setting may have changed meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn one_operator_over_the_socket_may_leave_no_other() {
    let set = vec![("admin.single_operator".to_owned(), "true".to_owned())];
    let mut rig = Rig { up: Up::on(DevSettings { set, ..DevSettings::default() }) };
    let change: Change<'_> =
        &|text: String| text.replace(OPERATORS, "action in [Action::\"Observe\", Action::\"ApproveChange\"]");
    let id = approval_of(&rig.put(change).await.unwrap_err());
    let running = rig.up.running.take().unwrap();
    let restarted = |running: mayfly::server::RunningServer, world: &mayfly::cli::dev::DevWorld| {
        running.stop();
        let text = std::fs::read_to_string(world.config()).unwrap();
        assert!(text.contains("single_operator = true"), "{text}");
        std::fs::write(world.config(), text.replace("single_operator = true", "single_operator = false")).unwrap();
        world.start().unwrap_or_else(|no| panic!("{no}"))
    };
    rig.up.running = Some(tokio::task::block_in_place(|| restarted(running, &rig.up.world)));
    let no = rig.give("operator/colleague", &id, true).await.unwrap_err();
    assert!(format!("{no:?}").contains("nobody may do ManagePolicy, Revoke or Lock in environment dev"), "{no:?}");
    assert_eq!(rig.get(pb::PolicyMode::Enforce, None).await.unwrap().version, 1);

    let set = vec![("admin.single_operator".to_owned(), "true".to_owned())];
    let rig = Rig { up: Up::new(DevSettings { set, ..DevSettings::default() }) };
    let request = rig.request(Some(rig.changed(change).await)).await;
    let mut socket = PolicyServiceClient::new(client::unix(&rig.up.socket()).await.unwrap());
    let done = socket.set_policy(request).await.unwrap().into_inner();
    assert_eq!(done.policy.unwrap().version, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_would_happen_is_explained() {
    let rig = Rig::new();
    let explain = async |change: &dyn Fn(&mut pb::Situation)| {
        let mut situation = pb::Situation {
            caller: "spiffe://dev.mayfly.internal/agent/demo".into(),
            upstream: "echo".into(),
            scopes: vec!["echo:read".into()],
            ..Default::default()
        };
        change(&mut situation);
        let request = pb::ExplainPolicyRequest { environment: "dev".into(), set: None, situation: Some(situation) };
        rig.policies("operator/you").await.explain_policy(request).await.map(tonic::Response::into_inner)
    };
    let yes = explain(&|_| {}).await.unwrap();
    assert_eq!((yes.outcome(), yes.policies.as_slice()), (pb::PolicyOutcome::Permit, &["demo-agent".to_owned()][..]));
    assert_eq!((yes.roles.as_slice(), yes.caller_environment.as_str(), yes.version), (&["agent".to_owned()][..], "dev", 1));
    assert!(yes.cacheable && yes.reads.contains(&"context.sensitive".to_owned()), "{:?}", yes.reads);
    let no = explain(&|s| s.caller = "spiffe://dev.mayfly.internal/mcp/repos".into()).await.unwrap();
    assert_eq!((no.outcome(), no.text.as_str()), (pb::PolicyOutcome::Deny, "no policy permits it"));
    let wall = explain(&|s| s.caller = "spiffe://elsewhere.example/agent/demo".into()).await.unwrap();
    assert_eq!(wall.outcome(), pb::PolicyOutcome::Wall);
    let operator = explain(&|s| {
        s.caller = "spiffe://dev.mayfly.internal/operator/you".into();
        (s.action, s.upstream) = ("ManagePolicy".into(), String::new());
    });
    assert_eq!(operator.await.unwrap().policies, ["operators"]);
    for (field, change) in [
        ("situation.caller", (|s| s.caller = "agent".into()) as fn(&mut pb::Situation)),
        ("situation.action", |s| s.action = "Exchagne".into()),
        ("situation.upstream", |s| s.upstream = String::new()),
    ] {
        let no = explain(&change).await.unwrap_err();
        let violations = no.get_error_details().bad_request().unwrap().field_violations.clone();
        assert_eq!(violations[0].field, field);
    }
    assert_eq!(reason(&explain(&|s| s.upstream = "nothing".into()).await.unwrap_err()), "NOT_FOUND");
}

#[tokio::test(flavor = "multi_thread")]
async fn recorded_decisions_are_decided_once_more() {
    let rig = Rig::new();
    for _ in 0..4 {
        rig.exchange("agent/demo", "echo", "echo:write").await.unwrap();
    }
    rig.exchange("agent/demo", "echo", "echo:read").await.unwrap();
    // Refused by policy, in a task that may be opened.
    let no = rig.exchange("ci/demo", "echo", "echo:write").await.unwrap_err();
    assert_eq!(reason(&no), "DENIED_BY_POLICY");
    let diff = async |change: Change<'_>| {
        let request = pb::DiffPolicyRequest { environment: "dev".into(), set: Some(rig.changed(change).await), since: None };
        rig.policies("operator/you").await.diff_policy(request).await.unwrap().into_inner()
    };
    let same = diff(&|text| text).await;
    assert_eq!((same.newly_refused, same.newly_permitted, same.undetermined), (0, 0, 0), "{same:?}");
    assert!(same.decisions >= 5 && same.reached.is_none(), "{same:?}");
    let stricter = diff(&forbidding("echo:write")).await;
    assert_eq!((stricter.newly_refused, stricter.samples.len()), (4, 4));
    let sample = &stricter.samples[0];
    assert_eq!(
        (sample.upstream.as_str(), sample.scopes.as_slice(), sample.permitted),
        ("echo", &["echo:write".to_owned()][..], true)
    );
    assert_eq!(sample.now, "forbidden by not-echo:write");
    // Once the new set is in effect, earlier decisions are replayed with the set of their time.
    rig.put(&forbidding("echo:write")).await.unwrap();
    assert_eq!(reason(&rig.exchange("agent/demo", "echo", "echo:write").await.unwrap_err()), "DENIED_BY_POLICY");
    let wait = async || {
        for _ in 0..100 {
            let back = diff(&|text: String| text.split("\n@id(\"not-echo:write\")").next().unwrap().to_owned()).await;
            if back.newly_permitted > 0 {
                return back;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        panic!("the refusal was not recorded");
    };
    let back = wait().await;
    assert_eq!((back.newly_refused, back.newly_permitted, back.undetermined), (0, 1, 0), "{back:?}");
}
