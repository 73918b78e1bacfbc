//! The errors of commands, and how they are printed.

use std::time::Duration;

use serde::Serialize;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use super::args::duration_text;
use super::exit::Exit;
use super::out::escape;
use super::remedy;
use mayfly_base::document::with_key;
use mayfly_base::refusal::{NO_OPERATORS_HERE, Reason};
use mayfly_proto::mayfly::v1 as pb;

/// Every reason for which a command can fail.
#[derive(Debug)]
pub enum CliError {
    /// The command line, or a file that it names, is wrong. The server was not called.
    Usage(String),
    /// A failure on this machine: a file, stdout, or an answer that cannot be interpreted.
    Local(String),
    /// A failure on this machine with an exit code of its own.
    LocalAs(String, Exit),
    /// The server cannot be reached.
    Unreachable {
        /// The address that was tried.
        address: String,
        /// The cause.
        what: String,
    },
    /// The server was reached, but one of the two sides did not accept the other.
    Handshake {
        /// The address of the server.
        address: String,
        /// The cause.
        what: String,
    },
    /// No answer came before the deadline. The request may have been carried out.
    Late(Duration),
    /// The server answered with a refusal or a fault.
    Server(Box<ServerError>),
    /// The server ended a stream.
    Ended,
    /// The command did part of the work. The rest was already printed.
    Partly(String),
    /// The reader of stdout closed the pipe. Nothing is printed.
    PipeClosed,
}

/// A gRPC status and its decoded details.
#[derive(Debug)]
pub struct ServerError {
    /// The gRPC code.
    pub code: Code,
    /// The reason from the closed list; `None` for a fault.
    pub reason: Option<Reason>,
    /// The reason as the server sent it, including reasons that this version does not know.
    pub reason_text: String,
    /// The message for people.
    pub message: String,
    /// The rule that refused the request.
    pub rule: Option<String>,
    /// The person or role that can lift the refusal, and how.
    pub way_out: Option<String>,
    /// The invalid fields: path and error.
    pub fields: Vec<(String, String)>,
    /// When to try again.
    pub retry_after: Option<Duration>,
    /// The id of the approval that is waited for.
    pub approval: Option<String>,
}

impl ServerError {
    /// Decodes the details of a status. Details of a domain other than mayfly's give no reason.
    pub fn from_status(status: &Status) -> ServerError {
        let details = status.get_error_details();
        let info = details.error_info().filter(|i| i.domain == "mayfly.dev");
        let reason_text = info.map(|i| i.reason.clone()).unwrap_or_default();
        let reason = Reason::ALL.iter().copied().find(|r| r.as_str() == reason_text);
        let of = |key: &str| info.and_then(|i| i.metadata.get(key)).filter(|v| !v.is_empty()).cloned();
        let fallback = reason.map(remedy::remedy_for);
        let fields = details.bad_request().map(|b| b.field_violations.clone()).unwrap_or_default();
        ServerError {
            code: status.code(),
            reason,
            reason_text,
            message: status.message().to_owned(),
            rule: of("rule").or_else(|| fallback.as_ref().map(|f| f.rule.to_owned())),
            way_out: of("way_out").or_else(|| fallback.as_ref().map(|f| f.way_out.to_owned())),
            fields: fields.into_iter().map(|v| (v.field, v.description)).collect(),
            retry_after: details.retry_info().and_then(|r| r.retry_delay),
            approval: of("approval_id"),
        }
    }

    /// Builds the error of a refusal that was not reported over gRPC.
    fn of_reason(reason_text: &str, message: String, rule: String, way_out: String) -> ServerError {
        let reason = Reason::ALL.iter().copied().find(|r| r.as_str() == reason_text);
        let fallback = reason.map(remedy::remedy_for);
        let some = |text: String| Some(text).filter(|t| !t.is_empty());
        ServerError {
            code: reason.map_or(Code::Unknown, |r| Code::from_i32(r.code() as i32)),
            reason,
            reason_text: reason_text.to_owned(),
            message,
            rule: some(rule).or_else(|| fallback.as_ref().map(|f| f.rule.to_owned())),
            way_out: some(way_out).or_else(|| fallback.as_ref().map(|f| f.way_out.to_owned())),
            fields: Vec::new(),
            retry_after: None,
            approval: None,
        }
    }

    /// Builds the error of one item of a batch.
    pub fn from_problem(problem: pb::Problem) -> ServerError {
        ServerError {
            code: Code::from_i32(problem.code),
            fields: problem.field_violations.into_iter().map(|v| (v.field, v.description)).collect(),
            retry_after: problem.retry_after.and_then(|d| std::time::Duration::try_from(d).ok()),
            ..ServerError::of_reason(&problem.reason, problem.message, problem.rule, problem.way_out)
        }
    }

    fn exit(&self) -> Exit {
        // The workload listener answers that a service for operators is not served there, and for other operators' calls that the caller is
        // not known as an operator. For whoever called the wrong listener, both are the same.
        if self.rule.as_deref() == Some(NO_OPERATORS_HERE) {
            return Exit::NotAuthenticated;
        }
        self.reason.map_or_else(|| Exit::of_code(self.code), Exit::of_reason)
    }
}

/// The JSON form of an error, for `-o json`.
#[derive(Serialize)]
struct ErrorView<'a> {
    kind: &'static str,
    exit_code: u8,
    message: String,
    #[serde(skip_serializing_if = "str::is_empty")]
    reason: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    way_out: Option<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    fields: Vec<ErrorFieldView<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_ms: Option<u128>,
}

#[derive(Serialize)]
struct ErrorFieldView<'a> {
    field: &'a str,
    description: &'a str,
}

impl CliError {
    /// A defect of this program.
    pub fn ours(what: impl std::fmt::Display) -> CliError {
        CliError::Local(what.to_string())
    }

    /// A refusal of the server that was not reported over gRPC.
    pub fn of_reason(reason: &str, message: String, rule: String, way_out: String) -> CliError {
        CliError::Server(Box::new(ServerError::of_reason(reason, message, rule, way_out)))
    }

    /// The reason of the refusal, if the server gave one.
    pub fn reason(&self) -> Option<Reason> {
        match self {
            CliError::Server(said) => said.reason,
            _ => None,
        }
    }

    /// Names the upstream of an exchange where the server named its place in the batch.
    pub fn of_upstreams(self, upstreams: &[String]) -> CliError {
        let CliError::Server(mut said) = self else { return self };
        for (n, upstream) in upstreams.iter().enumerate() {
            let place = format!("exchanges[{n}]");
            if let Some(rest) = said.message.strip_prefix(&place) {
                said.message = format!("{upstream}{rest}");
            }
            for (field, _) in &mut said.fields {
                if let Some(rest) = field.strip_prefix(&place) {
                    *field = format!("{upstream}{rest}");
                }
            }
        }
        CliError::Server(said)
    }

    /// The exit code of the process.
    pub fn exit(&self) -> Exit {
        match self {
            CliError::Usage(_) => Exit::Usage,
            CliError::Local(_) => Exit::Error,
            CliError::LocalAs(_, exit) => *exit,
            CliError::Unreachable { .. } | CliError::Late(_) | CliError::Ended => Exit::TryAgain,
            CliError::Handshake { .. } => Exit::NotAuthenticated,
            CliError::Server(said) => said.exit(),
            CliError::Partly(_) => Exit::Partly,
            CliError::PipeClosed => Exit::Ok,
        }
    }

    fn kind(&self) -> &'static str {
        match self {
            CliError::Usage(_) => "usage",
            CliError::Local(_) | CliError::LocalAs(..) => "local",
            CliError::Unreachable { .. } => "unreachable",
            CliError::Handshake { .. } => "handshake",
            CliError::Late(_) => "late",
            CliError::Ended => "ended",
            // The deadlines of server and client end together. A server that reports its deadline as exceeded has not refused; the request
            // may have been carried out.
            CliError::Server(said) if said.reason == Some(Reason::DeadlineExceeded) => "late",
            CliError::Server(said) if said.reason.is_some() || !said.reason_text.is_empty() => "refusal",
            CliError::Server(_) => "fault",
            CliError::Partly(_) => "partly",
            CliError::PipeClosed => "pipe_closed",
        }
    }

    fn message(&self) -> String {
        match self {
            CliError::Usage(text) | CliError::Local(text) | CliError::LocalAs(text, _) | CliError::Partly(text) => text.clone(),
            CliError::Unreachable { address, what } => {
                format!("no server at {address}: {what}; check --address, and that the server runs")
            }
            CliError::Handshake { address, what } => format!(
                "{address}: {what}; check --svid, --bundle and --server-id, and yours with `mayfly svid check --bundle FILE --trust-domain NAME CHAIN.pem`"
            ),
            CliError::Late(after) => {
                format!(
                    "no answer within {}; it may have been done all the same: look before you repeat it",
                    duration_text(*after)
                )
            }
            CliError::Ended => "the server ended the stream".to_owned(),
            CliError::Server(said) if said.message.is_empty() => format!("the server answered {:?}", said.code),
            CliError::Server(said) => said.message.clone(),
            CliError::PipeClosed => String::new(),
        }
    }

    /// The text for people: what was refused, the rule, and who can lift the refusal and how. Every line ends with a line feed.
    pub fn words(&self, color: bool) -> String {
        if matches!(self, CliError::PipeClosed) {
            return String::new();
        }
        let (on, off) = if color { ("\x1b[31m", "\x1b[0m") } else { ("", "") };
        let label = match self.kind() {
            "refusal" => "refused",
            "partly" => "partly done",
            _ => "error",
        };
        let message = self.message();
        let CliError::Server(said) = self else {
            // Messages of this program may have several lines; the server's text must not.
            let lines: Vec<_> = message.lines().map(escape::for_terminal).collect();
            return format!("{on}{label}:{off} {}\n", lines.join("\n"));
        };
        let mut out = format!("{on}{label}:{off} {}", escape::for_terminal(&message));
        if !said.reason_text.is_empty() {
            out.push_str(&format!(" [{}]", escape::for_terminal(&said.reason_text)));
        }
        out.push('\n');
        let mut line = |label: &str, text: &str| out.push_str(&format!("  {label:<10} {}\n", escape::for_terminal(text)));
        for (field, what) in &said.fields {
            line("field", &with_key(field, what));
        }
        if let Some(rule) = &said.rule {
            line("rule", rule);
        }
        if let Some(way_out) = &said.way_out {
            line("way out", way_out);
        }
        if let Some(after) = said.retry_after {
            line("try again", &format!("in {}", duration_text(after)));
        }
        out
    }

    /// The text for programs: one JSON object on one line.
    pub fn json(&self) -> String {
        if matches!(self, CliError::PipeClosed) {
            return String::new();
        }
        let said = match self {
            CliError::Server(said) => Some(said),
            _ => None,
        };
        let fields = said.map_or(&[][..], |s| &s.fields);
        let told = ErrorView {
            kind: self.kind(),
            exit_code: self.exit().code(),
            message: self.message(),
            reason: said.map_or("", |s| &s.reason_text),
            rule: said.and_then(|s| s.rule.as_deref()),
            way_out: said.and_then(|s| s.way_out.as_deref()),
            fields: fields.iter().map(|(field, description)| ErrorFieldView { field, description }).collect(),
            retry_after_ms: said.and_then(|s| s.retry_after).map(|d| d.as_millis()),
        };
        let text = serde_json::json!({ "error": told }).to_string();
        format!("{}\n", escape::json(&text))
    }
}
