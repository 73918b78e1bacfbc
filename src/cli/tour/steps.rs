//! The steps of the tour.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use axum::http::StatusCode;
use tokio::runtime::Runtime;
use tonic::transport::Channel;

use super::load::{TourLoad, exchange, token_of};
use super::{Narrator, TourError, echo};
use crate::dev::{DevWorld, ServerProcess, TRUST_DOMAIN};
use mayfly_api::client;
use mayfly_base::plural::{counted, one_or};
use mayfly_base::system::System;
use mayfly_client::verifier::{Settings, Verifier};
use mayfly_proto::mayfly::v1 as pb;
use mayfly_proto::mayfly::v1::revocation_service_client::RevocationServiceClient;
use mayfly_proto::mayfly::v1::task_service_client::TaskServiceClient;
use mayfly_proto::mayfly::v1::token_service_client::TokenServiceClient;

/// The longest wait for a follower to appear and to apply a record.
const PATIENCE: Duration = Duration::from_secs(10);
/// The number of acknowledged exchanges before the server is killed.
const BEFORE_KILL: usize = 300;

/// Runs all steps; one of them kills the server.
pub fn run(
    teller: &mut Narrator,
    world: &DevWorld,
    program: &Path,
    child: ServerProcess,
    runtime: &Runtime,
    system: &System,
) -> Result<(), TourError> {
    let tour = runtime.block_on(Tour::begin(teller, world, &child, system))?;
    let dead = runtime.block_on(async {
        let first = tour.issue(teller).await?;
        tour.revoke(teller, &first).await?;
        let second = tour.complete(teller).await?;
        tour.hold(teller).await?;
        Ok::<_, TourError>(vec![first, second])
    })?;
    let (task, alive) = runtime.block_on(tour.kill(teller, child))?;
    let child = world.spawn(program)?;
    runtime.block_on(tour.after(teller, world, &child, &task, &alive, &dead))?;
    child.stop()?;
    Ok(())
}

struct Tour {
    agent: Channel,
    operator: Channel,
    echo: SocketAddr,
}

fn missing(what: &str) -> TourError {
    format!("the answer has no {what}").into()
}

/// Checks that a call was refused, for the expected reason.
fn refused<T>(answer: Result<T, tonic::Status>, why: &str) -> Result<tonic::Status, TourError> {
    use tonic_types::StatusExt;
    let Err(status) = answer else { return Err(format!("it was not refused; {why} was expected").into()) };
    let reason = status.get_error_details().error_info().map(|info| info.reason.clone()).unwrap_or_default();
    if reason == why { Ok(status) } else { Err(format!("refused with {reason} ({}), not {why}", status.message()).into()) }
}

impl Tour {
    async fn begin(teller: &mut Narrator, world: &DevWorld, child: &ServerProcess, system: &System) -> Result<Tour, TourError> {
        teller.step("Start a server: redb, mTLS, its own trust domain");
        let at = child.addresses();
        teller.say(format_args!("trust domain {TRUST_DOMAIN}; workloads at {}, process {}", at.workload, at.pid));
        let agent = world.channel("agent/demo", at.workload).await?;
        let service = world.channel("service/echo", at.workload).await?;
        let socket = at.admin_socket.clone().ok_or_else(|| missing("admin socket"))?;
        let operator = client::unix(&world.dir().join(socket)).await?;
        teller.proves("the workload and the server each know the other by an X.509-SVID, and by nothing else");

        teller.step("Start an upstream, echo, that verifies credentials by itself and follows revocations");
        let verifier = Verifier::new(
            Settings {
                follower: "try-echo".into(),
                upstreams: vec!["echo".into()],
                issuer: format!("https://{TRUST_DOMAIN}/dev"),
                audience: "https://echo.dev.mayfly.internal".into(),
            },
            system.clone(),
        );
        tokio::spawn(verifier.clone().follow(service));
        let echo = echo::serve(verifier.clone()).await?;
        wait_until("the upstream to follow", || verifier.ready()).await?;
        let (status, why) = echo::call(echo, "nonsense").await?;
        expect(status, StatusCode::UNAUTHORIZED, &why)?;
        teller.proves("a token that is none is refused");
        Ok(Tour { agent, operator, echo })
    }

    async fn open(&self, purpose: &str) -> Result<String, TourError> {
        let terms = pb::TaskTerms {
            purpose: purpose.to_owned(),
            upstreams: vec![pb::Allowance { upstream: "echo".into(), scopes: vec!["echo:read".into()] }],
            any_tool: true,
            ..Default::default()
        };
        let ask = pb::OpenTaskRequest { terms: Some(terms), ..Default::default() };
        let opened = TaskServiceClient::new(self.agent.clone()).open_task(ask).await?.into_inner();
        Ok(opened.task.ok_or_else(|| missing("task"))?.task_id)
    }

    async fn get(&self, task: &str) -> Result<pb::Issued, TourError> {
        let answer = TokenServiceClient::new(self.agent.clone()).exchange(exchange(task, "a step of mayfly try")).await?;
        answer.into_inner().issued.ok_or_else(|| missing("credential"))
    }

    async fn token(&self, task: &str) -> Result<String, TourError> {
        token_of(Some(self.get(task).await?)).ok_or_else(|| missing("token"))
    }

    async fn accepted(&self, token: &str) -> Result<String, TourError> {
        let (status, said) = echo::call(self.echo, token).await?;
        expect(status, StatusCode::OK, &said)?;
        Ok(said)
    }

    async fn rejected(&self, token: &str) -> Result<String, TourError> {
        let (status, why) = echo::call(self.echo, token).await?;
        expect(status, StatusCode::UNAUTHORIZED, &why)?;
        Ok(why)
    }

    /// Waits until every follower has applied a sequence number.
    async fn applied(&self, seq: u64) -> Result<(), TourError> {
        let timeout = prost_types::Duration::try_from(PATIENCE).ok();
        let ask = pb::WaitForRevocationRequest { seq, timeout };
        let answer = RevocationServiceClient::new(self.operator.clone()).wait_for_revocation(ask).await?.into_inner();
        let behind = answer.behind_count;
        let (followers, have) = (counted(behind, "follower"), one_or(behind, "has", "have"));
        if answer.applied { Ok(()) } else { Err(format!("{followers} {have} not applied seq {seq}").into()) }
    }

    async fn issue(&self, teller: &mut Narrator) -> Result<String, TourError> {
        teller.step("Open a task, and exchange the SVID for a credential in it");
        let task = self.open("show the life of a credential").await?;
        let issued = self.get(&task).await?;
        teller.say(format_args!("{task}"));
        teller.say(format_args!(
            "{} for echo, scope {}, record {}, its end set by {}",
            issued.credential_id,
            issued.scopes.join(" "),
            issued.seq,
            issued.bound_by
        ));
        teller.proves("it was durable and in the audit before it was answered");
        let token = token_of(Some(issued)).ok_or_else(|| missing("token"))?;

        teller.step("Call the upstream with it");
        let said = self.accepted(&token).await?;
        teller.say(format_args!("echo: {said}"));
        let mut forged = token.clone().into_bytes();
        if let Some(byte) = forged.iter_mut().rev().nth(20) {
            *byte = if *byte == b'A' { b'B' } else { b'A' };
        }
        let why = self.rejected(&String::from_utf8(forged)?).await?;
        teller.say(format_args!("with one character changed: {why}"));
        teller.proves("the upstream accepts the credential and not a forged one, without asking the server");
        Ok(token)
    }

    async fn revoke(&self, teller: &mut Narrator, token: &str) -> Result<(), TourError> {
        teller.step("Revoke the workload: one record, whatever it hits");
        let target = pb::Target { target: Some(pb::target::Target::Caller(DevWorld::id("agent/demo"))) };
        let ask = pb::RevokeRequest {
            targets: vec![target],
            reason: "mayfly try".into(),
            confirmation: Some(pb::Confirmation { credentials: 0, all: true }),
            ..Default::default()
        };
        let mut operator = RevocationServiceClient::new(self.operator.clone());
        let done = operator.revoke(ask).await?.into_inner();
        self.applied(done.seq).await?;
        let why = self.rejected(token).await?;
        teller.say(format_args!("echo: {why}"));
        let terms = pb::TaskTerms {
            upstreams: vec![pb::Allowance { upstream: "echo".into(), scopes: Vec::new() }],
            ..Default::default()
        };
        let inline = pb::ExchangeRequest {
            task: Some(pb::exchange_request::Task::OpenTask(terms)),
            ..exchange("", "again, with the same SVID")
        };
        let no = refused(TokenServiceClient::new(self.agent.clone()).exchange(inline).await, "LOCKED")?;
        teller.say(format_args!("the next exchange: {}", no.message()));
        teller.proves("dead at the upstream at once, and the same SVID gets nothing new");

        let lift = pb::LiftLockRequest { seq: done.seq, reason: "mayfly try goes on".into(), ..Default::default() };
        let lifted = operator.lift_lock(lift).await?.into_inner();
        self.applied(lifted.seq).await?;
        self.rejected(token).await?;
        teller.proves("lifting the lock lets the workload in again and brings nothing back");
        Ok(())
    }

    async fn complete(&self, teller: &mut Narrator) -> Result<String, TourError> {
        teller.step("Complete a second task: everything under it is dead");
        let task = self.open("three credentials").await?;
        let mut tokens = Vec::new();
        for _ in 0..3 {
            let token = self.token(&task).await?;
            self.accepted(&token).await?;
            tokens.push(token);
        }
        let ask = pb::CompleteTaskRequest { task_id: task.clone(), reason: "done".into() };
        let ended = TaskServiceClient::new(self.agent.clone()).complete_task(ask).await?.into_inner();
        self.applied(ended.seq).await?;
        for token in &tokens {
            let why = self.rejected(token).await?;
            teller.say(format_args!("echo: {why}"));
        }
        refused(TokenServiceClient::new(self.agent.clone()).exchange(exchange(&task, "after the end")).await, "TASK_NOT_ACTIVE")?;
        teller.proves("credentials do not outlive their task");
        tokens.pop().ok_or_else(|| missing("token"))
    }

    async fn hold(&self, teller: &mut Narrator) -> Result<(), TourError> {
        teller.step("Hold a third task, and resume it");
        let task = self.open("held for a moment").await?;
        let token = self.token(&task).await?;
        let mut operator = TaskServiceClient::new(self.operator.clone());
        let ask = pb::HoldTaskRequest { task_id: task.clone(), reason: "somebody looks into it".into(), ..Default::default() };
        let held = operator.hold_task(ask).await?.into_inner();
        self.applied(held.seq).await?;
        let why = self.rejected(&token).await?;
        teller.say(format_args!("held, echo: {why}"));
        let ask = pb::ResumeTaskRequest { task_id: task, reason: "it was nothing".into(), ..Default::default() };
        let resumed = operator.resume_task(ask).await?.into_inner();
        self.applied(resumed.seq).await?;
        teller.say(format_args!("resumed, echo: {}", self.accepted(&token).await?));
        teller.proves("a hold is reversible, a revocation is not");
        Ok(())
    }

    async fn kill(&self, teller: &mut Narrator, child: ServerProcess) -> Result<(String, Vec<String>), TourError> {
        teller.step("Kill the server with SIGKILL in the middle of its work, and start it again");
        let task = self.open("load").await?;
        let load = TourLoad::start(&self.agent, &task, 16);
        let enough = wait_until("exchanges", || load.count() >= BEFORE_KILL).await;
        child.kill();
        let acknowledged = load.end().await;
        enough?;
        teller.say(format_args!("{} exchanges were acknowledged when it was killed", acknowledged.len()));
        Ok((task, acknowledged))
    }

    async fn after(
        &self,
        teller: &mut Narrator,
        world: &DevWorld,
        child: &ServerProcess,
        task: &str,
        alive: &[String],
        dead: &[String],
    ) -> Result<(), TourError> {
        let socket = child.addresses().admin_socket.clone().ok_or_else(|| missing("admin socket"))?;
        let mut operator = TokenServiceClient::new(client::unix(&world.dir().join(socket)).await?);
        let mut lost = 0;
        for token in alive {
            let known = operator.introspect(pb::IntrospectRequest { token: token.clone() }).await?.into_inner();
            lost += usize::from(!known.active || known.credential.is_none_or(|c| c.task_id != task));
        }
        let mut revived = 0;
        for token in dead {
            revived +=
                usize::from(operator.introspect(pb::IntrospectRequest { token: token.clone() }).await?.into_inner().active);
        }
        teller.say(format_args!("acknowledged and not there any more: {lost} of {}", alive.len()));
        teller.say(format_args!("revoked or ended before, and active again: {revived} of {}", dead.len()));
        if lost + revived > 0 {
            return Err("something acknowledged was lost, or something dead came back".into());
        }
        teller.proves("nothing acknowledged was lost, nothing revoked came back");
        Ok(())
    }
}

fn expect(status: StatusCode, expected: StatusCode, said: &str) -> Result<(), TourError> {
    if status == expected { Ok(()) } else { Err(format!("the upstream answered {status}, not {expected}: {said}").into()) }
}

async fn wait_until(what: &str, holds: impl Fn() -> bool) -> Result<(), TourError> {
    let looking = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, looking).await.map_err(|_| format!("waited {} s for {what}", PATIENCE.as_secs()).into())
}
