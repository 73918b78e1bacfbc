//! Kind `federation`: mayfly's own JWT as a workload's identity at somebody else's authorization server (RFC 7523), and, where the
//! registration says how, the short-lived token that the server gives for it.
//!
//! - `settings`: the section `[federation]` of a registration. `template.toml`: a registration to start from.
//! - [`subject`]: the subjects of assertions, and what vendors accept. [`exchange`]: the call to a token endpoint.
//! - [`published`]: fetches what the issuer publishes, as a vendor would, and verifies an assertion with it.
//!
//! Nothing at a vendor takes an assertion back, and no vendor of the list revokes the token that it gave for one. So a lease of this kind
//! ends by its time: undoing does nothing, and nothing is gone before. The registration consents to that, answers say it, and lives are short.

mod access;
mod exchange;
mod published;
pub mod settings;
pub mod subject;

use std::sync::{Arc, OnceLock};

use serde::{Deserialize, Serialize};

use self::exchange::ExchangedToken;
use self::settings::FederationSettings;
use crate::access::UpstreamAccess;
use crate::assertion::{AssertionClaims, AssertionIssuer, AssertionIssuers};
use crate::connector::{
    ConnectorFuture, MakeError, MintOrder, RepeatResponse, UndoError, UndoOrder, UpstreamConnector, UpstreamCredential,
    UpstreamHandle,
};
use crate::connectors::ConnectorEntry;
use crate::keyring::{AssertionKeys, LoadedKey};
use crate::{CredentialKind, CredentialMaterial, IssuedToken};
use mayfly_base::limits;
use mayfly_ledger::upstream::access::{AccessError, AccessQuery, GrantedAccess};
use mayfly_ledger::upstream::registry::Kind;
use mayfly_ledger::upstream::settings::{KindSettings, SettingsReader};
use mayfly_verify::seq::Millis;

/// The line of the kind in the table of connectors.
pub const ENTRY: ConnectorEntry = ConnectorEntry {
    settings: SettingsReader { kind: Kind::Federation, read: settings::read },
    build: |access| Arc::new(FederationConnector { access, issuers: OnceLock::new() }),
    template: include_str!("template.toml"),
};

/// The subject of an assertion that `mayfly upstream test` makes, where the registration names none: a test has no caller.
const TEST_SUBJECT: &str = "mayfly:upstream-test";

/// The connector.
struct FederationConnector {
    access: UpstreamAccess,
    issuers: OnceLock<AssertionIssuers>,
}

/// The terms of a lease: everything that makes the same assertion again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct FederationTerms {
    /// The environment.
    environment: String,
    /// `aud`.
    audience: String,
    /// `sub`.
    subject: String,
    /// The key that signs.
    kid: String,
    /// The assertion was exchanged, so the vendor's token cannot be made again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    exchanged: bool,
}

fn refused(why: impl std::fmt::Display) -> MakeError {
    MakeError::Refused(why.to_string())
}

fn terms_of(terms: &str) -> Result<FederationTerms, MakeError> {
    serde_json::from_str(terms).map_err(|e| refused(format!("the terms of the lease: {e}")))
}

fn settings_of(settings: &KindSettings) -> Result<FederationSettings, String> {
    settings.read(CredentialKind::Federation.name())
}

impl FederationConnector {
    fn issuer(&self, environment: &str, upstream: &str) -> Result<AssertionIssuer, MakeError> {
        let issuers = self.issuers.get().ok_or_else(|| refused("this server has no issuers for assertions"))?;
        issuers.of(environment, upstream).map_err(refused)
    }

    fn named(&self, order: &MintOrder<'_>) -> Result<UpstreamHandle, MakeError> {
        let settings = settings_of(order.settings).map_err(refused)?;
        let (issued, e) = (order.issued, &order.issued.environment);
        let issuer = self.issuer(e, &issued.upstream)?;
        let key = issuer.active(settings.alg.name()).map_err(refused)?;
        let subject = match issued.caller.is_empty() {
            true => settings.test_subject.clone().unwrap_or_else(|| TEST_SUBJECT.to_owned()),
            false => settings.subject.of(&issued.caller, e, &issued.upstream),
        };
        settings.vendor.check(&issuer.url, &subject, &settings.audience).map_err(refused)?;
        let ends_at = match &settings.exchange {
            // The vendor's token may be made as long as the assertion is valid.
            Some(exchange) => Millis(issued.issued_at).plus(exchange.assertion_life_ms() + exchange.token_life_s * 1000),
            None => Millis(issued.expires_at),
        };
        let terms = FederationTerms {
            environment: e.clone(),
            audience: settings.audience,
            subject,
            kid: key.id().to_owned(),
            exchanged: settings.exchange.is_some(),
        };
        let terms = serde_json::to_string(&terms).map_err(refused)?;
        Ok(UpstreamHandle { handle: order.credential.to_string(), ends_at, terms })
    }

    /// Makes the assertion of an order.
    fn assertion(
        &self,
        order: &MintOrder<'_>,
        terms: &FederationTerms,
        ends_at: Millis,
    ) -> Result<(AssertionIssuer, IssuedToken), MakeError> {
        let issuer = self.issuer(&terms.environment, &order.issued.upstream)?;
        let key: Arc<LoadedKey> = issuer.key(&terms.kid).ok_or_else(|| refused(format!("key {} no longer exists", terms.kid)))?;
        let more = [
            ("scope", order.issued.scopes.join(" ").into()),
            ("environment", terms.environment.as_str().into()),
            ("upstream", order.issued.upstream.as_str().into()),
        ];
        let claims = AssertionClaims {
            subject: &terms.subject,
            audience: &terms.audience,
            issued_at: Millis(order.issued.issued_at).seconds(),
            // Rounded down, so that an assertion never outlives its record.
            expires_at: ends_at.seconds(),
            id: order.handle,
            more: &more,
        };
        let token = issuer.sign(&key, &claims).map_err(refused)?;
        Ok((issuer, token))
    }

    fn handed_out(order: &MintOrder<'_>, token: IssuedToken) -> UpstreamCredential {
        let answer = CredentialMaterial::Bearer {
            token,
            header: "authorization".into(),
            scheme: "Bearer".into(),
            base_url: order.base_url.into(),
        };
        UpstreamCredential { answer, irrevocable: true, ends_at: None }
    }

    async fn made(&self, order: &MintOrder<'_>) -> Result<UpstreamCredential, MakeError> {
        let (settings, terms) = (settings_of(order.settings).map_err(refused)?, terms_of(order.terms)?);
        let Some(exchange) = &settings.exchange else {
            let (_, token) = self.assertion(order, &terms, Millis(order.issued.expires_at))?;
            return Ok(Self::handed_out(order, token));
        };
        let end = Millis(order.issued.issued_at).plus(exchange.assertion_life_ms());
        let (_, assertion) = self.assertion(order, &terms, end)?;
        let client = self.access.https(&order.issued.upstream, None).await?.at_most(limits::FEDERATION_ANSWER_BYTES);
        let now = self.access.system().wall();
        let ExchangedToken { token, lives_s } =
            exchange::exchange(&client, exchange, assertion.into_text(), &order.issued.scopes).await?;
        if lives_s > exchange.token_life_s {
            return Err(MakeError::Unknown(format!(
                "the token of {} lives {lives_s} s, and federation.exchange.token_life names {} s at most",
                exchange.url, exchange.token_life_s
            )));
        }
        if now.plus(lives_s * 1000) < Millis(order.issued.expires_at) {
            let asked = Millis(order.issued.expires_at).since(now) / 1000;
            return Err(MakeError::Unknown(format!(
                "the token of {} lives {lives_s} s, less than the {asked} s that were granted; to mend it: lower ttl.max, or ask for less",
                exchange.url
            )));
        }
        Ok(Self::handed_out(order, IssuedToken::secret(token)))
    }

    async fn used(&self, order: &MintOrder<'_>, answer: &CredentialMaterial) -> Result<String, MakeError> {
        let (settings, terms) = (settings_of(order.settings).map_err(refused)?, terms_of(order.terms)?);
        // The assertion is made once more: after an exchange, the credential is the vendor's token.
        let (issuer, assertion) = self.assertion(order, &terms, Millis(order.issued.expires_at))?;
        let client = self.access.https(&order.issued.upstream, None).await?.at_most(limits::OIDC_DOCUMENT_BYTES);
        let alg = published::verified(&client, &issuer.url, &assertion.into_text()).await.map_err(refused)?;
        let CredentialMaterial::Bearer { .. } = answer else { return Err(refused("the credential is no token")) };
        Ok(match &settings.exchange {
            Some(exchange) => {
                format!("{} gave a token for the assertion, and {} publishes its keys ({alg})", exchange.url, issuer.url)
            }
            None => format!("the assertion is verified ({alg}) with the keys that {} publishes", issuer.url),
        })
    }
}

impl UpstreamConnector for FederationConnector {
    fn kind(&self) -> CredentialKind {
        CredentialKind::Federation
    }

    fn describe(&self, query: &AccessQuery<'_>) -> Result<GrantedAccess, AccessError> {
        access::describe(query)
    }

    fn name(&self, order: &MintOrder<'_>) -> Result<UpstreamHandle, MakeError> {
        self.named(order)
    }

    fn make<'a>(&'a self, order: &'a MintOrder<'a>) -> ConnectorFuture<'a, Result<UpstreamCredential, MakeError>> {
        Box::pin(self.made(order))
    }

    fn undo<'a>(&'a self, _: &'a UndoOrder<'a>) -> ConnectorFuture<'a, Result<(), UndoError>> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn is_gone<'a>(&'a self, order: &'a UndoOrder<'a>) -> ConnectorFuture<'a, Result<bool, UndoError>> {
        let gone = order.lease.ends_at <= self.access.system().wall();
        Box::pin(std::future::ready(Ok(gone)))
    }

    fn settles_ms(&self) -> u64 {
        // A request that arrives late gives a token to nobody, and the lease stays open until the longest life of that token is over.
        0
    }

    fn again<'a>(&'a self, order: &'a MintOrder<'a>) -> ConnectorFuture<'a, Result<RepeatResponse, MakeError>> {
        let made = || {
            let terms = terms_of(order.terms)?;
            let exists = self.issuer(&terms.environment, &order.issued.upstream)?.key(&terms.kid).is_some();
            if terms.exchanged || !exists {
                return Ok(RepeatResponse::Replace);
            }
            let (_, token) = self.assertion(order, &terms, Millis(order.issued.expires_at))?;
            Ok(RepeatResponse::Same(Self::handed_out(order, token)))
        };
        Box::pin(std::future::ready(made()))
    }

    fn assertion_keys(&self, settings: &KindSettings) -> Option<AssertionKeys> {
        let settings = settings_of(settings).ok()?;
        Some(AssertionKeys { algorithm: settings.alg.name(), manual: settings.rotation == settings::Rotation::Manual })
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
