//! `mayfly svid fetch`: writes an X.509-SVID, its key and the bundle from the SPIFFE Workload API to files, again at each rotation with
//! `--watch`.
//!
//! The server and this command line reload the files when they change, so nothing has to be signalled or restarted at a rotation.

use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;
use mayfly_client::agent::{Endpoint, x509_svids};
use mayfly_client::pb::workload::X509SvidResponse;
use serde::Serialize;
use tonic::{Code, Status};
use zeroize::Zeroizing;

use super::CommandContext;
use super::error::CliError;
use super::exit::Exit;
use super::out::Printable;
use mayfly_base::atomic_file::{self, PRIVATE, may_be_replaced};
use mayfly_base::backoff::Backoff;
use mayfly_base::bounded_file;
use mayfly_base::system::System;
use mayfly_config::svid_files::TlsIdentity;
use mayfly_identity::spiffe_id::SpiffeId;

/// The wait between two attempts while the agent is unreachable, milliseconds, without jitter.
const PAUSE_MS: u64 = 2_000;

/// Arguments of `mayfly svid fetch`.
#[derive(Args)]
pub struct FetchArgs {
    /// Folder for svid.pem, key.pem and bundle.pem; each file is replaced atomically and readable by its owner only
    #[arg(long, value_name = "FOLDER")]
    to: PathBuf,
    /// Socket of the SPIFFE agent: unix:/PATH or tcp:ADDRESS:PORT
    #[arg(long, value_name = "ENDPOINT", env = "SPIFFE_ENDPOINT_SOCKET", hide_env_values = true)]
    socket: String,
    /// SPIFFE ID to fetch, if the agent has several for this workload [default: its first]
    #[arg(long, value_name = "SPIFFE_ID")]
    id: Option<String>,
    /// Keep running and write the files again at each rotation; retries while the agent is unreachable
    #[arg(long)]
    watch: bool,
}

/// The paths of the written files.
#[derive(Serialize)]
struct Written {
    spiffe_id: String,
    svid: PathBuf,
    key: PathBuf,
    bundle: PathBuf,
}

impl Printable for Written {
    fn name(&self) -> String {
        self.spiffe_id.clone()
    }
}

/// Runs the command.
pub async fn run(args: FetchArgs, run: &CommandContext) -> Result<Exit, CliError> {
    let agent = Endpoint::parse(&args.socket).map_err(|wrong| CliError::Usage(format!("--socket: {wrong}")))?;
    let mut pauses = Backoff::new(PAUSE_MS, PAUSE_MS);
    loop {
        let ended = follow(&agent, &args, run).await;
        match ended {
            Ok(()) if !args.watch => return Ok(Exit::Ok),
            Ok(()) => {}
            Err(error) if !args.watch => return Err(error),
            // The files written before stay in use until the SVID expires.
            Err(error) => run.out.fail(&error),
        }
        pauses.wait().await;
    }
}

/// Writes each SVID that the agent sends until the stream ends; without `--watch`, only the first.
async fn follow(agent: &Endpoint, args: &FetchArgs, run: &CommandContext) -> Result<(), CliError> {
    let said = |status: Status| {
        let told = format!("the agent at {agent}: {}", status.message());
        if status.code() == Code::Unavailable { CliError::LocalAs(told, Exit::TryAgain) } else { CliError::Local(told) }
    };
    let mut stream = x509_svids(agent).await.map_err(said)?;
    while let Some(answer) = stream.message().await.map_err(said)? {
        let written = write(answer, args, &run.system)?;
        run.out.one(&written)?;
        if !args.watch {
            return Ok(());
        }
    }
    Ok(())
}

fn write(answer: X509SvidResponse, args: &FetchArgs, system: &System) -> Result<Written, CliError> {
    let mut found = answer.svids.into_iter().filter(|svid| args.id.as_ref().is_none_or(|id| *id == svid.spiffe_id));
    let svid = found
        .next()
        .ok_or_else(|| CliError::Local("the agent has no such SVID for this process: check the agent's entries".to_owned()))?;
    let key_der = Zeroizing::new(svid.x509_svid_key.to_vec());
    let (chain, bundle) = (pems(&svid.x509_svid)?, pems(&svid.bundle)?);
    let key = Zeroizing::new(pem("PRIVATE KEY", &key_der));
    // A pair that a server could not present is never written; the existing files stay.
    let pair = TlsIdentity::from_pem(chain.as_bytes(), key.as_bytes()).map_err(|defect| wrong(&defect))?;
    let id = pair.spiffe_id().map_err(|defect| wrong(&defect))?;
    if id.as_str() != svid.spiffe_id || id.as_str().parse::<SpiffeId>().is_err() || bundle.is_empty() {
        return Err(wrong(&"its SPIFFE ID is another, or it has no bundle"));
    }
    fs::create_dir_all(&args.to).map_err(|e| CliError::Local(format!("{}: {e}", args.to.display())))?;
    let at = |name: &str| args.to.join(name);
    let written = Written { spiffe_id: svid.spiffe_id, svid: at("svid.pem"), key: at("key.pem"), bundle: at("bundle.pem") };
    replace(&written.bundle, bundle.as_bytes(), system)?;
    replace(&written.key, key.as_bytes(), system)?;
    replace(&written.svid, chain.as_bytes(), system)?;
    Ok(written)
}

fn wrong(what: &dyn std::fmt::Display) -> CliError {
    CliError::Local(format!("the agent's answer is not a valid X.509-SVID: {what}"))
}

/// Converts one or more concatenated DER certificates to PEM.
fn pems(mut der: &[u8]) -> Result<String, CliError> {
    let mut out = String::new();
    while !der.is_empty() {
        let (rest, _) = x509_parser::parse_x509_certificate(der).map_err(|e| wrong(&e))?;
        let (one, _) = der.split_at(der.len() - rest.len());
        out.push_str(&pem("CERTIFICATE", one));
        der = rest;
    }
    Ok(out)
}

/// Encodes PEM with lines of 64 characters (RFC 7468).
fn pem(what: &str, der: &[u8]) -> String {
    let text = Zeroizing::new(data_encoding::BASE64.encode(der));
    let mut out = String::with_capacity(text.len() + text.len() / 64 + 80);
    out.push_str(&format!("-----BEGIN {what}-----\n"));
    for line in text.as_bytes().chunks(64) {
        out.push_str(std::str::from_utf8(line).unwrap_or_default());
        out.push('\n');
    }
    out.push_str(&format!("-----END {what}-----\n"));
    out
}

fn replace(path: &Path, bytes: &[u8], system: &System) -> Result<(), CliError> {
    if bounded_file::read(path, bytes.len()).is_ok_and(|old| *old == bytes) {
        return Ok(());
    }
    may_be_replaced(path).map_err(|e| CliError::Usage(format!("{}: {e}; name a file", path.display())))?;
    let written = atomic_file::write(path, bytes, PRIVATE, system);
    written.map_err(|e| CliError::Local(format!("{}: cannot be written: {e}", path.display())))
}
