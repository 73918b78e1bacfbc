//! The calls of the load and the checker.

use mayfly::pb::mayfly::v1 as pb;
use mayfly::pb::mayfly::v1::credential_service_client::CredentialServiceClient;
use mayfly::pb::mayfly::v1::key_service_client::KeyServiceClient;
use mayfly::pb::mayfly::v1::revocation_service_client::RevocationServiceClient;
use mayfly::pb::mayfly::v1::task_service_client::TaskServiceClient;
use mayfly::pb::mayfly::v1::token_service_client::TokenServiceClient;
use tonic::transport::Channel;

use crate::Error;
use crate::names::{Ask, Named};

const HOUR: Option<prost_types::Duration> = Some(prost_types::Duration { seconds: 3600, nanos: 0 });

fn terms() -> pb::TaskTerms {
    pb::TaskTerms {
        purpose: "power".into(),
        upstreams: vec![pb::Allowance { upstream: "echo".into(), scopes: vec!["echo:read".into()] }],
        ttl: HOUR,
        ..Default::default()
    }
}

/// Opens a task and returns its id.
pub async fn open(caller: &Channel) -> Result<String, Error> {
    let ask = pb::OpenTaskRequest { terms: Some(terms()), ..Default::default() };
    let answer = TaskServiceClient::new(caller.clone()).open_task(ask).await?.into_inner();
    Ok(answer.task.ok_or("no task")?.task_id)
}

/// Completes a task.
pub async fn complete(caller: &Channel, task: &str) -> Result<(), Error> {
    let ask = pb::CompleteTaskRequest { task_id: task.to_owned(), ..Default::default() };
    TaskServiceClient::new(caller.clone()).complete_task(ask).await?;
    Ok(())
}

/// Whether credentials can be issued in a task; `None` if the task does not exist.
pub async fn task_active(operator: &Channel, task: &str) -> Result<Option<bool>, Error> {
    let ask = pb::GetTaskRequest { task_id: task.to_owned() };
    match TaskServiceClient::new(operator.clone()).get_task(ask).await {
        Ok(answer) => Ok(answer.into_inner().task.map(|t| t.state() == pb::TaskState::Active)),
        Err(status) if status.code() == tonic::Code::NotFound => Ok(None),
        Err(status) => Err(status.into()),
    }
}

/// Issues a credential in a task, or with an inline task.
pub async fn exchange(caller: &Channel, ask: Option<Ask>) -> Result<Named, Error> {
    let (task, request_id, reference) = match &ask {
        Some(ask) => (pb::exchange_request::Task::TaskId(ask.task.clone()), ask.request.clone(), ask.reference),
        None => (pb::exchange_request::Task::OpenTask(terms()), String::new(), false),
    };
    let request = pb::ExchangeRequest {
        task: Some(task),
        upstream: "echo".into(),
        scopes: vec!["echo:read".into()],
        kind: if reference { pb::CredentialKind::Reference } else { pb::CredentialKind::Jwt }.into(),
        ttl: HOUR,
        purpose: "power".into(),
        request_id,
        ..Default::default()
    };
    let mut client = TokenServiceClient::new(caller.clone());
    let mut answer = client.exchange(request.clone()).await;
    // A key or policy changed during the decision: nothing was issued, and the client retries.
    while answer.as_ref().is_err_and(|status| status.code() == tonic::Code::Aborted) {
        answer = client.exchange(request.clone()).await;
    }
    let answer = answer?.into_inner();
    let issued = answer.issued.ok_or("nothing issued")?;
    match issued.answer {
        Some(pb::issued::Answer::BearerToken(bearer)) => {
            Ok(Named::Credential { id: issued.credential_id, token: bearer.token.clone(), ask })
        }
        _ => Err("no bearer token".into()),
    }
}

/// Returns a credential.
pub async fn release(caller: &Channel, id: &str) -> Result<(), Error> {
    let ask = pb::ReleaseRequest { credential_id: id.to_owned() };
    TokenServiceClient::new(caller.clone()).release(ask).await?;
    Ok(())
}

/// Revokes a target and returns the sequence number of the record.
pub async fn revoke(operator: &Channel, target: pb::target::Target) -> Result<u64, Error> {
    let ask = pb::RevokeRequest {
        targets: vec![pb::Target { target: Some(target) }],
        reason: "power".into(),
        confirmation: Some(pb::Confirmation { credentials: 0, all: true }),
        ..Default::default()
    };
    Ok(RevocationServiceClient::new(operator.clone()).revoke(ask).await?.into_inner().seq)
}

/// Lifts the locks of a record.
pub async fn lift(operator: &Channel, seq: u64) -> Result<(), Error> {
    let ask = pb::LiftLockRequest { seq, reason: "power".into(), ..Default::default() };
    RevocationServiceClient::new(operator.clone()).lift_lock(ask).await?;
    Ok(())
}

/// The sequence numbers of the records that set locks.
pub async fn locks(operator: &Channel) -> Result<Vec<u64>, Error> {
    let answer = RevocationServiceClient::new(operator.clone()).list_locks(pb::ListLocksRequest::default()).await?;
    Ok(answer.into_inner().locks.iter().map(|l| l.seq).collect())
}

/// Creates a key that signs at once, and returns its id.
pub async fn rotate(operator: &Channel, purpose: pb::KeyPurpose) -> Result<String, Error> {
    let ask = pb::RotateKeyRequest {
        purpose: purpose.into(),
        environment: "dev".into(),
        publish_ahead: Some(prost_types::Duration::default()),
        ..Default::default()
    };
    let answer = KeyServiceClient::new(operator.clone()).rotate_key(ask).await?.into_inner();
    Ok(answer.key.ok_or("no key")?.key_id)
}

/// The ids of all keys.
pub async fn keys(operator: &Channel) -> Result<Vec<String>, Error> {
    let answer = KeyServiceClient::new(operator.clone()).list_keys(pb::ListKeysRequest::default()).await?;
    Ok(answer.into_inner().keys.into_iter().map(|k| k.key_id).collect())
}

/// Whether a token is active.
pub async fn active(operator: &Channel, token: &str) -> Result<bool, Error> {
    let ask = pb::IntrospectRequest { token: token.to_owned() };
    Ok(TokenServiceClient::new(operator.clone()).introspect(ask).await?.into_inner().active)
}

/// Whether a record issued exactly this token, by the digest of the signed content.
pub async fn issued(operator: &Channel, token: &str) -> Result<bool, Error> {
    let ask = pb::LookupTokenRequest { by: Some(pb::lookup_token_request::By::Token(token.to_owned())) };
    match CredentialServiceClient::new(operator.clone()).lookup_token(ask).await {
        Ok(answer) => Ok(answer.into_inner().standing() == pb::TokenStanding::Issued),
        Err(status) if status.code() == tonic::Code::NotFound => Ok(false),
        Err(status) => Err(status.into()),
    }
}
