//! KeyService: manages the signing keys.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::super::wire;
use super::page::{NamePageRequest, within_bytes};
use super::request_checks::{self, refused};
use super::token::idempotency_key_of;
use mayfly_authority::admission::Admitted;
use mayfly_authority::authority::Authority;
use mayfly_authority::tasks::Actor;
use mayfly_authority::trust::keys::{KeyRemoval, KeyRemovalResult};
use mayfly_base::limits;
use mayfly_base::refusal::{Error, Reason, Refusal};
use mayfly_credential::certificates::{self, is_upstream_ca};
use mayfly_credential::keyring;
use mayfly_ledger::record::{KeyPurpose, KeyState};
use mayfly_policy::{admin, exchange_request};
use mayfly_proto::mayfly::v1 as pb;
use mayfly_proto::mayfly::v1::key_service_server::KeyService;

/// The gRPC service.
pub struct KeyApi(pub Arc<Authority>);

/// Purposes whose key serves all environments, instead of one key per environment.
fn of_none(purpose: KeyPurpose) -> bool {
    matches!(purpose, KeyPurpose::Checkpoint | KeyPurpose::X509Ca)
}

/// A key to be created.
struct Rotation {
    purpose: KeyPurpose,
    environment: String,
    ahead_ms: Option<u64>,
}

impl KeyApi {
    /// The environment of an issuer.
    fn of_issuer(&self, issuer: &str) -> Result<String, Error> {
        let compiled = self.0.catalog.now();
        let found = compiled.environments().find(|(name, _)| self.0.decider.issuer_of(name) == issuer);
        found.map(|(name, _)| name.to_owned()).ok_or_else(|| request_checks::not_found(format!("there is no issuer {issuer}")))
    }

    /// Checks that an environment exists.
    fn known(&self, environment: &str) -> Result<String, Error> {
        match self.0.catalog.now().policy(environment) {
            Some(_) => Ok(environment.to_owned()),
            None => Err(request_checks::not_found(format!("there is no environment {environment}"))),
        }
    }

    /// The issuer of a key's environment, or of the upstream whose assertions it signs; empty for keys that belong to no environment.
    fn issuer_of(&self, environment: &str) -> String {
        // Both are below the base of the issuers.
        if environment.is_empty() { String::new() } else { self.0.decider.issuer_of(environment) }
    }

    /// The environment of an upstream, and the issuer path of its assertions.
    fn of_upstream(&self, name: &str) -> Result<(String, String), Error> {
        let compiled = self.0.catalog.now();
        let found = compiled.upstream(name).ok_or_else(|| request_checks::not_found(format!("there is no upstream {name}")))?;
        let path = self.0.assertion_keys(&found.upstream).map(|(path, _)| path).ok_or_else(|| {
            request_checks::not_found(format!("upstream {name} has no issuer for assertions: kinds federation and aws have one"))
        })?;
        Ok((found.upstream.environment.clone(), path))
    }

    async fn show(&self, id: &str) -> Result<Option<pb::Key>, Error> {
        let key = self.0.ledger.settled(|s| s.keys.get(id).cloned()).await?;
        Ok(key.map(|k| wire::key_to_pb(id, &k, &self.issuer_of(&k.environment))))
    }

    async fn jwks(&self, ask: &pb::GetJwksRequest) -> Result<pb::GetJwksResponse, Error> {
        let environment = match &ask.of {
            Some(pb::get_jwks_request::Of::Issuer(issuer)) => {
                self.of_issuer(&exchange_request::text("issuer", issuer, limits::NAME_BYTES * 4)?)?
            }
            Some(pb::get_jwks_request::Of::Environment(name)) => self.known(&exchange_request::name("environment", name)?)?,
            Some(pb::get_jwks_request::Of::Upstream(name)) => {
                let (_, path) = self.of_upstream(&exchange_request::name("upstream", name)?)?;
                return self.assertion_jwks(&path).await;
            }
            None => {
                return Err(Error::Refusal(Refusal::field("of", "is missing: name an issuer, an environment or an upstream")));
            }
        };
        let (jwks, head) = self.0.ledger.settled(|s| (keyring::jwks(&s.keys, &environment), s.head)).await?;
        Ok(pb::GetJwksResponse {
            jwks,
            issuer: self.0.decider.issuer_of(&environment),
            at_seq: head.as_u64(),
            max_age: Some(wire::duration(limits::JWKS_MAX_AGE_MS)),
        })
    }

    async fn assertion_jwks(&self, path: &str) -> Result<pb::GetJwksResponse, Error> {
        let (jwks, head) = self.0.ledger.settled(|s| (keyring::jwks_of_path(&s.keys, path), s.head)).await?;
        let none = || Refusal::new(Reason::NotReady, format!("the issuer {} has no key yet", self.issuer_of(path)));
        let (jwks, _) = jwks.ok_or_else(|| none().retry(std::time::Duration::from_secs(60)))?;
        Ok(pb::GetJwksResponse {
            jwks,
            issuer: self.issuer_of(path),
            at_seq: head.as_u64(),
            max_age: Some(wire::duration(limits::JWKS_MAX_AGE_MS)),
        })
    }

    async fn upstream_ca(&self, ask: &pb::GetUpstreamCaRequest) -> Result<pb::GetUpstreamCaResponse, Error> {
        let name = exchange_request::name("upstream", &ask.upstream)?;
        let none = || request_checks::not_found(format!("there is no upstream {name} that issues certificates"));
        let environment = {
            let compiled = self.0.catalog.now();
            let found = compiled.upstream(&name).filter(|r| !certificates::needed(&r.upstream).is_empty());
            found.ok_or_else(none)?.upstream.environment.clone()
        };
        Ok(wire::upstream_ca_to_pb(self.0.published_cas(&environment, &name).await?))
    }

    async fn list(&self, actor: &Actor, ask: pb::ListKeysRequest) -> Result<pb::ListKeysResponse, Error> {
        let issuer = request_checks::filter("issuer", &ask.issuer)?;
        let operator = request_checks::operator(actor)?;
        // An operator who may observe nothing is refused before the answer reveals whether the issuer exists.
        self.0.scope::<admin::Observe>(operator)?;
        let environment = issuer.map(|i| self.of_issuer(i)).transpose()?;
        let sees = self.0.scope_of::<admin::Observe>(operator, environment.as_deref())?;
        let purpose = wire::purpose_from_pb("purpose", ask.purpose)?;
        let state = wire::key_state_from_pb("state", ask.state)?;
        let page = NamePageRequest::of(ask.page_size, &ask.page_token, &ask)?;
        let fits = |k: &mayfly_ledger::state::ManagedKey| {
            purpose.is_none_or(|p| k.purpose == p)
                && sees.as_ref().is_none_or(|sees| sees.has(k.purpose.environment_of(&k.environment)))
                && environment.as_ref().is_none_or(|e| *k.environment == **e && k.purpose == KeyPurpose::AccessToken)
                && match state {
                    Some(state) => k.state == state,
                    None => !matches!(k.state, KeyState::Removed | KeyState::Compromised),
                }
        };
        let (found, next_page_token) = self
            .0
            .ledger
            .settled(|s| {
                // Newest keys first: the sort key decreases with the creation time.
                let all = s.keys.iter().filter(|(_, k)| fits(k));
                let all = all.map(|(id, k)| (format!("{:020}/{id}", u64::MAX - k.created_at.0), (id.clone(), k.clone())));
                page.take(all.collect())
            })
            .await?;
        let keys = found.iter().map(|(id, k)| wire::key_to_pb(id, k, &self.issuer_of(&k.environment))).collect();
        Ok(pb::ListKeysResponse { keys, next_page_token })
    }

    /// What a new key serves: an environment, the issuer path of an upstream's assertions, or nothing in particular.
    fn place(&self, purpose: KeyPurpose, ask: &pb::RotateKeyRequest) -> Result<String, Error> {
        let upstream = request_checks::filter("upstream", &ask.upstream)?;
        let of_one = purpose == KeyPurpose::Federation || is_upstream_ca(purpose);
        if of_one != upstream.is_some() {
            let what = "is needed for purposes FEDERATION, UPSTREAM_CA and SSH_CA, and for no other: their keys are of one upstream each";
            return Err(Error::Refusal(Refusal::field("upstream", what)));
        }
        if let Some(name) = upstream {
            return match ask.issuer.is_empty() && ask.environment.is_empty() {
                true if is_upstream_ca(purpose) => {
                    let compiled = self.0.catalog.now();
                    let none = || request_checks::not_found(format!("there is no upstream {name}"));
                    Ok(self.0.upstream_ca_path(purpose, &compiled.upstream(name).ok_or_else(none)?.upstream)?)
                }
                true => Ok(self.of_upstream(name)?.1),
                false => Err(Error::Refusal(Refusal::field("environment", "must be empty: it is that of the upstream"))),
            };
        }
        let place =
            match (request_checks::filter("issuer", &ask.issuer)?, request_checks::filter("environment", &ask.environment)?) {
                (Some(_), _) | (_, Some(_)) if of_none(purpose) => {
                    let what = "must be empty: checkpoints and the CA of our own trust domain are of no environment";
                    return Err(Error::Refusal(Refusal::field("environment", what)));
                }
                (Some(issuer), None) => self.of_issuer(issuer)?,
                (None, Some(name)) => self.known(name)?,
                (Some(issuer), Some(name)) if self.of_issuer(issuer)? == name => name.to_owned(),
                (Some(_), Some(_)) => {
                    return Err(Error::Refusal(Refusal::field(
                        "environment",
                        "differs from the issuer's environment; give one of the two",
                    )));
                }
                // One key for all environments.
                (None, None) if of_none(purpose) => String::new(),
                (None, None) => {
                    return Err(Error::Refusal(Refusal::field("issuer", "is missing: name an issuer or an environment")));
                }
            };
        Ok(place)
    }

    fn rotation(&self, ask: &pb::RotateKeyRequest) -> Result<Rotation, Error> {
        let purpose = wire::purpose_from_pb("purpose", ask.purpose)?;
        let purpose = purpose.ok_or_else(|| Refusal::field("purpose", "is missing"))?;
        if purpose == KeyPurpose::X509Ca && self.0.own_domain.is_none() {
            return Err(Error::Refusal(mayfly_authority::trust::own_domain::not_configured()));
        }
        let environment = self.place(purpose, ask)?;
        let ahead_ms = match &ask.publish_ahead {
            // 0 means at once. `exchange_request::duration` refuses 0, so it is handled separately.
            Some(d) if d.seconds == 0 && d.nanos == 0 => Some(0),
            other => exchange_request::duration("publish_ahead", other.as_ref())?,
        };
        if ahead_ms.is_some_and(|ms| ms > limits::KEY_PUBLISHED_AHEAD_MAX_MS) {
            let most = limits::KEY_PUBLISHED_AHEAD_MAX_MS / 86_400_000;
            return Err(Error::Refusal(Refusal::field("publish_ahead", format!("is longer than {most} days"))));
        }
        Ok(Rotation { purpose, environment, ahead_ms })
    }

    async fn rotate(&self, actor: &Actor, ask: &pb::RotateKeyRequest) -> Result<pb::RotateKeyResponse, Error> {
        let operator = request_checks::operator(actor)?;
        // An operator who manages no keys is refused before the answer reveals whether the environment exists.
        let rotation = self.rotation(ask).or_else(|no| self.0.scope::<admin::ManageKeys>(operator).and(Err(no)))?;
        let environment = Some(rotation.purpose.environment_of(&rotation.environment)).filter(|e| !e.is_empty());
        let admitted = match rotation.purpose {
            // The CA key vouches for everybody in mayfly's own trust domain, including people who sign in.
            KeyPurpose::X509Ca => self.0.admit_two(operator, environment, "it makes a root of our own CA")?,
            _ => self.0.admit::<admin::ManageKeys>(operator, environment)?,
        };
        let key_use = (rotation.purpose, &*rotation.environment);
        let (key, previous) =
            self.0.rotate_key(&admitted, key_use, rotation.ahead_ms, &idempotency_key_of(&ask.request_id, ask)?).await?;
        self.0.update_own_bundle().await?;
        let previous = match previous {
            Some(id) => self.show(&id).await?,
            None => None,
        };
        Ok(pb::RotateKeyResponse { key: self.show(&key).await?, previous })
    }

    /// A key to be retired or compromised, and the proof that the operator may do so.
    fn going(
        &self,
        actor: &Actor,
        key: &str,
        ask: (&str, bool, Option<&pb::Confirmation>),
    ) -> Result<(KeyRemoval, Admitted<admin::ManageKeys>), Error> {
        let key = exchange_request::name("key_id", key)?;
        let environment =
            self.0.ledger.peek(|s| s.keys.get(key.as_str()).map(|k| k.purpose.environment_of(&k.environment).to_owned()));
        let none = || request_checks::not_found(format!("there is no key {key}"));
        // For a key that belongs to no environment, the operator needs the permission in all environments.
        let admitted = self.0.admit_to_found(request_checks::operator(actor)?, environment.as_deref())?.ok_or_else(none)?;
        let (reason, dry_run, confirmation) = ask;
        let going = KeyRemoval {
            key,
            reason: request_checks::reason(reason)?,
            dry_run,
            confirm: request_checks::confirm(confirmation),
            named: None,
        };
        Ok((going, admitted))
    }

    async fn retire(&self, actor: &Actor, ask: &pb::RetireKeyRequest) -> Result<pb::RetireKeyResponse, Error> {
        let (going, admitted) = self.going(actor, &ask.key_id, (&ask.reason, ask.dry_run, ask.confirmation.as_ref()))?;
        let going = KeyRemoval { named: idempotency_key_of(&ask.request_id, ask)?, ..going };
        let gone = self.0.retire_key(&admitted, &going).await?;
        self.0.update_own_bundle().await?;
        Ok(pb::RetireKeyResponse { key: self.show(&going.key).await?, hits: Some(super::hits_to_pb(&gone.hits)) })
    }

    async fn compromise(&self, actor: &Actor, ask: &pb::CompromiseKeyRequest) -> Result<pb::CompromiseKeyResponse, Error> {
        let (going, admitted) = self.going(actor, &ask.key_id, (&ask.reason, ask.dry_run, ask.confirmation.as_ref()))?;
        let going = KeyRemoval { named: idempotency_key_of(&ask.request_id, ask)?, ..going };
        let KeyRemovalResult { seq, hits, replacement } = self.0.compromise_key(&admitted, &going).await?;
        // The revocation rule is durable. Removing the root from the bundle comes second, and is retried within a minute.
        if let Err(error) = self.0.update_own_bundle().await {
            tracing::error!(
                %error,
                "a compromised root could not be removed from the own trust domain's bundle yet; it is retried within a minute"
            );
        }
        let replacement = match replacement {
            Some(id) => self.show(&id).await?,
            None => None,
        };
        let seq = seq.map_or(0, mayfly_verify::seq::Seq::as_u64);
        Ok(pb::CompromiseKeyResponse { seq, hits: Some(super::hits_to_pb(&hits)), replacement })
    }
}

#[tonic::async_trait]
impl KeyService for KeyApi {
    async fn get_jwks(&self, request: Request<pb::GetJwksRequest>) -> Result<Response<pb::GetJwksResponse>, Status> {
        let actor = request_checks::actor(&self.0, &request, "get_jwks")?;
        self.jwks(request.get_ref()).await.map(Response::new).map_err(refused(&self.0, &actor, "get_jwks"))
    }

    async fn get_upstream_ca(
        &self,
        request: Request<pb::GetUpstreamCaRequest>,
    ) -> Result<Response<pb::GetUpstreamCaResponse>, Status> {
        let actor = request_checks::actor(&self.0, &request, "get_upstream_ca")?;
        self.upstream_ca(request.get_ref()).await.map(Response::new).map_err(refused(&self.0, &actor, "get_upstream_ca"))
    }

    async fn list_keys(&self, request: Request<pb::ListKeysRequest>) -> Result<Response<pb::ListKeysResponse>, Status> {
        let actor = request_checks::actor(&self.0, &request, "list_keys")?;
        let listed = within_bytes(request.get_ref(), |ask| self.list(&actor, ask));
        listed.await.map(Response::new).map_err(refused(&self.0, &actor, "list_keys"))
    }

    async fn rotate_key(&self, request: Request<pb::RotateKeyRequest>) -> Result<Response<pb::RotateKeyResponse>, Status> {
        let actor = request_checks::actor(&self.0, &request, "rotate_key")?;
        self.rotate(&actor, request.get_ref()).await.map(Response::new).map_err(refused(&self.0, &actor, "rotate_key"))
    }

    async fn retire_key(&self, request: Request<pb::RetireKeyRequest>) -> Result<Response<pb::RetireKeyResponse>, Status> {
        let actor = request_checks::actor(&self.0, &request, "retire_key")?;
        self.retire(&actor, request.get_ref()).await.map(Response::new).map_err(refused(&self.0, &actor, "retire_key"))
    }

    async fn compromise_key(
        &self,
        request: Request<pb::CompromiseKeyRequest>,
    ) -> Result<Response<pb::CompromiseKeyResponse>, Status> {
        let actor = request_checks::actor(&self.0, &request, "compromise_key")?;
        self.compromise(&actor, request.get_ref()).await.map(Response::new).map_err(refused(&self.0, &actor, "compromise_key"))
    }
}
