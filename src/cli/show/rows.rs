//! The names and the columns of the messages that commands print as they are.

use super::{Shown, author, joined, printed, target};
use mayfly_proto::mayfly::v1 as pb;

printed!(Shown<pb::Credential>, c, "credential_id",
    ["CREDENTIAL": "credential_id", "KIND": "kind", "STATE": "state", "UPSTREAM": "upstream", "SCOPES": "scopes", "EXPIRES": "expires_at",
     "CALLER": "caller"],
    ["TASK": "task_id", "TOOL": "tool", "ENVIRONMENT": "environment", "AT UPSTREAM": "upstream_state", "SEQ": "seq", "PURPOSE": "purpose"]);

printed!(
    Shown<pb::LookupTokenResponse>,
    found,
    (match &found.credential {
        Some(credential) => credential.credential_id.clone(),
        None => found.signing_key.clone(),
    })
);
printed!(Shown<pb::AuthorizeResponse>, answer, "seq");

printed!(Shown<pb::Task>, t, "task_id",
    ["TASK": "task_id", "STATE": "state", "UNEXPIRED": "live_credentials", "DEADLINE": "deadline", "OWNER": (author(&t.owner)),
     "PURPOSE": "purpose"],
    ["UPSTREAMS": (super::task::allowances(t.terms.iter().flat_map(|terms| &terms.upstreams))), "ENVIRONMENT": "environment",
     "PARENT": (super::task::parent(t).to_owned()), "HEARTBEAT DUE": "heartbeat_due", "SEQ": "seq"]);

printed!(Shown<pb::TargetHits>, t, (target(&t.target)),
    ["TARGET": (target(&t.target)), "CREDENTIALS": "hits.credentials", "TASKS": "hits.tasks", "CALLERS": "hits.callers"], []);

printed!(Shown<pb::Rule>, r, "seq",
    ["SEQ": "seq", "TARGETS": (joined(r.targets.iter().map(crate::targets::words), "; ")), "HIT": "hits.credentials", "AT": "at",
     "AUTHOR": (author(&r.author)), "REASON": "reason"],
    ["KEPT UNTIL": (super::time(r.kept_until).unwrap_or_else(|| "for ever".to_owned())), "ISSUED ONLY": "issued_only"]);

printed!(Shown<pb::Lock>, l, (format!("{}:{}", l.seq, l.index)),
    ["SEQ": "seq", "INDEX": "index", "TARGET": (target(&l.target)), "SINCE": "since", "AUTHOR": (author(&l.author)),
     "REASON": "reason"],
    []);

printed!(Shown<pb::AddLockResponse>, answer, "seq");
printed!(Shown<pb::LiftLockResponse>, answer, "seq");

printed!(Shown<pb::Follower>, f, "follower",
    ["FOLLOWER": "follower", "IDENTITY": (author(&f.identity)), "CONNECTED": "connected", "APPLIED": "applied_seq",
     "LAST SEEN": "last_seen"],
    ["SENT": "sent_seq", "UPSTREAMS": "upstreams"]);

printed!(Shown<pb::Key>, k, "key_id",
    ["KEY": "key_id", "PURPOSE": "purpose", "STATE": "state", "ALGORITHM": "algorithm", "ENVIRONMENT": "environment",
     "SIGNS FROM": "active_from"],
    ["VERIFIES UNTIL": "verifies_until", "CREATED": "created_at", "ISSUER": "issuer", "SEQ": "seq"]);

printed!(Shown<pb::RotateKeyResponse>, answer, "key.key_id");

printed!(Shown<pb::Lease>, l, "lease_id",
    ["LEASE": "lease_id", "STATE": "state", "UPSTREAM": "upstream", "WHAT": "what", "OPENED": "opened_at", "ATTEMPTS": "attempts",
     "LAST ERROR": "last_error"],
    ["KIND": "kind", "CREDENTIAL": "credential_id", "TASK": "task_id", "CAUSE": "cause", "NEXT ATTEMPT": "next_attempt",
     "WATCHED": "watched", "ENDS": "ends_at"]);

printed!(Shown<pb::UpstreamSecret>, s, "upstream",
    ["UPSTREAM": "upstream", "ENVIRONMENT": "environment", "VERSION": "version", "STORED": "stored_at", "ROTATION DUE": "rotation_due_at",
     "STATUS": "status"],
    ["ATTEMPTS": "attempts", "LAST ERROR": "last_error", "NEXT ATTEMPT": "next_attempt", "REQUESTED": "rotation_requested_at"]);

printed!(Shown<pb::SecretVersion>, v, (v.version.to_string()),
    ["VERSION": "version", "STATE": "state", "STORED": "stored_at", "SINCE": "since", "AUTHOR": (author(&v.author))],
    ["ROTATED": "rotated", "SEQ": "seq"]);

printed!(Shown<pb::PutSecretResponse>, answer, (answer.version.to_string()));
printed!(Shown<pb::RemoveSecretResponse>, answer, "seq");

printed!(Shown<pb::TrustDomain>, d, "trust_domain",
    ["TRUST DOMAIN": "trust_domain", "SOURCE": "source", "ROOTS": (d.trust_anchors.len().to_string()),
     "REMOVED": (d.removed_trust_anchors.len().to_string()), "SEQUENCE": "sequence", "CHANGED": "changed_at"],
    ["SEQ": "seq"]);

printed!(Shown<pb::Webhook>, w, "name",
    ["NAME": "name", "URL": "url", "DELIVERED": "delivered", "FAILED": "failed", "GIVEN UP": "given_up", "PROBLEM": "problem"],
    ["EVENTS": (all(&w.events)), "ENVIRONMENTS": (all(&w.environments)), "SEQ": "seq", "BEHIND": "behind", "SINCE": "since"]);

printed!(Shown<pb::Upstream>, u, "upstream",
    ["UPSTREAM": "upstream", "STATE": "state", "ENVIRONMENT": "environment", "KINDS": "kinds", "SCOPES": "scopes", "OWNER": "owner",
     "FINDINGS": "findings.problem"],
    ["PURPOSE": "purpose", "AUDIENCE": "audience", "BASE URL": "base_url", "SYSTEM": "system", "PRIVILEGE": "privilege",
     "BLAST RADIUS": "blast_radius", "SERVERS": "servers", "APPROVERS": "approvers", "MAX TTL MS": "max_ttl_ms", "EXPIRES": "expires_at",
     "UNEXPIRED": "live_credentials", "LAST USED": "last_used_at", "VERSION": "version", "SEQ": "seq"]);

printed!(Shown<pb::TestStep>, s, "name",
    ["STEP": "name", "RESULT": (if s.problem.is_none() { "ok" } else { "failed" }.to_owned()), "TOOK MS": "took_ms",
     "PROBLEM": "problem.message"],
    []);

printed!(Shown<pb::Binding>, b, "binding",
    ["BINDING": "binding", "UPSTREAM": "upstream",
     "CALLERS": (joined(b.callers.iter().cloned().chain(b.callers_under.iter().map(|prefix| format!("{prefix}/*"))), ",")),
     "TOOLS": (if b.any_tool { "any".to_owned() } else { b.tools.join(",") }), "SCOPES": "scopes"],
    ["ENVIRONMENT": "environment", "VERSION": "version", "AUTHOR": (author(&b.author)), "AT": "at"]);

printed!(Shown<pb::Approval>, a, "approval_id",
    ["APPROVAL": "approval_id", "STATE": "state", "CALLER": (author(&a.caller)), "UPSTREAM": "upstream", "SCOPES": "scopes", "TOOL": "tool",
     "PURPOSE": "purpose", "EXPIRES": "expires_at"],
    ["ENVIRONMENT": "environment", "ASKED": "asked_at", "DECIDED BY": (author(&a.decided_by)), "REASON": "reason", "OF": "of"]);

printed!(Shown<pb::BreakGlass>, g, "task_id",
    ["TASK": "task_id", "STATE": "state", "RIGHTS": "rights", "ENVIRONMENT": "environment",
     "PEOPLE": (joined(g.people.iter().map(|who| author(&Some(who.clone()))), ", ")), "OPENED": "opened_at", "REVIEWED BY": (reviewed(g))],
    ["REASONS": (g.reasons.join("; ")), "ENDED": "ended_at", "ISSUED": "issued_credentials", "REVIEW": "review"]);

printed!(Shown<pb::PolicySet>, p, (format!("{}/{}", p.environment, p.version)));
printed!(Shown<pb::ExplainPolicyResponse>, answer, "outcome");
printed!(Shown<pb::ValidatePolicyResponse>, answer, (answer.policies.join("\n")));
printed!(Shown<pb::DiffPolicyResponse>, d, (joined(d.samples.iter().map(|sample| sample.seq.to_string()), "\n")));

printed!(Shown<pb::DecisionDiff>, d, "seq",
    ["SEQ": "seq", "CALLER": "caller", "UPSTREAM": "upstream", "SCOPES": "scopes", "TOOL": "tool",
     "THEN": (if d.permitted { "permitted" } else { "refused" }.to_owned()), "NOW": "now"],
    ["AT": "at"]);

printed!(Shown<pb::ExplainResponse>, answer, "summary");
printed!(Shown<pb::Finding>, f, "subject",
    ["LOOKED AT": "subject", "PERMITS": "permits", "WHAT CAME OF IT": "text", "RECORD": "seq"], []);

printed!(Shown<pb::Record>, r, "seq",
    ["RECORD": "seq", "AT": "at", "EVENT": "event", "AUTHOR": (author(&r.author)), "VOID BECAUSE": "void_because"],
    ["CONTENT": "body"]);

printed!(
    Shown<pb::BlastRadiusResponse>,
    r,
    (joined(r.sorts.iter().flat_map(|sort| &sort.items).map(|item| item.name.clone()), "\n"))
);
printed!(Shown<pb::WhoamiResponse>, w, (author(&w.identity)));

printed!(
    Shown<pb::GetStatusResponse>,
    s,
    (match s.issuing.clone().unwrap_or_default() {
        pb::Issuing { issuing: true, .. } => "issuing".to_owned(),
        not => not.reason,
    })
);

fn all(list: &[String]) -> String {
    if list.is_empty() { "all".to_owned() } else { list.join(",") }
}

fn reviewed(glass: &pb::BreakGlass) -> String {
    match glass.reviewer {
        None if glass.unreviewed => "nobody yet".to_owned(),
        _ => author(&glass.reviewer),
    }
}
