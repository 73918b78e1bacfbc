//! `[metrics]`, `[traces]` and `[log]`: the data that the server reports about its calls, and the receivers of the data.

use std::path::{Path, PathBuf};

use tracing_subscriber::EnvFilter;

use super::export::Collector;
use super::form::{KeyDefault, ValueForm};
use super::keys::{ConfigKey, key};
use super::values::{Conflict, Values};
use mayfly_base::document::nearest;
use mayfly_base::document::url::WebUrl;
use mayfly_base::limits;

pub(super) const OTLP: ConfigKey = key(
    "traces.otlp",
    ValueForm::Name,
    KeyDefault::Absent("no traces"),
    "The OpenTelemetry collector that gets traces: `https://HOST/v1/traces`, or http on this host. docs/traces.md describes the traces.",
);
pub(super) const CA: ConfigKey = key(
    "traces.ca",
    ValueForm::Path,
    KeyDefault::Absent("those of the system"),
    "The root certificates for the certificate of the traces' collector, PEM.",
);
pub(super) const RATIO: ConfigKey = key(
    "traces.ratio",
    ValueForm::Ratio,
    KeyDefault::Is("0.01"),
    "The share of calls without a `traceparent` that is traced. For a call with a `traceparent`, its sampled flag decides instead.",
);
pub(super) const PER_SECOND: ConfigKey = key(
    "traces.per_second",
    ValueForm::Number(1, limits::TRACES_PER_SECOND as u64),
    KeyDefault::Is("100"),
    "The maximum number of calls per second that are traced because of their `traceparent`; the same maximum applies separately to sampled calls. Calls beyond it are counted and not traced.",
);
pub(super) const FORMAT: ConfigKey = key(
    "log.format",
    ValueForm::Name,
    KeyDefault::Absent("`text` on a terminal, else `json`"),
    "The format of log lines on stderr: `json` (one object per line) or `text`. `--log` overrides this key.",
);
pub(super) const LEVEL: ConfigKey = key(
    "log.level",
    ValueForm::Text("`off`, `error`, `warn`, `info`, `debug` or `trace`, also for one module"),
    KeyDefault::Is("\"info\""),
    "The levels of the log lines that are written, like `info` or `info,mayfly_api=debug`. The variable `MAYFLY_LOG` overrides this key.",
);
pub(super) const CALLS: ConfigKey = key(
    "log.calls",
    ValueForm::Flag,
    KeyDefault::Is("false"),
    "Whether the server logs a line for each call and each exchange on a stream, with ids, status and reason. Each line costs a few allocations and a write to stderr.",
);

pub(super) const METRICS_TLS: ConfigKey = key(
    "metrics.tls",
    ValueForm::Flag,
    KeyDefault::Is("false"),
    "Whether `listen.metrics` uses HTTPS, with the certificate of the public listener. An address that is not loopback requires this key, `metrics.token_file` or both.",
);
pub(super) const METRICS_TOKEN: ConfigKey = key(
    "metrics.token_file",
    ValueForm::Path,
    KeyDefault::Absent("no token"),
    "The file of the bearer token that a scraper of `listen.metrics` must send: at least 16 visible ASCII characters, not readable by other users. The server reads the file again when it changes.",
);

/// `[metrics]`: how access to `listen.metrics` is restricted.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct MetricsConfig {
    /// Whether the listener uses HTTPS.
    pub tls: bool,
    /// The file of the bearer token that a scraper must send.
    pub token_file: Option<PathBuf>,
}

/// Reads `[metrics]`. Metrics have names of upstreams, webhooks and trust domains, so a listener on an address that is not loopback must
/// require a token, HTTPS, or both.
pub(super) fn metrics(values: &Values, base: &Path, conflict: &mut Conflict<'_>) -> Option<MetricsConfig> {
    const LISTEN: &str = "listen.metrics";
    let metrics = MetricsConfig { tls: values.flag(METRICS_TLS.path)?, token_file: values.path(METRICS_TOKEN.path, base) };
    match values.address(LISTEN) {
        None => {
            for (key, set) in [(METRICS_TLS.path, metrics.tls), (METRICS_TOKEN.path, metrics.token_file.is_some())] {
                if set {
                    conflict(key, &format!("{key} is set, and listen.metrics is not"), "set listen.metrics, or leave this out");
                }
            }
        }
        Some(address) if !address.ip().is_loopback() && metrics == MetricsConfig::default() => {
            let what =
                format!("listen.metrics is {address}, no loopback address, and has neither metrics.tls nor metrics.token_file");
            let remedy = "set metrics.tls = true (HTTPS) or metrics.token_file = PATH (a bearer token), or both; or listen on 127.0.0.1:PORT or \
                          [::1]:PORT";
            conflict(LISTEN, &what, remedy);
        }
        Some(_) => {}
    }
    Some(metrics)
}

/// `[traces]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceConfig {
    /// The collector of the traces.
    pub to: Collector,
    /// The number of traced calls per million calls whose callers send no trace context.
    pub per_million: u64,
    /// Most traced calls per second.
    pub per_second: u64,
}

/// The form of log lines.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum LogFormat {
    /// One JSON object per line.
    Json,
    /// Text for people.
    Text,
}

/// `[log]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// `None`: chosen by the kind of stderr.
    pub format: Option<LogFormat>,
    /// The filter of log lines.
    pub level: String,
    /// Whether each call has a line.
    pub calls: bool,
}

/// The levels of log lines.
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// The crates of mayfly, which are the targets of its log lines. `mayfly` stands for all of them, and for the line of each call.
const OWN: [&str; 16] = [
    "mayfly",
    "mayfly_api",
    "mayfly_authority",
    "mayfly_base",
    "mayfly_bench",
    "mayfly_cli",
    "mayfly_client",
    "mayfly_config",
    "mayfly_credential",
    "mayfly_identity",
    "mayfly_ledger",
    "mayfly_policy",
    "mayfly_proto",
    "mayfly_server",
    "mayfly_store",
    "mayfly_verify",
];

/// A part of a filter that names a module as it was called when mayfly was one crate (`mayfly::serve=debug`), with the crate in which that
/// module is now. The line of each call has the target `mayfly::call`.
fn with_crate(part: &str) -> Result<String, String> {
    let Some(rest) = part.strip_prefix("mayfly::") else { return Ok(part.to_owned()) };
    let end = rest.find(['[', '=']).unwrap_or(rest.len());
    let module = rest[..end].split(':').next().unwrap_or_default();
    let own = match module {
        "call" => return Ok(part.to_owned()),
        "serve" => "api",
        "sources" => "config",
        "sealing" => "store",
        "upstream" => "credential",
        "revocation" => "ledger",
        "bounded_file" | "document" | "limits" | "log_queue" | "refusal" | "system" | "trace" | "whole_file" => "base",
        "approvals" | "audit" | "audit_reads" | "authority" | "break_glass" | "feed" | "heartbeats" | "keys" | "tasks"
        | "uses" => "authority",
        same @ ("cli" | "credential" | "identity" | "ledger" | "policy" | "server" | "store") => same,
        _ => return Err(format!("no module is called {:?}; the crates are {}", format!("mayfly::{module}"), OWN.join(", "))),
    };
    Ok(format!("mayfly_{own}{}", &rest[end..]))
}

/// Checks one part of a filter: `LEVEL` or `MODULE=LEVEL`. `EnvFilter` takes a word that is no level as the name of a module and then
/// writes no other line, so a mistyped level would silence the log.
fn directive(part: &str) -> Result<(), String> {
    let (module, level) = match part.rsplit_once('=') {
        Some((module, level)) => (Some(module.trim()), level.trim()),
        None => (None, part),
    };
    let own = module.map(|module| module.split(['[', ':']).next().unwrap_or_default());
    if !LEVELS.iter().any(|known| known.eq_ignore_ascii_case(level)) {
        let near = nearest(&level.to_ascii_lowercase(), LEVELS).map(|near| format!("; did you mean {near}?"));
        return Err(format!("{level:?} is no level ({}){}", LEVELS.join(", "), near.unwrap_or_default()));
    }
    match own {
        None => Ok(()),
        Some(own) if !own.chars().all(|c| c.is_ascii_alphanumeric() || "_-".contains(c)) => {
            Err(format!("{own:?} is no name of a module: parts are separated by commas"))
        }
        Some(own) if OWN.contains(&own) => Ok(()),
        Some(own) => match nearest(own, OWN) {
            Some(near) => Err(format!("no module is called {own:?}; did you mean {near}?")),
            None => Ok(()),
        },
    }
}

/// A filter of log lines, or the error in its text. Lines of sled are left out: its important problems are returned as errors, and it logs
/// its self-test as an error.
pub fn log_filter(text: &str) -> Result<EnvFilter, String> {
    if text.trim().is_empty() {
        return Err("it is empty".to_owned());
    }
    let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(with_crate).collect::<Result<Vec<_>, _>>()?;
    parts.iter().try_for_each(|part| directive(part))?;
    EnvFilter::try_new(format!("sled=off,{}", parts.join(","))).map_err(|e| format!("{text:?} is not one: {e}"))
}

/// The settings of traces, if `traces.otlp` is set.
pub(super) fn traces(values: &Values, base: &Path, conflict: &mut Conflict<'_>) -> Option<TraceConfig> {
    let ca = values.path(CA.path, base);
    let Some(text) = values.text(OTLP.path) else {
        if ca.is_some() {
            conflict(CA.path, "traces.ca is set, and traces.otlp is not", "it is for that alone: leave it out");
        }
        return None;
    };
    let Some(url) = WebUrl::parse(&text) else {
        let what = "traces.otlp is not of the form https://HOST/v1/traces (http on this host only)";
        conflict(OTLP.path, what, "write it in that form");
        return None;
    };
    let (per_million, per_second) = (values.number(RATIO.path)?, values.number(PER_SECOND.path)?);
    Some(TraceConfig { to: Collector { url, ca }, per_million, per_second })
}

pub(super) fn log(values: &Values, conflict: &mut Conflict<'_>) -> Option<LogConfig> {
    let format = match values.text(FORMAT.path).as_deref() {
        None => None,
        Some("json") => Some(LogFormat::Json),
        Some("text") => Some(LogFormat::Text),
        Some(other) => {
            conflict(FORMAT.path, &format!("log.format is {other:?}"), "json or text");
            None
        }
    };
    let level = values.text(LEVEL.path)?;
    if let Err(problem) = log_filter(&level) {
        conflict(
            LEVEL.path,
            &format!("log.level: {problem}"),
            "a level like info, or levels of modules like info,mayfly_api=debug",
        );
    }
    Some(LogConfig { format, level, calls: values.flag(CALLS.path)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistyped_level_is_refused_and_the_nearest_one_is_named() {
        for right in ["info", "WARN", "off", "info,mayfly_api=debug", "warn, h2=info,mayfly[call]=trace", "mayfly=debug"] {
            assert!(log_filter(right).is_ok(), "{right}");
        }
        for (former, now) in
            [("mayfly::serve=debug", "mayfly_api=debug"), ("mayfly::ledger::writer=trace", "mayfly_ledger=trace")]
        {
            assert!(log_filter(former).unwrap().to_string().contains(now), "{former}");
        }
        for (wrong, said) in [
            ("warning", "did you mean warn?"),
            ("verbose", "is no level"),
            ("warn,debgu", "did you mean debug?"),
            ("info;debug", "is no level"),
            ("é", "is no level"),
            ("mayfly::legder=debug", "no module is called \"mayfly::legder\""),
            ("mayfly::calls=debug", "no module is called \"mayfly::calls\""),
            ("mayfly_apo=debug", "did you mean mayfly_api?"),
            ("mayfly", "is no level"),
            ("mayfly=", "is no level"),
            ("mayfly=warning", "did you mean warn?"),
            ("info;mayfly=debug", "separated by commas"),
            ("mayfyl=debug", "did you mean mayfly?"),
            (" ", "is empty"),
        ] {
            let no = log_filter(wrong).unwrap_err();
            assert!(no.contains(said), "{wrong}: {no}");
        }
    }
}
