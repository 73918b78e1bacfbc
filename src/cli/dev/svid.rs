//! `mayfly dev svid NAME`: creates an SVID of the dev trust domain for a workload, with the settings files that the command line and the
//! clients need to use it.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::files::write_private;
use super::world::{DevWorld, DevWorldError, is_world};
use super::{DirArgs, no_dir, no_world};
use crate::error::CliError;
use crate::exit::Exit;
use crate::out::{Format, Out, Printable};
use mayfly_base::document::remedy::shell_quoted;

/// Arguments of `mayfly dev svid`.
#[derive(Args)]
pub struct SvidArgs {
    /// Path of the SPIFFE ID in the dev trust domain, like mcp/notes; the first segment (agent, mcp, ci, service, operator) selects the
    /// sample role
    #[arg(value_name = "NAME")]
    name: String,
    /// DNS name in the SVID, for a workload that serves TLS; can be repeated
    #[arg(long, value_name = "NAME", value_parser = dns_name)]
    dns: Vec<String>,
    #[command(flatten)]
    at: DirArgs,
}

/// Parses a DNS name of a certificate (RFC 1123, with underscores; `*` may be the first label).
fn dns_name(text: &str) -> Result<String, String> {
    let word = |label: &str| label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    let label = |label: &str| (1..=63).contains(&label.len()) && word(label) && !label.starts_with('-') && !label.ends_with('-');
    let name = text.strip_prefix("*.").unwrap_or(text);
    let right = (1..=253).contains(&text.len()) && name.split('.').all(label) && text.parse::<std::net::IpAddr>().is_err();
    if right {
        return Ok(text.to_owned());
    }
    Err(format!(
        "{text:?} is no DNS name: expected labels of 1 to 63 letters, digits, hyphens or underscores between dots, like notes.internal; no IP \
         address, port or URL"
    ))
}

/// The files of an SVID, as JSON output.
#[derive(Serialize)]
struct CreatedSvid {
    spiffe_id: String,
    svid: PathBuf,
    key: PathBuf,
    bundle: PathBuf,
    /// The context file for `mayfly --config FILE`. `None` if no server runs.
    config: Option<PathBuf>,
    /// The same settings as variables, for programs that read a `.env` file. `None` if no server runs.
    env: Option<PathBuf>,
}

impl Printable for CreatedSvid {
    fn name(&self) -> String {
        self.spiffe_id.clone()
    }
}

/// Runs the command.
pub(super) fn run(args: &SvidArgs, out: Out) -> Result<Exit, CliError> {
    let dir = args.at.dir().ok_or_else(no_dir)?;
    if !is_world(&dir) {
        return Err(no_world(&dir));
    }
    let world = DevWorld::open(&dir)?;
    let name = DevWorld::workload_name(&args.name).map_err(CliError::Usage)?;
    let paths = world.issue_named(name, &args.dns)?;
    let mut made = CreatedSvid {
        spiffe_id: DevWorld::id(name),
        svid: paths.certificate,
        key: paths.key,
        bundle: world.bundle(),
        config: None,
        env: None,
    };
    if let Some(addresses) = DevWorld::addresses(world.dir()) {
        // Operators have a listener of their own.
        let address = if name.starts_with("operator/") { addresses.admin } else { addresses.workload };
        made.config = Some(world.write_context(name, address)?);
        made.env = Some(write_env(&world, &made, name, address)?);
    }
    out.say(format_args!("{}: the SVID is renewed for as long as the dev server runs", made.spiffe_id));
    match (&made.config, &made.env) {
        (Some(config), Some(env)) => {
            out.say(format_args!("  command line: mayfly --config {} whoami", shell_quoted(config)));
            out.say(format_args!("  programs:     set -a; . {}; set +a", shell_quoted(env)));
        }
        _ => out.say(format_args!(
            "  no dev server runs: start it, then repeat this command for its addresses: mayfly dev up --dir {}",
            shell_quoted(&dir)
        )),
    }
    if !matches!(out.format(), Format::Table | Format::Wide) {
        out.one(&made)?;
    }
    Ok(Exit::Ok)
}

/// Writes the environment variables that the command line and the clients of all languages read.
fn write_env(world: &DevWorld, made: &CreatedSvid, name: &str, address: std::net::SocketAddr) -> Result<PathBuf, DevWorldError> {
    let path = world.dir().join(format!("{}.env", name.replace('/', "-")));
    let variables = [
        ("MAYFLY_ADDRESS", format!("https://{address}")),
        ("MAYFLY_SVID", made.svid.display().to_string()),
        ("MAYFLY_KEY", made.key.display().to_string()),
        ("MAYFLY_BUNDLE", made.bundle.display().to_string()),
        ("MAYFLY_SERVER_ID", DevWorld::id(super::SERVER)),
    ];
    let quoted = |value: &str| format!("'{}'", value.replace('\'', r"'\''"));
    let text: String = variables.iter().map(|(name, value)| format!("{name}={}\n", quoted(value))).collect();
    write_private(&path, text.as_bytes())?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dns_name_is_one_that_a_certificate_can_have() {
        let (label, long) = ("a".repeat(63), "a.".repeat(126) + "aa");
        for right in ["localhost", "notes.internal", "a-1.b_2.example", "*.example.org", label.as_str()] {
            assert_eq!(dns_name(right).as_deref(), Ok(right));
        }
        for wrong in [
            "",
            "bad host",
            "a..b",
            ".a",
            "a.",
            "-a",
            "a-",
            "*",
            "b.*",
            "127.0.0.1",
            "::1",
            "a:80",
            "http://a",
            "bücher",
            long.as_str(),
        ] {
            assert!(dns_name(wrong).unwrap_err().contains("is no DNS name: expected labels"), "{wrong}");
        }
    }
}
