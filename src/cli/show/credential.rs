//! JSON and table forms of credentials, without their secrets, and of looked-up tokens.

use serde::Serialize;

use super::{HitsView, SubjectView, TargetView, hex, or_dash, shown_word, some_seq, time};
use crate::out::{Printable, Row};
use mayfly_proto::mayfly::v1 as pb;

/// A credential, as `credential show` and `credential list` print it.
#[derive(Serialize, Debug)]
pub struct CredentialView {
    pub credential_id: String,
    pub kind: String,
    pub state: String,
    pub caller: String,
    pub subject: Option<SubjectView>,
    pub act: Vec<SubjectView>,
    pub upstream: String,
    pub scopes: Vec<String>,
    pub tool: String,
    pub purpose: String,
    pub arguments_sha256: String,
    pub authorization_details: String,
    pub task_id: String,
    pub task_path: Vec<String>,
    pub environment: String,
    pub binding: String,
    pub key_binding: Option<String>,
    pub issued_at: Option<String>,
    pub expires_at: Option<String>,
    pub ancestors: Vec<AncestorView>,
    pub svid: Option<SvidEvidenceView>,
    pub subject_token: Option<SubjectTokenId>,
    pub signing_key: String,
    pub status_list: Option<StatusListEntry>,
    pub approval_id: String,
    pub irrevocable: bool,
    pub upstream_state: String,
    pub seq: u64,
    pub decision_revision: u64,
    pub policy_version: u64,
    pub ended_by_seq: Option<u64>,
}

/// An ancestor of a credential.
#[derive(Serialize, Debug)]
pub struct AncestorView {
    pub credential_id: String,
    pub caller: String,
}

/// The SVID that the caller proved.
#[derive(Serialize, Debug)]
pub struct SvidEvidenceView {
    pub trust_domain: String,
    pub trust_anchor_sha256: String,
    pub issuing_key_sha256: String,
    pub serial: String,
    pub not_after: Option<String>,
}

/// The issuer and id of a subject token.
#[derive(Serialize, Debug)]
pub struct SubjectTokenId {
    pub issuer: String,
    pub id: String,
}

/// An index in a status list.
#[derive(Serialize, Debug)]
pub struct StatusListEntry {
    pub uri: String,
    pub index: u64,
}

/// The word for a kind.
pub fn kind(number: i32) -> String {
    shown_word!(pb::CredentialKind, "CREDENTIAL_KIND_", number)
}

/// The word for the state of an object at an upstream.
pub fn upstream_state(number: i32) -> String {
    shown_word!(pb::UpstreamState, "UPSTREAM_STATE_", number)
}

impl From<pb::SvidEvidence> for SvidEvidenceView {
    fn from(s: pb::SvidEvidence) -> SvidEvidenceView {
        SvidEvidenceView {
            trust_domain: s.trust_domain,
            trust_anchor_sha256: hex(&s.trust_anchor_sha256),
            issuing_key_sha256: hex(&s.issuing_key_sha256),
            serial: hex(&s.serial),
            not_after: time(s.not_after),
        }
    }
}

fn key_binding(binding: pb::KeyBinding) -> Option<String> {
    Some(match binding.key? {
        pb::key_binding::Key::CallerSvid(_) => "svid".to_owned(),
        pb::key_binding::Key::JwkThumbprint(thumbprint) => format!("jkt {}", hex(&thumbprint)),
    })
}

impl From<pb::Credential> for CredentialView {
    fn from(c: pb::Credential) -> CredentialView {
        CredentialView {
            credential_id: c.credential_id,
            kind: kind(c.kind),
            state: shown_word!(pb::CredentialState, "CREDENTIAL_STATE_", c.state),
            caller: c.caller,
            subject: c.subject.map(SubjectView::from),
            act: c.act.into_iter().map(SubjectView::from).collect(),
            upstream: c.upstream,
            scopes: c.scopes,
            tool: c.tool,
            purpose: c.purpose,
            arguments_sha256: hex(&c.arguments_sha256),
            authorization_details: c.authorization_details,
            task_id: c.task_id,
            task_path: c.task_path,
            environment: c.environment,
            binding: c.binding,
            key_binding: c.key_binding.and_then(key_binding),
            issued_at: time(c.issued_at),
            expires_at: time(c.expires_at),
            ancestors: c
                .ancestors
                .into_iter()
                .map(|a| AncestorView { credential_id: a.credential_id, caller: a.caller })
                .collect(),
            svid: c.svid.map(SvidEvidenceView::from),
            subject_token: c.subject_token.map(|t| SubjectTokenId { issuer: t.issuer, id: t.id }),
            signing_key: c.signing_key,
            status_list: c.status.map(|s| StatusListEntry { uri: s.uri, index: s.index }),
            approval_id: c.approval_id,
            irrevocable: c.irrevocable,
            upstream_state: upstream_state(c.upstream_state),
            seq: c.seq,
            decision_revision: c.decision_revision,
            policy_version: c.policy_version,
            ended_by_seq: some_seq(c.ended_by_seq),
        }
    }
}

impl Printable for CredentialView {
    fn name(&self) -> String {
        self.credential_id.clone()
    }
}

impl Row for CredentialView {
    const COLUMNS: &'static [&'static str] = &["CREDENTIAL", "KIND", "STATE", "UPSTREAM", "SCOPES", "EXPIRES", "CALLER"];
    const WIDE: &'static [&'static str] = &["TASK", "TOOL", "ENVIRONMENT", "AT UPSTREAM", "SEQ", "PURPOSE"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.credential_id.clone(),
            self.kind.clone(),
            self.state.clone(),
            self.upstream.clone(),
            self.scopes.join(","),
            or_dash(self.expires_at.as_deref()),
            self.caller.clone(),
            self.task_id.clone(),
            or_dash(Some(&self.tool)),
            self.environment.clone(),
            self.upstream_state.clone(),
            self.seq.to_string(),
            self.purpose.clone(),
        ]
    }
}

/// One line of `credential watch`.
#[derive(Serialize, Debug)]
pub struct CredentialChangeView {
    pub seq: u64,
    pub at: Option<String>,
    pub change: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credential: Option<CredentialView>,
}

impl From<pb::WatchCredentialsResponse> for CredentialChangeView {
    fn from(w: pb::WatchCredentialsResponse) -> CredentialChangeView {
        let change = shown_word!(pb::CredentialChange, "CREDENTIAL_CHANGE_", w.change);
        CredentialChangeView { seq: w.seq, at: time(w.at), change, credential: w.credential.map(CredentialView::from) }
    }
}

/// The result of giving a credential back.
#[derive(Serialize, Debug)]
pub struct ReleaseView {
    pub credential_id: String,
    pub seq: u64,
    pub upstream_state: String,
}

impl Printable for ReleaseView {
    fn name(&self) -> String {
        self.credential_id.clone()
    }
}

/// The result of `authorize`.
#[derive(Serialize, Debug)]
pub struct AuthorizationView {
    pub seq: u64,
    pub decision_revision: u64,
    pub expires_at: Option<String>,
}

impl From<pb::AuthorizeResponse> for AuthorizationView {
    fn from(a: pb::AuthorizeResponse) -> AuthorizationView {
        AuthorizationView { seq: a.seq, decision_revision: a.decision_revision, expires_at: time(a.expires_at) }
    }
}

impl Printable for AuthorizationView {
    fn name(&self) -> String {
        self.seq.to_string()
    }
}

/// The result of a use report.
#[derive(Serialize, Debug)]
pub struct UseReportView {
    pub credential_id: String,
    pub tool: String,
    pub outcome: String,
    pub count: u32,
}

impl Printable for UseReportView {
    fn name(&self) -> String {
        self.credential_id.clone()
    }
}

/// The result of a token lookup.
#[derive(Serialize, Debug)]
pub struct TokenLookupView {
    pub standing: String,
    pub signing_key: String,
    pub base_url: String,
    pub derived_credentials: u64,
    pub credential: Option<CredentialView>,
    pub choices: Vec<RevocationChoice>,
}

/// One way to revoke the token.
#[derive(Serialize, Debug)]
pub struct RevocationChoice {
    pub target: Option<TargetView>,
    pub hits: HitsView,
}

impl From<pb::LookupTokenResponse> for TokenLookupView {
    fn from(l: pb::LookupTokenResponse) -> TokenLookupView {
        let choice = |c: pb::TargetChoice| RevocationChoice { target: TargetView::of(c.target.as_ref()), hits: c.hits.into() };
        TokenLookupView {
            standing: shown_word!(pb::TokenStanding, "TOKEN_STANDING_", l.standing),
            signing_key: l.signing_key,
            base_url: l.base_url,
            derived_credentials: l.derived_credentials,
            credential: l.credential.map(CredentialView::from),
            choices: l.choices.into_iter().map(choice).collect(),
        }
    }
}

impl Printable for TokenLookupView {
    fn name(&self) -> String {
        self.credential.as_ref().map_or_else(|| self.signing_key.clone(), Printable::name)
    }
}
