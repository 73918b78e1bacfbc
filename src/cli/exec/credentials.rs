//! The credentials of a program: issued in a task, checked while the program runs, and given back.

use std::fmt;
use std::time::Duration;

use zeroize::Zeroizing;

use super::super::args::wire_duration;
use super::super::certified_key::NewCertifiedKey;
use super::super::error::CliError;
use super::super::exit::Exit;
use super::super::server::ApiClient;
use super::super::show::issued::{IssuedAnswerView, IssuedView};
use super::super::{CommandContext, credential, issue, terms};
use super::ExecArgs;
use super::aws::{self, SessionVariables};
use super::certificate::{self, CertificateFiles};
use super::database::{self, DatabaseVariables};
use mayfly_base::limits;
use mayfly_proto::mayfly::v1::{
    self as pb, credential_service_client::CredentialServiceClient, exchange_request::Task,
    task_service_client::TaskServiceClient,
};

/// The heartbeat interval of the task: if this process is killed, the task ends after this time.
const HEARTBEAT: Duration = Duration::from_secs(30);

/// An environment variable, and the credential that it receives.
#[derive(Clone, Debug)]
pub struct Injected {
    variable: String,
    /// The user chose the variable.
    chosen: bool,
    upstream: String,
    scopes: Vec<String>,
    /// The kind, where the registration was read.
    kind: pb::CredentialKind,
}

impl Injected {
    /// The variable of the credential. What is no token has a name of its own, with this ending, unless the user chose one.
    fn variable_for(&self, ending: Option<&str>) -> String {
        let usual = usual_variable(&self.upstream);
        let other = ending.filter(|_| self.variable == usual).map(|ending| format!("{}_{ending}", prefix(&self.upstream)));
        other.unwrap_or_else(|| self.variable.clone())
    }
}

/// Parses `github=repo:read,issues:read`.
pub(super) fn upstream(text: &str) -> Result<Injected, String> {
    let (upstream, scopes) = text.split_once('=').unwrap_or((text, ""));
    let scopes: Vec<String> = scopes.split(',').filter(|s| !s.is_empty()).map(str::to_owned).collect();
    if upstream.is_empty() || (text.contains('=') && scopes.is_empty()) {
        return Err("expected an upstream with its scopes, like github=repo:read,issues:read".to_owned());
    }
    Ok(Injected {
        variable: usual_variable(upstream),
        chosen: false,
        upstream: upstream.to_owned(),
        scopes,
        kind: pb::CredentialKind::Unspecified,
    })
}

/// Parses `GH_TOKEN=github=repo:read`.
pub(super) fn variable(text: &str) -> Result<Injected, String> {
    let wrong = || "expected a variable and an upstream, like GITHUB_TOKEN=github=repo:read".to_owned();
    let (name, rest) = text.split_once('=').ok_or_else(wrong)?;
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if name.is_empty() || !name.chars().all(plain) || name.starts_with(|c: char| c.is_ascii_digit()) {
        return Err(wrong());
    }
    Ok(Injected { variable: name.to_owned(), chosen: true, ..upstream(rest)? })
}

/// The variable of an upstream's credential, unless the user or the registration names another one.
fn usual_variable(upstream: &str) -> String {
    format!("{}_TOKEN", prefix(upstream))
}

/// The name of an upstream in the syntax of variable names.
fn prefix(upstream: &str) -> String {
    upstream.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' }).collect()
}

/// The variables that a credential sets: its own, and that of its upstream's address.
fn names(one: &Injected) -> [String; 2] {
    [one.variable.clone(), base_url(&one.upstream)]
}

/// The variable with the address of an upstream.
fn base_url(upstream: &str) -> String {
    format!("{}_BASE_URL", prefix(upstream))
}

/// Refuses variables that would be set twice: the program would get one of two credentials at random.
fn distinct(injected: &[Injected]) -> Result<(), CliError> {
    for (at, one) in injected.iter().enumerate() {
        for other in &injected[..at] {
            let shared = names(one).into_iter().find(|name| names(other).contains(name));
            // Two credentials of one upstream agree on its address.
            if let Some(name) = shared.filter(|name| one.upstream != other.upstream || *name != base_url(&one.upstream)) {
                let both = match one.upstream == other.upstream {
                    true => format!("for {} twice", one.upstream),
                    false => format!("for {} and for {}", other.upstream, one.upstream),
                };
                return Err(CliError::Usage(format!(
                    "variable {name} is named {both}; give each credential a variable of its own: --env NAME=UPSTREAM"
                )));
            }
        }
    }
    Ok(())
}

/// Why the credentials are no longer usable.
#[derive(Debug)]
pub(super) enum CredentialLoss {
    /// A credential was ended before it expired.
    Ended(String),
    /// A credential expires now.
    Expires(String),
    /// The server no longer accepts this caller.
    Refused(Box<CliError>),
}

impl fmt::Display for CredentialLoss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CredentialLoss::Ended(id) => write!(f, "{id} was revoked or its task is over; why: mayfly explain {id}"),
            CredentialLoss::Expires(id) => write!(f, "{id} has ended by its time"),
            CredentialLoss::Refused(error) => f.write_str(error.words(false).trim_end()),
        }
    }
}

/// An issued credential.
struct HeldCredential {
    variable: String,
    upstream: String,
    value: Zeroizing<String>,
    base_url: String,
    /// For a login to a database, which has several parts.
    database: Option<DatabaseVariables>,
    /// For a session in AWS, which has several parts.
    session: Option<SessionVariables>,
    /// For a certificate, which clients take from files.
    files: Option<CertificateFiles>,
    id: String,
    /// When the credential expires, milliseconds of the monotonic clock.
    ends: u64,
}

/// The credentials of a program.
pub(super) struct ProgramCredentials {
    server: ApiClient,
    system: mayfly_base::system::System,
    injected: Vec<Injected>,
    held: Vec<HeldCredential>,
    task: String,
    /// The task was opened for this program and ends with it.
    own_task: bool,
    /// When the next heartbeat is due.
    beat: u64,
    purpose: String,
    ttl: Option<Duration>,
}

impl ProgramCredentials {
    /// Opens the task if none is given, and issues a credential for each variable. Either all credentials are issued or none.
    pub async fn mint(
        mut injected: Vec<Injected>,
        args: &ExecArgs,
        run: &CommandContext,
    ) -> Result<ProgramCredentials, CliError> {
        if injected.len() > limits::EXEC_CREDENTIALS {
            return Err(CliError::Usage(format!("{} credentials at the most for one program", limits::EXEC_CREDENTIALS)));
        }
        distinct(&injected)?;
        let server = run.server().await?;
        for one in &mut injected {
            let registration = match terms::registration(&server, &one.upstream).await {
                Ok(registration) => registration,
                // With scopes and a variable of the user's choice, the registration is not needed.
                Err(_) if !one.scopes.is_empty() => continue,
                Err(error) => return Err(error),
            };
            if one.scopes.is_empty() {
                one.scopes = vec![terms::first_scope(&registration, None)?];
            }
            one.kind = registration.kinds().next().unwrap_or_default();
            if !one.chosen && !registration.variable.is_empty() {
                one.variable = registration.variable;
            }
        }
        distinct(&injected)?;
        let (task, own_task) = match &args.task {
            Some(id) => (id.clone(), false),
            None => (open(&server, &injected, args, run).await?, true),
        };
        let (purpose, system) = (args.purpose.clone().unwrap_or_default(), run.system.clone());
        let mut all =
            ProgramCredentials { server, system, injected, held: Vec::new(), task, own_task, beat: 0, purpose, ttl: args.ttl };
        all.beat = all.system.steady() + HEARTBEAT.as_millis() as u64 / 3;
        match all.minted().await {
            Ok(held) => all.held = held,
            Err(error) => {
                all.give_back().await;
                return Err(error);
            }
        }
        Ok(all)
    }

    /// Issues all credentials, or none.
    async fn minted(&self) -> Result<Vec<HeldCredential>, CliError> {
        let asked = self.system.steady();
        let mut requests: Vec<pb::ExchangeRequest> = self.injected.iter().map(|one| self.request(one)).collect();
        let mut keys = Vec::with_capacity(requests.len());
        for (one, request) in self.injected.iter().zip(&mut requests) {
            let key = NewCertifiedKey::of_kind(one.kind, &self.system)?;
            request.public_key = key.as_ref().map(|key| key.public.clone());
            keys.push(key);
        }
        let issued = issue::exchange_all(&self.server, requests).await?;
        let ids: Vec<String> = issued.iter().map(|one| one.credential_id.clone()).collect();
        let held: Result<Vec<_>, CliError> =
            self.injected.iter().zip(keys).zip(issued).map(|((one, key), issued)| self.held(one, key, issued, asked)).collect();
        if held.is_err() {
            for id in &ids {
                let _ = credential::release(&self.server, id).await;
            }
        }
        held
    }

    fn request(&self, of: &Injected) -> pb::ExchangeRequest {
        pb::ExchangeRequest {
            task: Some(Task::TaskId(self.task.clone())),
            upstream: of.upstream.clone(),
            scopes: of.scopes.clone(),
            ttl: self.ttl.map(wire_duration),
            purpose: self.purpose.clone(),
            request_id: format!("exec-{}", super::super::show::hex(&self.system.random16())),
            ..pb::ExchangeRequest::default()
        }
    }

    /// `asked`: when the credentials were asked for.
    fn held(
        &self,
        of: &Injected,
        key: Option<NewCertifiedKey>,
        issued: pb::Issued,
        asked: u64,
    ) -> Result<HeldCredential, CliError> {
        let life = match (&issued.issued_at, &issued.expires_at) {
            (Some(from), Some(to)) => (to.seconds - from.seconds).max(0).unsigned_abs() * 1_000,
            _ => 0,
        };
        let issued = IssuedView::of(issued)?;
        let ends_at = super::super::show::time(issued.about.0.expires_at).unwrap_or_default();
        let session = aws::variables(&issued.answer, &ends_at);
        let files = certificate::files(&issued.answer, key, &self.system)?;
        let (value, database) = match (&session, &files) {
            (Some(session), _) => (session.json.clone(), None),
            (None, Some(files)) => (Zeroizing::new(files.main().to_owned()), None),
            (None, None) => self.values(&issued)?,
        };
        let base_url = match &issued.answer {
            IssuedAnswerView::BearerToken { base_url, .. } => base_url.clone(),
            _ => String::new(),
        };
        let ending = match (&session, &files) {
            (Some(_), _) => Some("KEYS"),
            (None, Some(files)) => Some(files.ending()),
            (None, None) => database.as_ref().map(|_| "URL"),
        };
        let (variable, upstream, id) = (of.variable_for(ending), of.upstream.clone(), issued.about.0.credential_id);
        Ok(HeldCredential { variable, upstream, value, base_url, database, session, files, id, ends: asked + life })
    }

    /// The value of the credential's variable: the credential, or the URL of a database with its login.
    fn values(&self, issued: &IssuedView) -> Result<(Zeroizing<String>, Option<DatabaseVariables>), CliError> {
        if let Some(database) = database::variables(&issued.kind(), &issued.answer, &self.system)? {
            return Ok((database.url.clone(), Some(database)));
        }
        let several = || format!("a credential of kind {} has several parts, which no variable holds", issued.kind());
        Ok((issued.answer.plain().ok_or_else(|| CliError::Usage(several()))?, None))
    }

    /// The variables that the program does not inherit.
    pub fn not_inherited(&self) -> impl Iterator<Item = &'static str> {
        let databases = self.held.iter().any(|one| one.database.is_some()).then_some(database::NOT_INHERITED);
        let sessions = self.held.iter().any(|one| one.session.is_some()).then_some(aws::NOT_INHERITED);
        [databases, sessions].into_iter().flatten().flatten().copied()
    }

    /// The environment variables: the credentials, the addresses where they are accepted, and the task. The variables of clients are for one
    /// database of a kind, and those of the AWS SDKs for one session, so with several there are only their own variables.
    pub fn each(&self, mut set: impl FnMut(&str, &str)) {
        let databases = || self.held.iter().filter_map(|one| one.database.as_ref());
        for one in databases().filter(|one| databases().filter(|other| other.kind == one.kind).count() == 1) {
            one.client.iter().for_each(|(name, value)| set(name, value));
        }
        let mut sessions = self.held.iter().filter_map(|one| one.session.as_ref());
        if let (Some(only), None) = (sessions.next(), sessions.next()) {
            only.sdk.iter().for_each(|(name, value)| set(name, value));
        }
        for one in &self.held {
            if !one.base_url.is_empty() {
                set(&base_url(&one.upstream), &one.base_url);
            }
            set(&one.variable, &one.value);
            for (ending, path) in one.files.iter().flat_map(CertificateFiles::others) {
                set(&format!("{}_{ending}", prefix(&one.upstream)), path);
            }
        }
        set("MAYFLY_TASK", &self.task);
    }

    /// Checks that all credentials are usable, and sends a heartbeat if one is due. With `early`, a credential that is about to expire
    /// counts as gone.
    pub async fn look(&mut self, early: bool) -> Option<CredentialLoss> {
        let now = self.system.steady();
        if self.own_task && now >= self.beat {
            self.beat = now + HEARTBEAT.as_millis() as u64 / 3;
            let request = pb::HeartbeatTaskRequest { task_id: self.task.clone() };
            // The end of the task shows in its credentials.
            let _ = self.server.call(request, |c, q| async move { TaskServiceClient::new(c).heartbeat_task(q).await }).await;
        }
        let ahead = if early { limits::EXEC_AHEAD_MS } else { 0 };
        if let Some(one) = self.held.iter().find(|one| one.ends <= now + ahead) {
            return Some(CredentialLoss::Expires(one.id.clone()));
        }
        for one in &self.held {
            match self.state(&one.id).await {
                // A hold is temporary.
                Ok(pb::CredentialState::Active | pb::CredentialState::Held) => {}
                Ok(pb::CredentialState::Expired) => return Some(CredentialLoss::Expires(one.id.clone())),
                Ok(_) => return Some(CredentialLoss::Ended(one.id.clone())),
                Err(error) if shut_out(&error) => return Some(CredentialLoss::Refused(Box::new(error))),
                // A server that is briefly unreachable does not end a credential.
                Err(_) => {}
            }
        }
        None
    }

    async fn state(&self, id: &str) -> Result<pb::CredentialState, CliError> {
        let request = pb::GetCredentialRequest { credential_id: id.to_owned() };
        let answer =
            self.server.call(request, |c, q| async move { CredentialServiceClient::new(c).get_credential(q).await }).await?;
        Ok(answer.credential.unwrap_or_default().state())
    }

    /// Replaces the credentials by new ones; `false` if none are issued.
    pub async fn renew(&mut self) -> bool {
        match self.minted().await {
            Ok(held) => {
                for old in std::mem::replace(&mut self.held, held) {
                    let _ = credential::release(&self.server, &old.id).await;
                }
                true
            }
            Err(_) => false,
        }
    }

    /// Completes the task if it was opened here, else gives back each credential. If the server is not reached, they end when they expire
    /// or when the heartbeat is missed.
    pub async fn give_back(&mut self) {
        if self.own_task {
            issue::complete_task(&self.server, &self.task, "the program ended").await;
        } else {
            for one in &self.held {
                let _ = credential::release(&self.server, &one.id).await;
            }
        }
        self.held.clear();
    }
}

async fn open(server: &ApiClient, injected: &[Injected], args: &ExecArgs, run: &CommandContext) -> Result<String, CliError> {
    let wanted: Vec<pb::Allowance> =
        injected.iter().map(|one| pb::Allowance { upstream: one.upstream.clone(), scopes: one.scopes.clone() }).collect();
    let terms = pb::TaskTerms {
        purpose: args.purpose.clone().unwrap_or_default(),
        upstreams: issue::merged(&wanted),
        ttl: args.task_ttl.map(wire_duration),
        heartbeat_interval: Some(wire_duration(HEARTBEAT)),
        ..pb::TaskTerms::default()
    };
    issue::open_task(server, terms, run.request_id(&None), "mayfly exec --task").await
}

/// Whether an error means that the credential or caller is refused, rather than that the server is unreachable.
fn shut_out(error: &CliError) -> bool {
    matches!(error.exit(), Exit::Denied | Exit::NotAuthenticated | Exit::NotFound)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_is_called_after_its_upstream_or_as_somebody_says() {
        let one = upstream("my-github=repo:read,issues:write").unwrap();
        assert_eq!((one.variable.as_str(), one.upstream.as_str()), ("MY_GITHUB_TOKEN", "my-github"));
        assert_eq!(one.scopes, ["repo:read", "issues:write"]);
        let one = variable("GH_TOKEN=github").unwrap();
        assert_eq!((one.variable.as_str(), one.upstream.as_str(), one.scopes.len()), ("GH_TOKEN", "github", 0));
        for wrong in ["github", "=github", "9X=github", "A-B=github", "X=", "X=github=", "X==a"] {
            assert!(variable(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn no_variable_is_set_twice() {
        let refused = |list: &[&str]| {
            let all: Vec<Injected> = list.iter().map(|text| variable(text).unwrap()).collect();
            match distinct(&all) {
                Err(CliError::Usage(text)) => Some(text),
                Err(_) => panic!("another error"),
                Ok(()) => None,
            }
        };
        assert_eq!(refused(&["A=echo", "B=github", "C=echo=echo:write"]), None);
        assert!(refused(&["TOKEN=echo", "TOKEN=github"]).unwrap().contains("variable TOKEN"));
        assert!(refused(&["TOKEN=echo", "X=github", "TOKEN=echo=echo:write"]).unwrap().contains("echo twice"));
        // The address variables of two upstreams whose names differ only in punctuation.
        assert!(refused(&["A=my-echo", "B=my.echo"]).unwrap().contains("MY_ECHO_BASE_URL"));
        assert!(refused(&["A=echo", "ECHO_BASE_URL=github"]).unwrap().contains("ECHO_BASE_URL"));
    }
}
