//! The grants on which a credential rests, by all the names that a revocation can use for them.

use mayfly::revocation::TargetKind;
use serde_json::{Value, json};

/// A grant: the credential itself, or another grant that it rests on. A name that the grant does not have is empty.
#[derive(Clone, Debug, Default)]
pub struct Ground {
    pub credential: String,
    pub task: String,
    pub caller: String,
    pub trust_domain: String,
    pub subject: (String, String),
    pub upstream: String,
    pub scope: String,
    pub binding: String,
    pub tool: String,
    pub environment: String,
    pub policy: u64,
    pub key: String,
    /// SHA-256 of the trust anchor, SHA-256 of the issuing key, serial number; hexadecimal.
    pub svid: [String; 3],
    pub token: (String, String),
}

/// The target of this sort that names the ground, as proto3 JSON; `None` if the ground has no such name. A new sort does not compile
/// without its line.
pub fn target(sort: TargetKind, g: &Ground) -> Option<Value> {
    let named = |name: &str, value: &str| (!value.is_empty()).then(|| json!({ name: value }));
    let base64 = |hex: &str| data_encoding::BASE64.encode(&data_encoding::HEXLOWER.decode(hex.as_bytes()).unwrap());
    let pair = |(a, b): &(String, String)| (!a.is_empty()).then(|| (a.clone(), b.clone()));
    let [anchor, issuing_key, serial] = &g.svid;
    match sort {
        TargetKind::Credential => named("credentialId", &g.credential),
        TargetKind::Task => named("taskId", &g.task),
        TargetKind::Caller => named("caller", &g.caller),
        TargetKind::Prefix => g.caller.starts_with("spiffe://").then(|| json!({"spiffeIdPrefix": g.caller})),
        TargetKind::TrustDomain => named("trustDomain", &g.trust_domain),
        TargetKind::TrustAnchor => (!anchor.is_empty())
            .then(|| json!({"trustAnchor": {"trustDomain": g.trust_domain, "sha256": base64(anchor)}})),
        TargetKind::Subject => pair(&g.subject).map(|(issuer, sub)| json!({"subject": {"issuer": issuer, "sub": sub}})),
        TargetKind::Upstream => named("upstream", &g.upstream),
        TargetKind::UpstreamScope => {
            (!g.scope.is_empty()).then(|| json!({"upstreamScope": {"upstream": g.upstream, "scope": g.scope}}))
        }
        TargetKind::Binding => named("binding", &g.binding),
        TargetKind::Tool => named("tool", &g.tool),
        TargetKind::Environment => named("environment", &g.environment),
        TargetKind::PolicyBelow => {
            (g.policy > 0).then(|| json!({"policyBelow": {"environment": g.environment, "version": (g.policy + 1).to_string()}}))
        }
        TargetKind::SigningKey => named("signingKey", &g.key),
        TargetKind::Svid => (!serial.is_empty()).then(|| {
            json!({"svid": {"trustDomain": g.trust_domain, "issuingKeySha256": base64(issuing_key), "serial": base64(serial)}})
        }),
        TargetKind::SubjectToken => pair(&g.token).map(|(issuer, id)| json!({"subjectToken": {"issuer": issuer, "id": id}})),
        TargetKind::Everything => Some(json!({"everything": {}})),
    }
}

/// The header and the claims of a token.
pub fn parts(token: &str) -> (Value, Value) {
    let part = |n: usize| {
        let bytes = data_encoding::BASE64URL_NOPAD.decode(token.split('.').nth(n).unwrap().as_bytes()).unwrap();
        serde_json::from_slice(&bytes).unwrap()
    };
    (part(0), part(1))
}

impl Ground {
    /// The ground of a credential, from the claims of its token.
    pub fn of_token(token: &str) -> Ground {
        let (head, claims) = parts(token);
        let own = &claims["https://mayfly.dev/claims"];
        let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
        let trust_domain = text(&own["trust_domain"]);
        // In messages, the issuer of a workload is its trust domain's SPIFFE ID.
        let issuer = own["sub_iss"].as_str().map_or_else(|| format!("spiffe://{trust_domain}"), str::to_owned);
        Ground {
            credential: text(&claims["jti"]),
            task: text(&own["tasks"].as_array().unwrap().last().unwrap()["id"]),
            caller: text(&claims["client_id"]),
            subject: (issuer, text(&claims["sub"])),
            upstream: text(&own["upstream"]),
            scope: text(&claims["scope"]).split(' ').next().unwrap_or_default().to_owned(),
            binding: text(&own["binding"]),
            tool: text(&own["tool"]),
            environment: text(&own["environment"]),
            policy: own["policy_version"].as_u64().unwrap(),
            key: text(&head["kid"]),
            svid: ["trust_anchor", "issuing_key", "serial"].map(|name| text(&own["svid"][name])),
            token: Default::default(),
            trust_domain,
        }
    }

    /// The ground of a credential that was presented as a subject token: the token is one more name of it.
    pub fn of_shown(token: &str) -> Ground {
        let (_, claims) = parts(token);
        let text = |name: &str| claims[name].as_str().unwrap().to_owned();
        Ground { token: (text("iss"), text("jti")), ..Ground::of_token(token) }
    }

    /// The ground of a task's opening, from a credential that the opener holds in the task: caller, SVID and policy version are those of
    /// the opening.
    pub fn of_opener(token: &str, task: &str) -> Ground {
        let Ground { caller, trust_domain, subject, environment, policy, svid, .. } = Ground::of_token(token);
        Ground { task: task.to_owned(), caller, trust_domain, subject, environment, policy, svid, ..Ground::default() }
    }
}
