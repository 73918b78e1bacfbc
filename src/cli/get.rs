//! `mayfly get`: exchanges for a credential and writes it to a pipe or a file.

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use mayfly_verify::arguments;
use zeroize::Zeroizing;

use super::args::{self, wire_duration};
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
use super::{CommandContext, credential, task, terms, token};
use mayfly_base::limits;
use mayfly_base::refusal::Reason;
use mayfly_proto::mayfly::v1::{
    self as pb, arguments::Arguments, exchange_request::Task, key_binding::Key, token_service_client::TokenServiceClient,
};

/// Arguments of `mayfly get`.
#[derive(Args)]
pub struct GetArgs {
    /// Name of the upstream
    #[arg(value_name = "UPSTREAM")]
    upstream: String,
    /// Task of the credential [default: a new task for this credential]
    #[arg(long, value_name = "TASK", env = "MAYFLY_TASK", hide_env_values = true, value_parser = args::task_id)]
    task: Option<String>,
    /// Purpose of the credential; required without --task, as the purpose of the new task
    #[arg(long, value_name = "TEXT", required_unless_present = "task")]
    purpose: Option<String>,
    /// Lifetime of the new task [default: the lifetime of the credential]
    #[arg(long, value_name = "DURATION", value_parser = args::duration, conflicts_with = "task")]
    task_ttl: Option<Duration>,
    /// Scope; can be repeated [default: the first scope that is not sensitive]
    #[arg(long, value_name = "SCOPE")]
    scope: Vec<String>,
    /// Kind of credential [default: the first kind of the upstream]
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
    /// If an approval is needed, wait this long for it
    #[arg(long, value_name = "DURATION", value_parser = args::duration)]
    wait_for_approval: Option<Duration>,
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
pub async fn run(args: GetArgs, run: &CommandContext) -> Result<Exit, CliError> {
    let form = Form::of(run.out.format(), args.header)?;
    let sink = SecretSink::decide(args.to.clone(), std::io::stdout().is_terminal(), args.force_terminal)?;
    let masker = args.mask.then(|| Masker::here(|name| std::env::var(name).ok().filter(|v| !v.is_empty()))).transpose()?;
    let arguments = args.arguments.on_the_wire()?;
    let parent_credential = args.parent_credential.as_deref().map(token::parent_credential).transpose()?;
    let subject_token = args.subject.token()?;
    let server = run.server().await?;
    let wait = args.wait_for_approval.unwrap_or_default();
    let opens = args.task.is_none();
    let request = pb::ExchangeRequest {
        arguments,
        parent_credential,
        subject_token,
        request_id: run.request_id(&args.request_id),
        ..request(args, &server).await?
    };
    let answer = server.waiting(wait).call(request, |c, q| async move { TokenServiceClient::new(c).exchange(q).await }).await?;
    let issued = IssuedView::of(answer.issued.ok_or_else(|| CliError::ours("the server answered without a credential"))?)?;
    let masked = match masker {
        Some(masker) => masker.hide(&issued.answer.secrets()).await,
        None => Ok(()),
    };
    let written = masked.and_then(|()| form.write(&issued)).and_then(|text| sink.write(text.as_bytes(), &run.system));
    if let Err(error) = written {
        // A credential that could not be written to its receiver is not left alive.
        match credential::release(&server, &issued.about.0.credential_id).await {
            Ok(_) => {
                run.out.say(format_args!("{} was given back, since it could not be handed over", issued.about.0.credential_id))
            }
            Err(_) => run.out.say(format_args!("end it with `mayfly credential release {}`", issued.about.0.credential_id)),
        }
        return Err(error);
    }
    print_issued(run, &issued, opens);
    Ok(Exit::Ok)
}

async fn request(args: GetArgs, server: &ApiClient) -> Result<pb::ExchangeRequest, CliError> {
    let Chosen { scopes, kind, life } = chosen(&args, server).await?;
    let task = match args.task {
        Some(id) => Task::TaskId(id),
        None => Task::OpenTask(pb::TaskTerms {
            purpose: args.purpose.clone().unwrap_or_default(),
            upstreams: vec![pb::Allowance { upstream: args.upstream.clone(), scopes: scopes.clone() }],
            tools: args.tool.iter().cloned().collect(),
            // A task that serves one credential gets the lifetime of that credential, so that policies bound both alike.
            ttl: args.task_ttl.or(args.ttl).map(wire_duration).or(life),
            ..pb::TaskTerms::default()
        }),
    };
    Ok(pb::ExchangeRequest {
        task: Some(task),
        upstream: args.upstream,
        scopes,
        kind: kind.into(),
        ttl: args.ttl.map(wire_duration),
        tool: args.tool.unwrap_or_default(),
        purpose: args.purpose.unwrap_or_default(),
        key_binding: args.bind_svid.then(|| pb::KeyBinding { key: Some(Key::CallerSvid(pb::CallerSvid {})) }),
        binding: args.binding.unwrap_or_default(),
        wait_for_approval: args.wait_for_approval.map(wire_duration),
        ..pb::ExchangeRequest::default()
    })
}

/// The parts of a request that the upstream's registration supplies if the command line omits them.
struct Chosen {
    scopes: Vec<String>,
    kind: pb::CredentialKind,
    /// The default lifetime of a credential. `None` if the registration was not needed.
    life: Option<prost_types::Duration>,
}

/// Takes scopes and kind from the command line, or else the registration's first scope that is not sensitive and its first kind.
async fn chosen(args: &GetArgs, server: &ApiClient) -> Result<Chosen, CliError> {
    let life_is_known = args.task.is_some() || args.task_ttl.is_some() || args.ttl.is_some();
    if let (false, Some(kind), true) = (args.scope.is_empty(), args.kind, life_is_known) {
        return Ok(Chosen { scopes: args.scope.clone(), kind, life: None });
    }
    let upstream = match terms::registration(server, &args.upstream).await {
        Ok(upstream) => upstream,
        // Only the lifetime is missing, and the server has a default. A caller that may not see the registration gets its reason from the
        // exchange.
        Err(error) if error.reason() == Some(Reason::NotFound) => match args.kind {
            Some(kind) if !args.scope.is_empty() => return Ok(Chosen { scopes: args.scope.clone(), kind, life: None }),
            _ => return Err(error),
        },
        Err(error) => return Err(error),
    };
    let kind = args.kind.or(upstream.kinds().next()).unwrap_or_default();
    let life = upstream.default_ttl;
    if !args.scope.is_empty() {
        return Ok(Chosen { scopes: args.scope.clone(), kind, life });
    }
    let within = match &args.task {
        Some(id) => {
            let terms = task::get(server, id).await?.terms.unwrap_or_default();
            terms.upstreams.into_iter().find(|a| a.upstream == args.upstream).map(|a| a.scopes)
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
        if !text.ends_with('\n') {
            text.push('\n');
        }
        Ok(text)
    }
}

fn json(issued: &IssuedView) -> Result<Zeroizing<String>, CliError> {
    // The capacity covers the largest credential: a growing buffer would leave copies of the secret in memory.
    let mut text = Zeroizing::new(Vec::with_capacity(64 * 1024));
    serde_json::to_writer_pretty(&mut *text, issued).map_err(CliError::ours)?;
    let text = std::str::from_utf8(&text).map_err(CliError::ours)?;
    Ok(Zeroizing::new(escape::json(text).into_owned()))
}

fn print_issued(run: &CommandContext, issued: &IssuedView, opened: bool) {
    let bound = issued.about.json().text_at("bound");
    let issued = &issued.about.0;
    let until = time(issued.expires_at).unwrap_or_else(|| "-".to_owned());
    let by = if issued.bound_by.is_empty() { &bound } else { &issued.bound_by };
    let (id, upstream, scopes) = (&issued.credential_id, &issued.upstream, issued.scopes.join(", "));
    run.out.say(format_args!("{id} for {upstream} ({scopes}) until {until}, bounded by: {by}"));
    if opened {
        run.out.say(format_args!("its task is {0}; when the work is done: mayfly task complete {0}", issued.task_id));
    }
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
