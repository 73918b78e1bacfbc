//! Log lines on stderr, including panics. Log lines never contain a secret: secret types have no text form.
//!
//! Lines go through [`log_queue`]: a thread that logs never waits for the reader of stderr, and a failed write ends nothing.

use std::io::IsTerminal;
use std::panic::PanicHookInfo;
use std::sync::OnceLock;

use tracing_subscriber::EnvFilter;

pub use mayfly_config::config::LogFormat as Format;

use mayfly_base::log_queue::{self, StderrWriter};
use mayfly_config::config::log_filter;

/// Replaces the filter of log lines.
type SetFilter = Box<dyn Fn(EnvFilter) -> Result<(), String> + Send + Sync>;

static FILTER: OnceLock<SetFilter> = OnceLock::new();

/// The environment variable that overrides the configured filter of log lines.
const VARIABLE: &str = "MAYFLY_LOG";

/// From here on stderr blocks no thread, and a panic is a log line. For processes that serve; called first.
pub fn begin() {
    log_queue::begin(|lines| tracing::warn!(lines, "log lines were dropped: nobody read stderr, or its disk was full"));
    std::panic::set_hook(Box::new(panicked));
}

/// Logs the text that `std` prints for a panic. Before there is a subscriber the text goes to stderr.
fn panicked(info: &PanicHookInfo<'_>) {
    let at = info.location().map(ToString::to_string).unwrap_or_default();
    let message = info.payload_as_str().unwrap_or("no message");
    let thread = std::thread::current();
    let thread = thread.name().unwrap_or("unnamed");
    let backtrace = std::backtrace::Backtrace::capture();
    let backtrace = match backtrace.status() {
        std::backtrace::BacktraceStatus::Captured => backtrace.to_string(),
        _ => "RUST_BACKTRACE=1 shows it".to_owned(),
    };
    if tracing::enabled!(tracing::Level::ERROR) {
        tracing::error!(thread, at, panic = message, backtrace, "a thread panicked, which is a bug in mayfly");
    } else {
        log_queue::write(format!("thread {thread} panicked at {at}: {message}\n{backtrace}\n").as_bytes());
    }
}

/// Starts logging. `level`: the filter from `log.level`, which `MAYFLY_LOG` overrides. Without a format: text on a terminal, else JSON.
///
/// A second call has no effect: tests start several servers in one process.
pub fn init(format: Option<Format>, level: &str) {
    begin();
    let variable = std::env::var(VARIABLE).ok();
    let (asked, wrong) = match variable.as_deref().map(log_filter) {
        Some(Ok(filter)) => (Some(filter), None),
        Some(Err(problem)) => (None, Some(problem)),
        None => (None, None),
    };
    let filter = asked.unwrap_or_else(|| log_filter(level).unwrap_or_default());
    let format = format.unwrap_or(if std::io::stderr().is_terminal() { Format::Text } else { Format::Json });
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(StderrWriter::default);
    // For a line that cannot be formatted, tracing would use a macro that panics if stderr is closed.
    let builder = builder.log_internal_errors(false);
    let begun = match format {
        Format::Json => {
            let builder = builder.json().flatten_event(true).with_filter_reloading();
            let handle = builder.reload_handle();
            let set: SetFilter = Box::new(move |filter| handle.reload(filter).map_err(|e| e.to_string()));
            builder.try_init().is_ok().then_some(set)
        }
        Format::Text => {
            let colored = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
            let builder = builder.with_ansi(colored).with_filter_reloading();
            let handle = builder.reload_handle();
            let set: SetFilter = Box::new(move |filter| handle.reload(filter).map_err(|e| e.to_string()));
            builder.try_init().is_ok().then_some(set)
        }
    };
    if let Some(set) = begun {
        let _ = FILTER.set(set);
    }
    if let Some(problem) = wrong {
        tracing::warn!(problem, "MAYFLY_LOG is not a valid log filter and is ignored; log.level applies");
    }
}

/// Applies another `log.level`. An error says why the previous one stays.
pub fn set_level(level: &str) -> Result<(), String> {
    if std::env::var(VARIABLE).is_ok_and(|text| log_filter(&text).is_ok()) {
        return Err(format!("{VARIABLE} is set in the environment of this process and counts before log.level"));
    }
    let set = FILTER.get().ok_or("this process has no log of its own")?;
    set(log_filter(level)?)
}
