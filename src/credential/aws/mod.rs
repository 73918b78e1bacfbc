//! Kind `aws`: a session of a role, by AssumeRoleWithWebIdentity with an assertion of the upstream's own issuer.
//!
//! - [`settings`]: the section `[aws]` of a registration. `template.toml`: a registration to start from.
//! - [`sts`]: the call that makes a session, and answers in XML. [`sigv4`]: signed calls. [`deny`]: denying sessions.
//!
//! mayfly has no AWS key. Its assertion is all that a session is made with, and mayfly's own calls to IAM are made with a session of the
//! administration role that it gets the same way, under a subject that no caller can have.
//!
//! A session lives for at least 15 minutes and cannot be ended. What mayfly can do is to deny it: each session has the tag `mayfly-lease`,
//! and an inline policy of the role denies everything to the sessions that were revoked. A session whose request arrives late has that tag,
//! too, so it is denied before it exists.

mod access;
mod deny;
mod settings;
pub mod sigv4;
pub mod sts;

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::json;
use zeroize::Zeroizing;

use self::deny::{DenyList, Iam, TAG};
use self::settings::{AwsSettings, OWN_SUBJECTS, iam_region, role_of};
use self::sigv4::{SigningScope, signed};
use self::sts::{SessionKeys, SessionOrder, assume, element, problem};
use crate::access::UpstreamAccess;
use crate::access::https::UpstreamHttps;
use crate::assertion::{AssertionClaims, AssertionIssuer, AssertionIssuers};
use crate::connector::{
    ConnectorFuture, MakeError, MintOrder, RepeatResponse, UndoError, UndoOrder, UpstreamConnector, UpstreamCredential,
    UpstreamHandle,
};
use crate::connectors::ConnectorEntry;
use crate::federation::settings::AssertionAlg;
use crate::keyring::AssertionKeys;
use crate::{CredentialKind, CredentialMaterial};
use mayfly_base::limits;
use mayfly_ledger::record::CredentialIssued;
use mayfly_ledger::upstream::access::{AccessError, AccessQuery, GrantedAccess};
use mayfly_ledger::upstream::registry::Kind;
use mayfly_ledger::upstream::settings::{KindSettings, SettingsReader};
use mayfly_verify::seq::Millis;

/// The line of the kind in the table of connectors.
pub const ENTRY: ConnectorEntry = ConnectorEntry {
    settings: SettingsReader { kind: Kind::Aws, read: settings::read },
    build: |access| {
        let policy = deny::policy_name(access.system().random16());
        Arc::new(AwsConnector { access, issuers: OnceLock::new(), policy, lists: Mutex::default() })
    },
    template: include_str!("template.toml"),
};

/// The connector.
struct AwsConnector {
    access: UpstreamAccess,
    issuers: OnceLock<AssertionIssuers>,
    /// The name of this process's policy.
    policy: String,
    /// By the ARN of the role. Bounded by the number of registrations.
    lists: Mutex<HashMap<String, Arc<DenyList>>>,
}

/// The terms of a lease: everything that denying its session needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct AwsTerms {
    environment: String,
    role: String,
    region: String,
    sts_url: String,
    iam_url: String,
    audience: String,
    alg: AssertionAlg,
    /// The key that signed the assertion.
    kid: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    administration: Option<String>,
}

fn refused(why: impl std::fmt::Display) -> MakeError {
    MakeError::Refused(why.to_string())
}

fn terms_of(terms: &str) -> Result<AwsTerms, String> {
    serde_json::from_str(terms).map_err(|e| format!("the terms of the lease: {e}"))
}

fn settings_of(settings: &KindSettings) -> Result<AwsSettings, String> {
    settings.read(CredentialKind::Aws.name())
}

/// When the session of a credential ends at the latest: it ends with the credential, but not before AWS's minimum, which counts from the
/// call.
fn session_end(issued: &CredentialIssued) -> Millis {
    let least = Millis(issued.issued_at).plus(limits::LEASE_MAKE_MS + limits::AWS_SESSION_LEAST_S * 1000);
    Millis(issued.expires_at).max(least)
}

impl AwsConnector {
    fn issuer(&self, environment: &str, upstream: &str) -> Result<AssertionIssuer, String> {
        let issuers = self.issuers.get().ok_or("this server has no issuers for assertions")?;
        issuers.of(environment, upstream)
    }

    fn list(&self, role: &str) -> Arc<DenyList> {
        self.lists.lock().entry(role.to_owned()).or_default().clone()
    }

    async fn client(&self, upstream: &str) -> Result<UpstreamHttps, String> {
        let client = self.access.https(upstream, None).await.map_err(|e| e.to_string())?;
        Ok(client.at_most(limits::FEDERATION_ANSWER_BYTES))
    }

    fn named(&self, order: &MintOrder<'_>) -> Result<UpstreamHandle, String> {
        let settings = settings_of(order.settings)?;
        settings.policy(&order.issued.scopes)?;
        let rest = Millis(order.issued.expires_at).since(Millis(order.issued.issued_at)).div_ceil(1000);
        // A test of the upstream undoes its session at once.
        if rest < limits::AWS_LEAST_REST_S && !order.issued.caller.is_empty() {
            return Err(format!(
                "the credential would live {rest} s, and SDKs renew sessions that have less than 5 minutes left"
            ));
        }
        let issuer = self.issuer(&order.issued.environment, &order.issued.upstream)?;
        let key = issuer.active(settings.alg.name())?;
        let terms = AwsTerms {
            environment: order.issued.environment.clone(),
            role: settings.role,
            region: settings.region,
            sts_url: settings.sts_url,
            iam_url: settings.iam_url,
            audience: settings.audience,
            alg: settings.alg,
            kid: key.id().to_owned(),
            administration: settings.administration,
        };
        let terms = serde_json::to_string(&terms).map_err(|e| e.to_string())?;
        Ok(UpstreamHandle { handle: order.lease.to_string(), ends_at: session_end(order.issued), terms })
    }

    /// Signs an assertion for one call.
    fn assertion(
        &self,
        issuer: &AssertionIssuer,
        terms: &AwsTerms,
        (subject, id): (&str, &str),
        tag: Option<&str>,
    ) -> Result<Zeroizing<String>, String> {
        let key = match tag {
            Some(_) => issuer.key(&terms.kid).ok_or_else(|| format!("key {} no longer exists", terms.kid))?,
            None => issuer.active(terms.alg.name())?,
        };
        let tags = tag.map(|tag| {
            ("https://aws.amazon.com/tags", json!({ "principal_tags": { TAG: [tag] }, "transitive_tag_keys": [TAG] }))
        });
        let now = self.access.system().wall();
        let claims = AssertionClaims {
            subject,
            audience: &terms.audience,
            issued_at: now.seconds(),
            expires_at: now.plus(limits::AWS_ASSERTION_LIFE_MS).seconds(),
            id,
            more: tags.as_slice(),
        };
        Ok(Zeroizing::new(issuer.sign(&key, &claims).map_err(|e| e.to_string())?.into_text()))
    }

    async fn made(&self, order: &MintOrder<'_>) -> Result<UpstreamCredential, MakeError> {
        let (settings, terms) = (settings_of(order.settings).map_err(refused)?, terms_of(order.terms).map_err(refused)?);
        let issued = order.issued;
        let issuer = self.issuer(&terms.environment, &issued.upstream).map_err(refused)?;
        let subject = match issued.caller.is_empty() {
            true => format!("{OWN_SUBJECTS}upstream-test:{}", issued.upstream),
            false => settings.subject.of(&issued.caller, &issued.environment, &issued.upstream),
        };
        crate::federation::subject::Vendor::Aws.check(&issuer.url, &subject, &terms.audience).map_err(refused)?;
        let policy = settings.policy(&issued.scopes).map_err(refused)?;
        let tag = deny::entry(order.handle, session_end(issued));
        let assertion =
            self.assertion(&issuer, &terms, (&subject, &order.credential.to_string()), Some(&tag)).map_err(refused)?;
        let client = self.client(&issued.upstream).await.map_err(refused)?;
        let left = Millis(issued.expires_at).since(self.access.system().wall()) / 1000;
        let session = SessionOrder {
            role: &terms.role,
            name: order.handle,
            seconds: left.max(limits::AWS_SESSION_LEAST_S),
            policy: Some(&policy),
            assertion: &assertion,
            issuer: &issuer.url,
        };
        let keys = assume(&client, &terms.sts_url, &session).await?;
        let rest = keys.expires_at.since(self.access.system().wall()) / 1000;
        if rest < limits::AWS_LEAST_REST_S {
            return Err(MakeError::Unknown(format!("the session of {} ends in {rest} s, before 5 minutes are over", terms.role)));
        }
        if keys.expires_at.seconds() > session_end(issued).seconds() + limits::AWS_DENY_MARGIN_S {
            return Err(MakeError::Unknown(format!("the session of {} ends later than was asked for", terms.role)));
        }
        let SessionKeys { access_key_id, secret_access_key, session_token, expires_at } = keys;
        let answer = CredentialMaterial::AwsKeys { access_key_id, secret_access_key, session_token, region: terms.region };
        Ok(UpstreamCredential { answer, irrevocable: terms.administration.is_none(), ends_at: Some(expires_at) })
    }

    /// When nothing of a lease is valid any more.
    fn over_at(order: &UndoOrder<'_>) -> Millis {
        // Without an issuance, the request for the session may arrive as long as its assertion is valid.
        let late = if order.lease.issued { 0 } else { limits::AWS_ASSERTION_LIFE_MS };
        order.lease.ends_at.plus(late)
    }

    /// Keys of the administration role, made anew when those at hand end soon.
    async fn administration(
        &self,
        list: &DenyList,
        client: &UpstreamHttps,
        (upstream, role, terms): (&str, &str, &AwsTerms),
    ) -> Result<Arc<SessionKeys>, String> {
        let mut held = list.keys.lock().await;
        let now = self.access.system().wall();
        if let Some(keys) = held.as_ref().filter(|keys| keys.expires_at.since(now) >= limits::AWS_LEAST_REST_S * 1000) {
            return Ok(keys.clone());
        }
        let issuer = self.issuer(&terms.environment, upstream)?;
        let subject = format!("{OWN_SUBJECTS}administration:{upstream}");
        let id = data_encoding::HEXLOWER.encode(&self.access.system().random16());
        let assertion = self.assertion(&issuer, terms, (&subject, &id), None)?;
        let session = SessionOrder {
            role,
            name: "mayfly-administration",
            seconds: limits::AWS_SESSION_LEAST_S,
            policy: None,
            assertion: &assertion,
            issuer: &issuer.url,
        };
        let keys = Arc::new(assume(client, &terms.sts_url, &session).await.map_err(|e| e.to_string())?);
        *held = Some(keys.clone());
        Ok(keys)
    }

    /// Denies the session of a lease, or looks whether it is denied.
    async fn denied(&self, order: &UndoOrder<'_>, write: bool) -> Result<bool, String> {
        let now = self.access.system().wall();
        if Self::over_at(order) <= now {
            return Ok(true);
        }
        let terms = terms_of(order.terms)?;
        let Some(administration) = terms.administration.as_deref() else { return Ok(false) };
        let upstream = &*order.lease.upstream;
        let (list, client) = (self.list(&terms.role), self.client(upstream).await?);
        let keys = self.administration(&list, &client, (upstream, administration, &terms)).await?;
        let (_, role) = role_of(&terms.role).ok_or_else(|| format!("{} is no role", terms.role))?;
        let region = iam_region(&terms.role);
        let iam = Iam { client: &client, url: &terms.iam_url, region, role, keys: &keys, policy: &self.policy, now };
        let entry = deny::entry(&order.lease.handle, order.lease.ends_at);
        let done = match write {
            true => list.deny(&iam, &entry).await.map(|()| true),
            false => iam.denies(&entry).await,
        };
        if done.is_err() {
            // Perhaps the keys were the reason: the next attempt gets others.
            *list.keys.lock().await = None;
        }
        match done {
            Ok(false) => Err(format!("role {role} has no policy yet that denies session {}", order.lease.handle)),
            other => other,
        }
    }

    async fn used(&self, order: &MintOrder<'_>, answer: &CredentialMaterial) -> Result<String, MakeError> {
        let CredentialMaterial::AwsKeys { access_key_id, secret_access_key, session_token, region } = answer else {
            return Err(refused("the credential is no session"));
        };
        let terms = terms_of(order.terms).map_err(refused)?;
        let keys = SessionKeys {
            access_key_id: access_key_id.clone(),
            secret_access_key: secret_access_key.clone(),
            session_token: session_token.clone(),
            expires_at: Millis(0),
        };
        let scope = SigningScope { region, service: "sts", now_s: self.access.system().wall().seconds() };
        let fields = [("Action", "GetCallerIdentity"), ("Version", "2011-06-15")];
        let request = signed(&terms.sts_url, &fields, &keys, &scope).map_err(refused)?;
        let client = self.client(&order.issued.upstream).await.map_err(refused)?;
        let answer = client.call(request).await?;
        if !answer.status.is_success() {
            return Err(refused(problem(&answer, "GetCallerIdentity")));
        }
        let arn = std::str::from_utf8(answer.body()).ok().and_then(|text| element(text, "Arn")).unwrap_or_default();
        Ok(format!("GetCallerIdentity says {}", answer.told(arn)))
    }
}

impl UpstreamConnector for AwsConnector {
    fn kind(&self) -> CredentialKind {
        CredentialKind::Aws
    }

    fn describe(&self, query: &AccessQuery<'_>) -> Result<GrantedAccess, AccessError> {
        access::describe(query)
    }

    fn name(&self, order: &MintOrder<'_>) -> Result<UpstreamHandle, MakeError> {
        self.named(order).map_err(refused)
    }

    fn make<'a>(&'a self, order: &'a MintOrder<'a>) -> ConnectorFuture<'a, Result<UpstreamCredential, MakeError>> {
        Box::pin(self.made(order))
    }

    fn undo<'a>(&'a self, order: &'a UndoOrder<'a>) -> ConnectorFuture<'a, Result<(), UndoError>> {
        Box::pin(async move { self.denied(order, true).await.map(|_| ()).map_err(UndoError) })
    }

    fn is_gone<'a>(&'a self, order: &'a UndoOrder<'a>) -> ConnectorFuture<'a, Result<bool, UndoError>> {
        Box::pin(async move { self.denied(order, false).await.map_err(UndoError) })
    }

    fn settles_ms(&self) -> u64 {
        // A session that is made late has the tag of its lease, which is denied by then.
        0
    }

    fn again<'a>(&'a self, _: &'a MintOrder<'a>) -> ConnectorFuture<'a, Result<RepeatResponse, MakeError>> {
        Box::pin(std::future::ready(Ok(RepeatResponse::Replace)))
    }

    fn assertion_keys(&self, settings: &KindSettings) -> Option<AssertionKeys> {
        let settings = settings_of(settings).ok()?;
        Some(AssertionKeys { algorithm: settings.alg.name(), manual: false })
    }

    fn signing_key(&self, terms: &str) -> String {
        terms_of(terms).map(|terms| terms.kid).unwrap_or_default()
    }

    fn begin(&self, issuers: &AssertionIssuers) {
        // The first call counts.
        let _ = self.issuers.set(issuers.clone());
    }

    fn use_once<'a>(
        &'a self,
        order: &'a MintOrder<'a>,
        answer: &'a CredentialMaterial,
    ) -> ConnectorFuture<'a, Result<String, MakeError>> {
        Box::pin(self.used(order, answer))
    }
}
