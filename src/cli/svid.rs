//! `mayfly svid`: `check` tells whether a certificate chain would be accepted as a caller, and which clause of the X509-SVID profile
//! refuses it; `fetch` writes SVIDs to files. No mayfly server is called.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::error::CliError;
use super::exit::Exit;
use super::out::Printable;
use super::svid_fetch::{self, FetchArgs};
use super::{CommandContext, args};
use mayfly_base::limits;
use mayfly_identity::bundle::Bundle;
use mayfly_identity::check::{self, SvidReport};
use mayfly_identity::spiffe_id::TrustDomain;
use mayfly_identity::svid::PeerChain;
use mayfly_verify::seq::Millis;

/// The subcommands for X.509-SVIDs.
#[derive(Subcommand)]
pub enum SvidCommand {
    /// Check whether a certificate chain would be accepted as a caller, and which clause refuses it; exits with 0 or 5
    Check(CheckArgs),
    /// Fetch an SVID, its key and the bundle from the SPIFFE Workload API and write them to files; with --watch, again at each rotation
    Fetch(FetchArgs),
}

/// Arguments of `mayfly svid check`.
#[derive(Args)]
pub struct CheckArgs {
    /// File with the certificate chain, PEM, leaf first; `-` is stdin
    #[arg(value_name = "CHAIN.pem")]
    chain: PathBuf,
    /// File with the trust bundle, PEM or SPIFFE JWKS
    #[arg(long, value_name = "FILE")]
    bundle: PathBuf,
    /// Trust domain of the bundle
    #[arg(long, value_name = "NAME", value_parser = TrustDomain::parse)]
    trust_domain: TrustDomain,
    /// Check as of this time [default: now]
    #[arg(long, value_name = "TIME", value_parser = args::time)]
    at: Option<Millis>,
    /// Maximum remaining life of an SVID that the server accepts
    #[arg(long, value_name = "DURATION", value_parser = args::duration, default_value = "24h")]
    max_ttl: Duration,
}

impl Printable for SvidReport {
    fn name(&self) -> String {
        self.code.unwrap_or("accepted").to_owned()
    }
}

/// Runs the command.
pub async fn run(command: SvidCommand, run: &CommandContext) -> Result<Exit, CliError> {
    match command {
        SvidCommand::Check(args) => checked(args, run),
        SvidCommand::Fetch(args) => svid_fetch::run(args, run).await,
    }
}

fn checked(args: CheckArgs, run: &CommandContext) -> Result<Exit, CliError> {
    let document = args::read(&args.bundle, limits::BUNDLE_BYTES)?;
    let wrong = |path: &PathBuf, e: &dyn std::fmt::Display| CliError::Local(format!("{} {e}", path.display()));
    let bundle = Bundle::parse(args.trust_domain, &document).map_err(|e| wrong(&args.bundle, &e))?;
    // The limit of what a TLS peer may send, doubled: PEM is a third longer than DER.
    let text = args::read(&args.chain, limits::CHAIN_CERTIFICATES * limits::CERTIFICATE_BYTES * 2)?;
    let chain = PeerChain::from_pem(&text).map_err(|e| wrong(&args.chain, &e))?;
    let max_ttl_ms = u64::try_from(args.max_ttl.as_millis()).unwrap_or(u64::MAX);
    let report = check::check(&chain, &bundle, args.at.unwrap_or_else(|| run.system.wall()), max_ttl_ms);
    run.out.one(&report)?;
    Ok(if report.accepted { Exit::Ok } else { Exit::Denied })
}
