//! Log lines on stderr. What is in them is never a secret: those have no text form.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

pub use crate::sources::config::LogFormat as Format;

/// What is logged where nobody says it. sled's own words are left out: what matters of them comes as an error, and it calls its self-test one.
const USUAL: &str = "info,sled=off";

/// Logs from here on. `MAYFLY_LOG` says how much, like `info,mayfly::serve=debug`. Without a form: text on a terminal, else JSON.
///
/// A second call changes nothing: tests start several servers in one process.
pub fn init(format: Option<Format>) {
    let filter = EnvFilter::try_from_env("MAYFLY_LOG").unwrap_or_else(|_| EnvFilter::new(USUAL));
    let format = format.unwrap_or(if std::io::stderr().is_terminal() { Format::Text } else { Format::Json });
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let _ = match format {
        Format::Json => builder.json().flatten_event(true).try_init(),
        Format::Text => builder.with_ansi(std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none()).try_init(),
    };
}
