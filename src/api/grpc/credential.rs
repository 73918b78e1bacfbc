//! CredentialService: issued credentials, and the owner of a found token.

use std::sync::Arc;

use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::super::wire;
use super::credential_filter::CredentialCriteria;
use super::credential_watch;
use super::page::{Newest, PageRequest};
use super::request_checks::{self, refused};
use mayfly_authority::authority::Authority;
use mayfly_authority::exchange::lookup::{FoundIssuance, TokenStatus, key_named};
use mayfly_authority::tasks::Actor;
use mayfly_base::limits;
use mayfly_base::refusal::{Error, Refusal};
use mayfly_ledger::State;
use mayfly_ledger::record::AuditReadKind;
use mayfly_ledger::revocation::Target;
use mayfly_policy::{admin, exchange_request};
use mayfly_proto::mayfly::v1 as pb;
use mayfly_proto::mayfly::v1::credential_service_server::CredentialService;
use mayfly_verify::seq::{CredentialId, Millis, TaskId};

/// The service.
pub struct CredentialApi(pub Arc<Authority>);

impl CredentialApi {
    /// The present state of a credential, with all its fields.
    async fn show(&self, found: &FoundIssuance) -> Result<pb::Credential, Error> {
        let now = self.0.system.wall();
        let issued = found.issued()?;
        let at = (found.seq, found.record.revision());
        self.0.ledger.settled(|s| wire::credential_of_record(s, issued, at, &found.path, now)).await
    }

    async fn get(&self, actor: &Actor, ask: &pb::GetCredentialRequest) -> Result<pb::GetCredentialResponse, Error> {
        let id: CredentialId = exchange_request::id("credential_id", &ask.credential_id)?;
        let none = || request_checks::not_found(format!("there is no credential {id} that you may see"));
        // An operator who may see no credential is refused before the search.
        if let Actor::Operator(operator) = actor {
            self.0.admit_to_found::<admin::Observe>(operator, self.0.environment_of_credential(&id).as_deref())?;
        }
        let now = self.0.system.wall();
        let login = self.0.ledger.settled(|s| s.logins.get(&id).map(|l| wire::login_to_pb(s, l, now))).await?;
        if let Some(login) = login {
            let own = |caller: &mayfly_identity::caller::Caller| *login.caller == *caller.id().as_str();
            return match actor {
                Actor::Workload(caller) if !own(caller) => Err(none()),
                _ => Ok(pb::GetCredentialResponse { credential: Some(login) }),
            };
        }
        let found = self.0.issuance(id).await?.ok_or_else(none)?;
        let issued = found.issued()?;
        match actor {
            Actor::Workload(caller) if issued.caller != caller.id().as_str() => return Err(none()),
            Actor::Operator(operator) => {
                let admitted = self.0.admit::<admin::Observe>(operator, Some(&issued.environment))?;
                self.0.audit_read(&admitted.who(), AuditReadKind::Credential, &format!("credential {id}"), 1).await;
            }
            Actor::Workload(_) => {}
        }
        Ok(pb::GetCredentialResponse { credential: Some(self.show(&found).await?) })
    }

    async fn list(&self, actor: &Actor, ask: &pb::ListCredentialsRequest) -> Result<pb::ListCredentialsResponse, Error> {
        let mut filter = CredentialCriteria::of(ask.filter.as_ref())?;
        filter.keep_to(self.0.scope_of(request_checks::operator(actor)?, filter.environment())?);
        let page = PageRequest::from(ask.page_size, &ask.page_token)?;
        let now = self.0.system.wall();
        let mut newest = Newest::of(page);
        let mut at = 0;
        loop {
            let places = self.0.ledger.settled(|s| walk(&mut newest, s, &filter, &mut at, now)).await?;
            if at >= places {
                break;
            }
            tokio::task::yield_now().await;
        }
        self.0.ledger.settled(|s| offer_logins(&mut newest, s, &filter, now)).await?;
        let listed = self.0.ledger.settled(|s| {
            let login = |id| s.logins.get(&id).map(|l| wire::login_to_pb(s, l, now));
            newest.rows(|id| s.credentials.get(&id).map(|l| wire::credential_to_pb(s, &l, now)).or_else(|| login(id)))
        });
        let (credentials, next_page_token) = listed.await?;
        Ok(pb::ListCredentialsResponse { credentials, next_page_token, total: Some(newest.total()) })
    }

    async fn look_up(&self, actor: &Actor, ask: &pb::LookupTokenRequest) -> Result<pb::LookupTokenResponse, Error> {
        // An operator who may see nothing is refused before the search; the result is shown to operators who may see its environment.
        let operator = request_checks::operator(actor)?;
        self.0.scope::<admin::Observe>(operator)?;
        let none = || request_checks::not_found("it is nothing that mayfly issued");
        let (standing, key) = match &ask.by {
            None => return Err(Error::Refusal(Refusal::field("by", "is missing: give a token or its sha256"))),
            Some(pb::lookup_token_request::By::Token(token)) => {
                (self.0.look_up(token).await?.ok_or_else(none)?, key_named(token))
            }
            Some(pb::lookup_token_request::By::Sha256(digest)) => {
                let digest = digest[..].try_into();
                let digest = digest.map_err(|_| Refusal::field("sha256", "has not 32 bytes"))?;
                (TokenStatus::Issued(self.0.look_up_digest(digest).await?.ok_or_else(none)?), String::new())
            }
        };
        if let TokenStatus::Issued(found) | TokenStatus::Altered(found) = &standing {
            let issued = found.issued()?;
            let admitted = self.0.admit::<admin::Observe>(operator, Some(&issued.environment))?;
            // The presented token is not recorded; the id of the credential that it names is.
            let asked = CredentialId::from_slice(&issued.credential).map_or_else(String::new, |id| format!("credential {id}"));
            self.0.audit_read(&admitted.who(), AuditReadKind::Lookup, &asked, 1).await;
        }
        let answer = match standing {
            TokenStatus::Forged { key } => {
                self.0.admit_to_targets::<admin::Observe>(operator, &[Target::SigningKey(key.as_str().into())]).await?;
                let target = Target::SigningKey(key.as_str().into());
                pb::LookupTokenResponse {
                    standing: pb::TokenStanding::Forged.into(),
                    choices: self.choices(vec![target]).await?,
                    signing_key: key,
                    ..pb::LookupTokenResponse::default()
                }
            }
            TokenStatus::Issued(found) => self.found(pb::TokenStanding::Issued, found, key).await?,
            TokenStatus::Altered(found) => self.found(pb::TokenStanding::Altered, found, key).await?,
        };
        Ok(answer)
    }

    async fn found(
        &self,
        standing: pb::TokenStanding,
        found: FoundIssuance,
        named: String,
    ) -> Result<pb::LookupTokenResponse, Error> {
        let credential = self.show(&found).await?;
        let issued = found.issued()?;
        let id = CredentialId::from_slice(&issued.credential).ok_or_else(none_such)?;
        let task = TaskId::from_slice(&issued.task).ok_or_else(none_such)?;
        let targets = vec![Target::Credential(id), Target::Task(task), Target::Caller(issued.caller.as_str().into())];
        let choices = self.choices(targets).await?;
        let good = [pb::CredentialState::Active as i32, pb::CredentialState::Held as i32].contains(&credential.state);
        let under = choices.first().and_then(|c| c.hits.as_ref()).map_or(0, |h| h.credentials);
        let base_url = self.0.catalog.now().upstream(&issued.upstream).map(|r| r.upstream.target.clone());
        Ok(pb::LookupTokenResponse {
            standing: standing.into(),
            // The count for the target includes the credential itself.
            derived_credentials: under.saturating_sub(u64::from(good)),
            signing_key: if named.is_empty() { issued.key.clone() } else { named },
            credential: Some(credential),
            base_url: base_url.unwrap_or_default(),
            choices,
        })
    }

    async fn choices(&self, targets: Vec<Target>) -> Result<Vec<pb::TargetChoice>, Error> {
        let (_, each) = self.0.hits(&targets).await?;
        let choice = |(target, hits): (&Target, &mayfly_authority::revocation::revoke::RevocationHits)| pb::TargetChoice {
            target: Some(wire::target_to_pb(target)),
            hits: Some(super::hits_to_pb(hits)),
        };
        Ok(targets.iter().zip(&each).map(choice).collect())
    }
}

fn none_such() -> mayfly_base::refusal::Fault {
    mayfly_base::refusal::Fault::new("an issuance without a credential id or task")
}

/// Adds the logins of people, which are few and belong to no task.
fn offer_logins(newest: &mut Newest<CredentialId>, state: &State, filter: &CredentialCriteria, now: Millis) {
    for login in state.logins.values() {
        if filter.fits_login(login) && filter.lists(wire::login_state(state, login, now).0) {
            newest.offer(login.seq, login.id);
        }
    }
}

/// Continues from `at` for a bounded number of entries. Returns the total number of entries.
fn walk(newest: &mut Newest<CredentialId>, state: &State, filter: &CredentialCriteria, at: &mut u32, now: Millis) -> u32 {
    let places = state.credentials.places();
    let end = at.saturating_add(limits::LIST_WALK as u32).min(places);
    for live in (*at..end).filter_map(|slot| state.credentials.at(slot)) {
        if filter.fits(state, &live) && filter.lists(wire::credential_state(state, &live, now).0) {
            newest.offer(live.seq(), live.id());
        }
    }
    *at = end;
    places
}

#[tonic::async_trait]
impl CredentialService for CredentialApi {
    type WatchCredentialsStream = ReceiverStream<Result<pb::WatchCredentialsResponse, Status>>;

    async fn get_credential(
        &self,
        request: Request<pb::GetCredentialRequest>,
    ) -> Result<Response<pb::GetCredentialResponse>, Status> {
        let actor = request_checks::actor(&self.0, &request, "get_credential")?;
        self.get(&actor, request.get_ref()).await.map(Response::new).map_err(refused(&self.0, &actor, "get_credential"))
    }

    async fn list_credentials(
        &self,
        request: Request<pb::ListCredentialsRequest>,
    ) -> Result<Response<pb::ListCredentialsResponse>, Status> {
        let actor = request_checks::actor(&self.0, &request, "list_credentials")?;
        self.list(&actor, request.get_ref()).await.map(Response::new).map_err(refused(&self.0, &actor, "list_credentials"))
    }

    async fn watch_credentials(
        &self,
        request: Request<pb::WatchCredentialsRequest>,
    ) -> Result<Response<Self::WatchCredentialsStream>, Status> {
        let actor = request_checks::actor(&self.0, &request, "watch_credentials")?;
        let stream = credential_watch::begin(&self.0, &actor, request.get_ref()).await;
        stream.map(Response::new).map_err(refused(&self.0, &actor, "watch_credentials"))
    }

    async fn lookup_token(&self, request: Request<pb::LookupTokenRequest>) -> Result<Response<pb::LookupTokenResponse>, Status> {
        let actor = request_checks::actor(&self.0, &request, "lookup_token")?;
        self.look_up(&actor, request.get_ref()).await.map(Response::new).map_err(refused(&self.0, &actor, "lookup_token"))
    }
}
