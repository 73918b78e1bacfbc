//! Policies about what a credential can do at its upstream, on the way of a whole exchange: the registration decides, approvers see it, the
//! record keeps it, and the cache of verdicts does not take one scope for another.

use mayfly::credential::connector::{
    ConnectorFuture, MakeError, MintOrder, RepeatResponse, UndoError, UndoOrder, UpstreamConnector, UpstreamConnectors,
    UpstreamCredential, UpstreamHandle,
};
use mayfly::credential::connectors::{READERS, TABLE, built_in};
use mayfly::credential::{CredentialKind, CredentialMaterial};
use mayfly::document::SourceFile;
use mayfly::ledger::ProposalKind;
use mayfly::ledger::record::{Author, PolicySetUpdated as PolicyRecord, Record, UpstreamUpdated};
use mayfly::pb::mayfly::v1 as pb;
use mayfly::pb::mayfly::v1::approval_service_server::ApprovalService as _;
use mayfly::pb::mayfly::v1::policy_service_server::PolicyService as _;
use mayfly::policy::PolicySet;
use mayfly::policy::exchange_request::{ExchangeRequest, TaskRequest};
use mayfly::refusal::Error;
use mayfly::seq::Millis;
use mayfly::system::System;
use mayfly::upstream::access::{AccessError, AccessQuery, GrantedAccess};
use mayfly::upstream::file;
use mayfly::upstream::lease::{ConnectorSettings, LeaseConcurrency, LeaseTiming};
use zeroize::Zeroizing;

use super::kit::house::{house_with, source};
use super::*;

/// PostgreSQL without a server: the shipped connector describes, and a login is made of nothing.
struct Database(UpstreamConnectors);

impl UpstreamConnector for Database {
    fn kind(&self) -> CredentialKind {
        CredentialKind::Postgres
    }

    fn describe(&self, query: &AccessQuery<'_>) -> Result<GrantedAccess, AccessError> {
        self.0.of(CredentialKind::Postgres).unwrap().describe(query)
    }

    fn narrows(&self) -> bool {
        true
    }

    fn name(&self, order: &MintOrder<'_>) -> Result<UpstreamHandle, MakeError> {
        Ok(UpstreamHandle { handle: order.lease.to_string(), ends_at: Millis(0), terms: String::new() })
    }

    fn make<'a>(&'a self, order: &'a MintOrder<'a>) -> ConnectorFuture<'a, Result<UpstreamCredential, MakeError>> {
        let answer = CredentialMaterial::Database {
            host: "db.example.org".to_owned(),
            port: 5432,
            database: "orders".to_owned(),
            user: order.handle.to_owned(),
            password: Zeroizing::new("not one".to_owned()),
            server_ca_pem: String::new(),
            plaintext: false,
        };
        Box::pin(std::future::ready(Ok(UpstreamCredential { answer, irrevocable: false, ends_at: None })))
    }

    fn undo<'a>(&'a self, _: &'a UndoOrder<'a>) -> ConnectorFuture<'a, Result<(), UndoError>> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn is_gone<'a>(&'a self, _: &'a UndoOrder<'a>) -> ConnectorFuture<'a, Result<bool, UndoError>> {
        Box::pin(std::future::ready(Ok(true)))
    }

    fn settles_ms(&self) -> u64 {
        0
    }

    fn again<'a>(&'a self, _: &'a MintOrder<'a>) -> ConnectorFuture<'a, Result<RepeatResponse, MakeError>> {
        Box::pin(std::future::ready(Ok(RepeatResponse::Replace)))
    }
}

const APPROVER: &str = "spiffe://dev.mayfly.internal/operator/grace";

const POLICY: &str = r#"
@id("agents-use-databases") permit (principal in Role::"agent", action in Action::"Work", resource == Upstream::"orders");
@id("no-write-without-approval")
forbid (principal, action == Action::"Exchange", resource in Environment::"dev")
when { context has access && context.access has database && !context.access.read_only }
unless { context.approvals.count >= 1 };
@id("approvers-approve") permit (principal in Role::"operator", action == Action::"Approve", resource)
when { context has access && context.access.privileges.contains("INSERT") };
"#;

fn upstream(version: u64, change: impl Fn(String) -> String) -> Record {
    let entry = TABLE.iter().find(|entry| entry.settings.kind.as_str() == "postgres").unwrap();
    let text = entry.template.replace("\"prod\"", "\"dev\"").replace("approvers = []", &format!("approvers = [\"{APPROVER}\"]"));
    let upstream =
        file::parse(&SourceFile::new("orders.toml", change(text)), &READERS).unwrap_or_else(|wrong| panic!("{wrong:#?}"));
    let (name, digest, text) = (upstream.name.clone(), upstream.digest().to_vec(), upstream.to_text());
    let set = UpstreamUpdated { name, version, digest, text, ..UpstreamUpdated::default() };
    Record::new(Author::Mayfly("test".into()), Event::UpstreamSet(set))
}

/// A world with the registration of a database, and the policy above.
fn databases() -> World {
    let remotes = UpstreamConnectors::default().with(Arc::new(Database(built_in(None, &System::real()))));
    let (timing, places) = (LeaseTiming::default(), LeaseConcurrency::default());
    let house = house_with(ConnectorSettings { remotes, timing, places, issuer: String::new() });
    let w = World { house, runtime: runtime() };
    let mut policy = source("policy.cedar");
    policy.text.push_str(POLICY);
    let set = PolicySet::compile(vec![policy], source("roles.toml")).unwrap_or_else(|wrong| panic!("{wrong:#?}"));
    let (digest, text) = (set.digest().to_vec(), set.to_text().to_owned());
    let record = PolicyRecord { environment: "dev".into(), version: 2, digest, text, ..PolicyRecord::default() };
    let record = Record::new(Author::Mayfly("test".into()), Event::PolicySet(record));
    w.run(w.authority().ledger.commit(ProposalKind::Change, vec![record, upstream(1, |text| text)])).unwrap();
    w
}

fn wants(scopes: &[&str]) -> ExchangeRequest {
    let open = TaskRequest { upstreams: vec![("orders".into(), vec!["orders:read".into(), "orders:write".into()])], ..terms() };
    let scopes: Vec<String> = scopes.iter().map(|scope| (*scope).to_owned()).collect();
    ExchangeRequest {
        upstream: "orders".into(),
        scopes: scopes.into(),
        ttl_ms: Some(300_000),
        ..wanted(TaskChoice::Inline(open.into()))
    }
}

#[track_caller]
fn no<T>(answer: Result<T, Error>) -> mayfly::refusal::Refusal {
    match answer {
        Err(Error::Refusal(no)) => no,
        Err(Error::Fault(fault)) => panic!("{fault:?}"),
        Ok(_) => panic!("it was not refused"),
    }
}

/// The access in the record of an issuance.
fn recorded(w: &World, issued: &IssuedCredential) -> Vec<String> {
    let found = w.run(w.authority().issuance(issued.summary().credential)).unwrap().unwrap();
    found.issued().unwrap().access.clone()
}

#[test]
fn writing_takes_an_approval_whose_approver_sees_what_is_granted_and_reading_does_not() {
    let w = databases();
    let caller = w.house.caller("/agent/a");
    let exchange = |scopes: &[&str]| w.run(w.authority().exchange(&caller, &wants(scopes)));
    // In both orders, twice: a remembered verdict on one scope is none on the other.
    for _ in 0..2 {
        let issued = exchange(&["orders:read"]).unwrap();
        let access = recorded(&w, &issued);
        assert!(access.contains(&"read only".to_owned()) && access.contains(&"database orders".to_owned()), "{access:?}");
        assert!(access.contains(&"may SELECT on tables public.orders".to_owned()), "{access:?}");
        let refused = no(exchange(&["orders:write"]));
        assert_eq!(refused.reason, Reason::ApprovalNeeded, "{refused:?}");
    }
    let service = mayfly::serve::grpc::approval::ApprovalApi(w.authority().clone());
    let listed = ok(w.run(service.list_approvals(ask(&w.admin("/operator/grace"), pb::ListApprovalsRequest::default()))));
    let [approval] = &listed.approvals[..] else { panic!("{listed:?}") };
    for line in ["can do: read, write", "at db.example.org:5432", "may INSERT on tables public.orders"] {
        assert!(approval.access.iter().any(|said| said == line), "{line}: {:?}", approval.access);
    }
    let give = pb::DecideApprovalRequest {
        approval_id: approval.approval_id.clone(),
        request_sha256: approval.request_sha256.clone(),
        decision: pb::ApprovalDecision::Give.into(),
        reason: "as agreed".into(),
        ..Default::default()
    };
    ok(w.run(service.decide_approval(ask(&w.admin("/operator/grace"), give))));
    let issued = exchange(&["orders:write"]).unwrap();
    assert!(recorded(&w, &issued).contains(&"may UPDATE on tables public.orders".to_owned()));
    assert_eq!(no(exchange(&["orders:write"])).reason, Reason::ApprovalNeeded, "an approval serves once");
}

#[test]
fn a_registration_that_grants_more_under_a_scope_changes_the_verdict_of_the_next_request() {
    let w = databases();
    let caller = w.house.caller("/agent/a");
    let exchange = || w.run(w.authority().exchange(&caller, &wants(&["orders:read"])));
    exchange().unwrap();
    let wider = upstream(2, |text| text.replacen("privileges = [\"SELECT\"]", "privileges = [\"SELECT\", \"DELETE\"]", 1));
    w.run(w.authority().ledger.commit(ProposalKind::Change, vec![wider])).unwrap();
    assert_eq!(no(exchange()).reason, Reason::ApprovalNeeded);
    let back = upstream(3, |text| text);
    w.run(w.authority().ledger.commit(ProposalKind::Change, vec![back])).unwrap();
    exchange().unwrap();
}

#[test]
fn an_action_is_decided_by_the_access_of_its_scopes_and_explaining_shows_it() {
    let w = databases();
    let caller = w.house.caller("/agent/a");
    let issued = w.run(w.authority().exchange(&caller, &wants(&["orders:read"]))).unwrap();
    let task = TaskChoice::Named(issued.summary().about.task);
    let act = |scope: &str| {
        let want = ExchangeRequest { task: task.clone(), ..wants(&[scope]) };
        w.run(w.authority().authorize(&caller, &want, None))
    };
    act("orders:read").unwrap();
    assert_eq!(no(act("orders:write")).reason, Reason::ApprovalNeeded);
    let situation = pb::Situation {
        caller: "spiffe://dev.mayfly.internal/agent/a".into(),
        upstream: "orders".into(),
        scopes: vec!["orders:write".into()],
        ..Default::default()
    };
    let request = pb::ExplainPolicyRequest { environment: "dev".into(), situation: Some(situation), ..Default::default() };
    let service = mayfly::serve::grpc::policy::PolicyApi(w.authority().clone());
    let answer = ok(w.run(service.explain_policy(ask(&ROOT, request))));
    assert_eq!(answer.outcome(), pb::PolicyOutcome::Approval, "{answer:?}");
    assert!(answer.access.contains(&"may INSERT on tables public.orders".to_owned()), "{answer:?}");
    assert!(answer.reads.contains(&"context.access.read_only".to_owned()), "{answer:?}");
}

#[test]
fn a_request_for_a_part_is_decided_as_that_part_and_one_for_more_names_the_field() {
    let w = databases();
    let caller = w.house.caller("/agent/a");
    let details = |grant: &str| format!(r#"[{{"type":"postgres","grants":["{grant} on tables public.orders"]}}]"#);
    let with = |scope: &str, details: &str| ExchangeRequest { details: Some(details.into()), ..wants(&[scope]) };
    let exchange = |want: &ExchangeRequest| w.run(w.authority().exchange(&caller, want));
    let read = details("SELECT");
    // The whole scope writes, which takes an approval; the part reads.
    assert_eq!(no(exchange(&wants(&["orders:write"]))).reason, Reason::ApprovalNeeded);
    let issued = exchange(&with("orders:write", &read)).unwrap();
    assert_eq!(issued.summary().about.details, read);
    let access = recorded(&w, &issued);
    assert!(access.contains(&"read only".to_owned()) && !access.iter().any(|line| line.contains("INSERT")), "{access:?}");
    assert_eq!(no(exchange(&with("orders:write", &details("INSERT")))).reason, Reason::ApprovalNeeded);
    for (details, field) in [
        (details("DELETE"), "authorization_details[0].grants[0]"),
        (read.replace("postgres", "github"), "authorization_details[0].type"),
    ] {
        let refused = no(exchange(&with("orders:write", &details)));
        assert_eq!(refused.reason, Reason::InvalidField, "{refused:?}");
        assert!(refused.message.starts_with(field), "{refused:?}");
    }
    // For a kind that mayfly makes itself, whose rights are its scopes.
    let refused =
        no(exchange(&ExchangeRequest { details: Some(read.as_str().into()), ..wanted(TaskChoice::Inline(terms().into())) }));
    assert!(refused.message.starts_with("authorization_details: is not for kind jwt"), "{refused:?}");
    // A renewal is for the same part, and a policy that is set later sees the part, too.
    let renewed = w.run(w.authority().renew(&caller, issued.summary().credential, None, None, None)).unwrap();
    assert_eq!(renewed.summary().about.details, read);
    assert_eq!(recorded(&w, &renewed), access);
    let approvals = w.authority().ledger.peek(|s| s.approvals.values().map(|a| a.asked.details.clone()).collect::<Vec<_>>());
    assert_eq!(approvals.len(), 2, "the part and the whole are two requests: {approvals:?}");
}
