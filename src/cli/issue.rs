//! Several credentials at once: their task, and exchanges of which all are issued or none.

use super::error::CliError;
use super::server::ApiClient;
use mayfly_base::refusal::Reason;
use mayfly_proto::mayfly::v1::{
    self as pb, exchange_result, task_service_client::TaskServiceClient, token_service_client::TokenServiceClient,
};

/// Merges the upstreams of credentials into those of a task: each upstream once, each of its scopes once.
pub fn merged(wanted: &[pb::Allowance]) -> Vec<pb::Allowance> {
    let mut upstreams: Vec<pb::Allowance> = Vec::with_capacity(wanted.len());
    for one in wanted {
        match upstreams.iter_mut().find(|there| there.upstream == one.upstream) {
            Some(there) => {
                let new: Vec<String> = one.scopes.iter().filter(|s| !there.scopes.contains(s)).cloned().collect();
                there.scopes.extend(new);
            }
            None => upstreams.push(one.clone()),
        }
    }
    upstreams
}

/// Opens a task and returns its id. `next`: the command that uses the task after its approval; it ends in front of the task's id.
pub async fn open_task(server: &ApiClient, terms: pb::TaskTerms, request_id: String, next: &str) -> Result<String, CliError> {
    let request = pb::OpenTaskRequest { terms: Some(terms), request_id, ..pb::OpenTaskRequest::default() };
    let answer = server.call(request, |c, q| async move { TaskServiceClient::new(c).open_task(q).await }).await?;
    let task = answer.task.ok_or_else(|| CliError::ours("the server answered without a task"))?;
    match task.state() {
        pb::TaskState::PendingApproval => Err(CliError::of_reason(
            Reason::ApprovalNeeded.as_str(),
            "the task needs an approval first".to_owned(),
            String::new(),
            format!("have the task approved, then name it: mayfly approval list; {next} {}", task.task_id),
        )),
        _ => Ok(task.task_id),
    }
}

/// Completes a task. If the server is not reached, the task ends when it expires or misses its heartbeat.
pub async fn complete_task(server: &ApiClient, task: &str, reason: &str) {
    let request = pb::CompleteTaskRequest { task_id: task.to_owned(), reason: reason.to_owned() };
    let _ = server.call(request, |c, q| async move { TaskServiceClient::new(c).complete_task(q).await }).await;
}

/// Exchanges for all credentials, in the order of the requests, or for none: what upstreams made already is undone by the server. The
/// requests have different request ids.
pub async fn exchange_all(server: &ApiClient, mut requests: Vec<pb::ExchangeRequest>) -> Result<Vec<pb::Issued>, CliError> {
    let without = || CliError::ours("the server answered without a credential");
    if requests.len() == 1 {
        let request = requests.swap_remove(0);
        let answer = server.call(request, |c, q| async move { TokenServiceClient::new(c).exchange(q).await }).await?;
        return Ok(vec![answer.issued.ok_or_else(without)?]);
    }
    let upstreams: Vec<String> = requests.iter().map(|one| one.upstream.clone()).collect();
    let request = pb::BatchExchangeRequest { exchanges: requests, all_or_nothing: true };
    let answer = server.call(request, |c, q| async move { TokenServiceClient::new(c).batch_exchange(q).await }).await;
    let results = answer.map_err(|error| error.of_upstreams(&upstreams))?.results;
    if results.len() != upstreams.len() {
        return Err(without());
    }
    let issued = results.into_iter().map(|one| match one.result {
        Some(exchange_result::Result::Issued(issued)) => Ok(issued),
        _ => Err(without()),
    });
    issued.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_has_each_upstream_and_each_scope_once() {
        let of = |upstream: &str, scopes: &[&str]| pb::Allowance {
            upstream: upstream.to_owned(),
            scopes: scopes.iter().map(|&s| s.to_owned()).collect(),
        };
        let all = [of("echo", &["read"]), of("orders", &["read"]), of("echo", &["write", "read"])];
        assert_eq!(merged(&all), [of("echo", &["read", "write"]), of("orders", &["read"])]);
    }
}
