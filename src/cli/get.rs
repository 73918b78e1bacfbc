//! `mayfly get`: exchanges for a credential and writes it to a pipe or a file.

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use mayfly_verify::arguments;
use serde::Serialize;
use zeroize::Zeroizing;

use super::args::{self, wire_duration};
use super::certified_key::CertifiedKeyArgs;
use super::ci::mask::Masker;
use super::error::CliError;
use super::exit::Exit;
use super::out::Format;
use super::out::escape;
use super::out::sink::SecretSink;
use super::server::ApiClient;
use super::show::issued::IssuedView;
use super::show::time;
use super::subject::SubjectArgs;
use super::{CommandContext, credential, issue, task, terms, token};
use mayfly_base::limits;
use mayfly_base::refusal::Reason;
use mayfly_proto::mayfly::v1::{self as pb, arguments::Arguments, exchange_request::Task, key_binding::Key};

/// Arguments of `mayfly get`.
#[derive(Args)]
pub struct GetArgs {
    /// Upstream, with scopes or without; with several upstreams, all credentials are issued or none, and written as a JSON array
    #[arg(value_name = "UPSTREAM[=SCOPE,…]", required = true, num_args = 1..=limits::EXEC_CREDENTIALS, value_parser = terms::allowance)]
    upstream: Vec<pb::Allowance>,
    /// Task of the credential [default: a new task for this credential]
    #[arg(long, value_name = "TASK", env = "MAYFLY_TASK", hide_env_values = true, value_parser = args::task_id)]
    task: Option<String>,
    /// Purpose of the credential; required without --task, as the purpose of the new task
    #[arg(long, value_name = "TEXT", required_unless_present = "task")]
    purpose: Option<String>,
    /// Lifetime of the new task [default: the lifetime of the credential]
    #[arg(long, value_name = "DURATION", value_parser = args::duration, conflicts_with = "task")]
    task_ttl: Option<Duration>,
    /// Scope of a single upstream; can be repeated [default: the first scope that is not sensitive]
    #[arg(long, value_name = "SCOPE")]
    scope: Vec<String>,
    /// Kind of credential, for a single upstream [default: the first kind of the upstream]
    #[arg(long, value_parser = args::kind())]
    kind: Option<pb::CredentialKind>,
    /// Lifetime of the credential [default: 5m]
    #[arg(long, value_name = "DURATION", value_parser = args::duration)]
    ttl: Option<Duration>,
    /// Tool that uses the credential
    #[arg(long, value_name = "NAME")]
    tool: Option<String>,
    #[command(flatten)]
    arguments: ToolArguments,
    /// File with authorization details that ask for a part of what the scopes give, JSON; `-` is stdin; for a single upstream
    #[arg(long, value_name = "FILE")]
    authorization_details: Option<PathBuf>,
    /// Bind the credential to the key of this client's SVID; its presenter must prove possession of that key
    #[arg(long)]
    bind_svid: bool,
    /// File with the parent credential that this caller acts under; `-` is stdin
    #[arg(long, value_name = "FILE")]
    parent_credential: Option<PathBuf>,
    #[command(flatten)]
    subject: SubjectArgs,
    /// Binding to decide under [default: any binding that permits the request]
    #[arg(long, value_name = "NAME")]
    binding: Option<String>,
    /// If an approval is needed, wait this long for it; for a single upstream
    #[arg(long, value_name = "DURATION", value_parser = args::duration)]
    wait_for_approval: Option<Duration>,
    #[command(flatten)]
    certified: CertifiedKeyArgs,
    /// Request id; repeating the command with the same id returns the first answer
    #[arg(long, value_name = "ID")]
    request_id: Option<String>,
    /// Write the credential to this file, which is replaced atomically and readable by its owner only
    #[arg(long, value_name = "FILE")]
    to: Option<PathBuf>,
    /// Write the whole HTTP header line, for `curl -H @FILE`
    #[arg(long)]
    header: bool,
    /// Write the credential to stdout even if stdout is a terminal
    #[arg(long)]
    force_terminal: bool,
    /// In a GitHub Actions or Buildkite job, first mask each line of each secret part in the job's log
    #[arg(long)]
    mask: bool,
}

/// The arguments of a tool call.
#[derive(Args)]
pub struct ToolArguments {
    /// File with the arguments of the tool call, JSON; `-` is stdin
    #[arg(long, value_name = "FILE")]
    arguments: Option<PathBuf>,
    /// SHA-256 of the arguments in RFC 8785 form, instead of the arguments
    #[arg(long, value_name = "HEX", value_parser = args::sha256, conflicts_with = "arguments")]
    arguments_sha256: Option<[u8; 32]>,
}

/// Runs the command.
pub async fn run(mut args: GetArgs, run: &CommandContext) -> Result<Exit, CliError> {
    let several = args.upstream.len() > 1;
    let form = Form::of(run.out.format(), args.header)?;
    if several {
        args.fit_several()?;
    }
    let sink = match (&args.to, args.certified.makes_key()) {
        // The certificate goes beside the key, under a name that its kind says.
        (None, true) => None,
        _ => Some(SecretSink::decide(args.to.clone(), std::io::stdout().is_terminal(), args.force_terminal)?),
    };
    let masker = args.mask.then(|| Masker::here(|name| std::env::var(name).ok().filter(|v| !v.is_empty()))).transpose()?;
    let common = pb::ExchangeRequest {
        arguments: args.arguments.on_the_wire()?,
        parent_credential: args.parent_credential.as_deref().map(token::parent_credential).transpose()?,
        subject_token: args.subject.token()?,
        ttl: args.ttl.map(wire_duration),
        tool: std::mem::take(&mut args.tool).unwrap_or_default(),
        purpose: args.purpose.clone().unwrap_or_default(),
        key_binding: args.bind_svid.then(|| pb::KeyBinding { key: Some(Key::CallerSvid(pb::CallerSvid {})) }),
        binding: std::mem::take(&mut args.binding).unwrap_or_default(),
        authorization_details: args.details()?,
        wait_for_approval: args.wait_for_approval.map(wire_duration),
        ..pb::ExchangeRequest::default()
    };
    let server = run.server().await?.waiting(args.wait_for_approval.unwrap_or_default());
    let mut key = None;
    let issued = if several {
        all(&args, common, &server, run).await?
    } else {
        let mut request =
            pb::ExchangeRequest { request_id: run.request_id(&args.request_id), ..single(&args, common, &server).await? };
        key = args.certified.fill(&mut request, run)?;
        issue::exchange_all(&server, vec![request]).await?
    };
    let sink = sink.or_else(|| key.as_ref().map(|key| SecretSink::File(key.certificate_file())));
    let sink = sink.ok_or_else(|| CliError::ours("the certificate has no place"))?;
    let ids: Vec<String> = issued.iter().map(|one| one.credential_id.clone()).collect();
    let written = match issued.into_iter().map(IssuedView::of).collect::<Result<Vec<_>, _>>() {
        Ok(issued) => {
            let kept = key.as_ref().map_or(Ok(()), |key| key.write(run));
            match kept {
                Ok(()) => hand_over(&issued, masker, form, &sink, run).await.map(|()| issued),
                Err(error) => Err(error),
            }
        }
        Err(error) => Err(error),
    };
    let issued = match written {
        Ok(issued) => issued,
        Err(error) => {
            // A credential that could not be written to its receiver is not left alive.
            for id in &ids {
                match credential::release(&server, id).await {
                    Ok(_) => run.out.say(format_args!("{id} was given back, since it could not be handed over")),
                    Err(_) => run.out.say(format_args!("end it with `mayfly credential release {id}`")),
                }
            }
            return Err(error);
        }
    };
    issued.iter().for_each(|one| print_issued(run, one));
    if let (None, Some(one)) = (&args.task, issued.first()) {
        run.out.say(format_args!("its task is {0}; when the work is done: mayfly task complete {0}", one.about.0.task_id));
    }
    Ok(Exit::Ok)
}

/// Masks the secrets in the log of a CI job, and writes the credentials.
async fn hand_over(
    issued: &[IssuedView],
    masker: Option<Masker>,
    form: Form,
    sink: &SecretSink,
    run: &CommandContext,
) -> Result<(), CliError> {
    if let Some(masker) = masker {
        let secrets: Vec<&str> = issued.iter().flat_map(|one| one.answer.secrets()).collect();
        masker.hide(&secrets).await?;
    }
    let text = match issued {
        [one] => form.write(one)?,
        several => json(several)?,
    };
    sink.write(text.as_bytes(), &run.system)
}

impl GetArgs {
    /// The authorization details; empty for none.
    fn details(&self) -> Result<String, CliError> {
        match &self.authorization_details {
            Some(path) => Ok(args::read_text(path, limits::AUTHORIZATION_DETAILS_BYTES)?.to_string()),
            None => Ok(String::new()),
        }
    }

    /// Refuses options that say something about a single credential.
    fn fit_several(&self) -> Result<(), CliError> {
        let wrong = if !self.scope.is_empty() {
            "--scope is for a single upstream; with several, name the scopes with each: github=repo:read,issues:read"
        } else if self.kind.is_some() {
            "--kind is for a single upstream; with several, each has the first kind of its registration"
        } else if self.authorization_details.is_some() {
            "--authorization-details is for a single upstream; with several, get that credential by itself"
        } else if self.certified.is_given() {
            "--csr, --ssh-key and --new-key are for a single upstream; with several, ask for each certificate by itself"
        } else if self.wait_for_approval.is_some() {
            "--wait-for-approval is for a single upstream; with several, open the task first: mayfly task open"
        } else if self.header {
            "--header is for a single upstream; with several, the credentials are written as a JSON array"
        } else {
            return Ok(());
        };
        Err(CliError::Usage(wrong.to_owned()))
    }
}

/// The request for a single credential.
async fn single(args: &GetArgs, common: pb::ExchangeRequest, server: &ApiClient) -> Result<pb::ExchangeRequest, CliError> {
    let [named] = args.upstream.as_slice() else { return Err(CliError::ours("one upstream was expected")) };
    if !named.scopes.is_empty() && !args.scope.is_empty() {
        return Err(CliError::Usage("the scopes are named twice: with the upstream, and by --scope".to_owned()));
    }
    let scopes = if named.scopes.is_empty() { &args.scope } else { &named.scopes };
    let Chosen { scopes, kind, life } = chosen(args, &named.upstream, scopes, server).await?;
    let task = match &args.task {
        Some(id) => Task::TaskId(id.clone()),
        None => Task::OpenTask(pb::TaskTerms {
            purpose: common.purpose.clone(),
            upstreams: vec![pb::Allowance { upstream: named.upstream.clone(), scopes: scopes.clone() }],
            tools: Some(common.tool.clone()).filter(|tool| !tool.is_empty()).into_iter().collect(),
            // A task that serves one credential gets the lifetime of that credential, so that policies bound both alike.
            ttl: args.task_ttl.or(args.ttl).map(wire_duration).or(life),
            ..pb::TaskTerms::default()
        }),
    };
    Ok(pb::ExchangeRequest { task: Some(task), upstream: named.upstream.clone(), scopes, kind: kind.into(), ..common })
}

/// Issues credentials for several upstreams, or none. The task is opened first, unless one is given.
async fn all(
    args: &GetArgs,
    common: pb::ExchangeRequest,
    server: &ApiClient,
    run: &CommandContext,
) -> Result<Vec<pb::Issued>, CliError> {
    let id = run.request_id(&args.request_id);
    let (mut wanted, mut kinds, mut life) = (Vec::with_capacity(args.upstream.len()), Vec::new(), None);
    for named in &args.upstream {
        let chosen = chosen(args, &named.upstream, &named.scopes, server).await?;
        wanted.push(pb::Allowance { upstream: named.upstream.clone(), scopes: chosen.scopes });
        kinds.push(chosen.kind);
        life = life.max(chosen.life.map(|d| (d.seconds, d.nanos)));
    }
    let task = match &args.task {
        Some(task) => task.clone(),
        None => {
            let life = life.map(|(seconds, nanos)| prost_types::Duration { seconds, nanos });
            let terms = pb::TaskTerms {
                purpose: common.purpose.clone(),
                upstreams: issue::merged(&wanted),
                tools: Some(common.tool.clone()).filter(|tool| !tool.is_empty()).into_iter().collect(),
                ttl: args.task_ttl.or(args.ttl).map(wire_duration).or(life),
                ..pb::TaskTerms::default()
            };
            issue::open_task(server, terms, format!("{id}-task"), "mayfly get --task").await?
        }
    };
    let requests = wanted.into_iter().zip(kinds).enumerate().map(|(n, (one, kind))| pb::ExchangeRequest {
        task: Some(Task::TaskId(task.clone())),
        upstream: one.upstream,
        scopes: one.scopes,
        kind: kind.into(),
        request_id: format!("{id}-{n}"),
        ..common.clone()
    });
    let issued = issue::exchange_all(server, requests.collect()).await;
    if let (Err(error), None) = (&issued, &args.task) {
        if error.reason() == Some(Reason::ApprovalNeeded) {
            run.out.say(format_args!("the task stays open; once it is approved, repeat the command with --task {task}"));
        } else {
            issue::complete_task(server, &task, "no credential was issued").await;
        }
    }
    issued
}

/// The parts of a request that the upstream's registration supplies if the command line omits them.
struct Chosen {
    scopes: Vec<String>,
    kind: pb::CredentialKind,
    /// The default lifetime of a credential. `None` if the registration was not needed.
    life: Option<prost_types::Duration>,
}

/// Takes scopes and kind from the command line, or else the registration's first scope that is not sensitive and its first kind.
async fn chosen(args: &GetArgs, name: &str, scopes: &[String], server: &ApiClient) -> Result<Chosen, CliError> {
    let life_is_known = args.task.is_some() || args.task_ttl.is_some() || args.ttl.is_some();
    if let (false, Some(kind), true) = (scopes.is_empty(), args.kind, life_is_known) {
        return Ok(Chosen { scopes: scopes.to_vec(), kind, life: None });
    }
    let upstream = match terms::registration(server, name).await {
        Ok(upstream) => upstream,
        // Only the lifetime is missing, and the server has a default. A caller that may not see the registration gets its reason from the
        // exchange.
        Err(error) if error.reason() == Some(Reason::NotFound) => match args.kind {
            Some(kind) if !scopes.is_empty() => return Ok(Chosen { scopes: scopes.to_vec(), kind, life: None }),
            _ => return Err(error),
        },
        Err(error) => return Err(error),
    };
    let kind = args.kind.or(upstream.kinds().next()).unwrap_or_default();
    let life = upstream.default_ttl;
    if !scopes.is_empty() {
        return Ok(Chosen { scopes: scopes.to_vec(), kind, life });
    }
    let within = match &args.task {
        Some(id) => {
            let terms = task::get(server, id).await?.terms.unwrap_or_default();
            terms.upstreams.into_iter().find(|a| a.upstream == name).map(|a| a.scopes)
        }
        None => None,
    };
    Ok(Chosen { scopes: vec![terms::first_scope(&upstream, within.as_deref())?], kind, life })
}

impl ToolArguments {
    /// The protobuf form of the arguments.
    pub fn on_the_wire(&self) -> Result<Option<pb::Arguments>, CliError> {
        let arguments = match (&self.arguments, self.arguments_sha256) {
            (Some(path), _) => {
                let json = args::read_text(path, limits::ARGUMENTS_BYTES)?.to_string();
                // The server would refuse the same document; here the error can name the file.
                let wrong = |no| CliError::Usage(format!("--arguments {}: {no}", path.display()));
                arguments::parse(&json).map_err(wrong)?;
                Arguments::Json(json)
            }
            (None, Some(digest)) => Arguments::Sha256(digest.to_vec().into()),
            (None, None) => return Ok(None),
        };
        Ok(Some(pb::Arguments { arguments: Some(arguments) }))
    }
}

/// The form in which a credential is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Form {
    Plain,
    Header,
    Json,
}

impl Form {
    fn of(format: Format, header: bool) -> Result<Form, CliError> {
        match (format, header) {
            (Format::Table | Format::Wide, false) => Ok(Form::Plain),
            (Format::Table | Format::Wide, true) => Ok(Form::Header),
            (Format::Json, false) => Ok(Form::Json),
            _ => Err(CliError::Usage("`get` writes the credential itself, --header, or -o json".to_owned())),
        }
    }

    /// The credential as one text that ends with a line feed; a credential of several parts is written as JSON.
    fn write(self, issued: &IssuedView) -> Result<Zeroizing<String>, CliError> {
        let text = match self {
            Form::Plain => issued.answer.plain(),
            Form::Json => None,
            Form::Header => match issued.answer.header() {
                None => {
                    return Err(CliError::Usage(format!("a credential of kind {} cannot be sent in a header", issued.kind())));
                }
                text => text,
            },
        };
        let mut text = match text {
            Some(text) => text,
            None => json(issued)?,
        };
        ended(&mut text);
        Ok(text)
    }
}

fn json(issued: &(impl Serialize + ?Sized)) -> Result<Zeroizing<String>, CliError> {
    // The capacity covers the largest credentials: a growing buffer would leave copies of the secrets in memory.
    let mut text = Zeroizing::new(Vec::with_capacity(limits::EXEC_CREDENTIALS * 64 * 1024));
    serde_json::to_writer_pretty(&mut *text, issued).map_err(CliError::ours)?;
    let text = std::str::from_utf8(&text).map_err(CliError::ours)?;
    let mut text = Zeroizing::new(escape::json(text).into_owned());
    ended(&mut text);
    Ok(text)
}

/// Ends a text with a line feed.
fn ended(text: &mut Zeroizing<String>) {
    if !text.ends_with('\n') {
        text.push('\n');
    }
}

fn print_issued(run: &CommandContext, issued: &IssuedView) {
    let bound = issued.about.json().text_at("bound");
    let issued = &issued.about.0;
    let until = time(issued.expires_at).unwrap_or_else(|| "-".to_owned());
    let by = if issued.bound_by.is_empty() { &bound } else { &issued.bound_by };
    let (id, upstream, scopes) = (&issued.credential_id, &issued.upstream, issued.scopes.join(", "));
    run.out.say(format_args!("{id} for {upstream} ({scopes}) until {until}, bounded by: {by}"));
    if issued.novelty() == pb::Novelty::Same {
        run.out.say("the same credential as the first time: the request id was used before");
    }
    if issued.irrevocable {
        run.out.say("it cannot be revoked before it ends; the upstream's registration consented to that");
    }
    if let Some(end) = time(issued.upstream_ends_at) {
        let what = match issued.irrevocable {
            true => "the upstream accepts it until",
            false => "mayfly ends it at the upstream, which would accept it until",
        };
        run.out.say(format_args!("{what} {end} at the latest: the upstream gives no shorter life"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_credential_has_few_forms_and_the_others_are_refused() {
        assert_eq!(Form::of(Format::Table, false).unwrap(), Form::Plain);
        assert_eq!(Form::of(Format::Json, false).unwrap(), Form::Json);
        assert_eq!(Form::of(Format::Wide, true).unwrap(), Form::Header);
        for (format, header) in [(Format::Yaml, false), (Format::Name, false), (Format::Json, true)] {
            assert!(Form::of(format, header).is_err());
        }
    }
}
