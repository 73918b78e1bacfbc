//! `mayfly svid`: `fetch`, and `check`: would this chain be accepted as a caller, and if not, which clause refuses it? No server is asked.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::error::CliError;
use super::exit::Exit;
use super::out::Noun;
use super::svid_fetch::{self, FetchArgs};
use super::{Run, args};
use crate::identity::bundle::Bundle;
use crate::identity::check::{self, Report};
use crate::identity::spiffe_id::TrustDomain;
use crate::identity::svid::PeerChain;
use crate::limits;
use crate::seq::Millis;

/// What can be done with X.509-SVIDs.
#[derive(Subcommand)]
pub enum SvidCommand {
    /// Would this chain be accepted as a caller, and if not, which clause refuses it? Exits with 0 or 5
    Check(CheckArgs),
    /// Write our SVID, its key and the bundle from the SPIFFE Workload API to files, again each time they rotate
    Fetch(FetchArgs),
}

/// `mayfly svid check`
#[derive(Args)]
pub struct CheckArgs {
    /// The certificate and its chain, PEM, leaf first, `-` being stdin
    #[arg(value_name = "CHAIN.pem")]
    chain: PathBuf,
    /// The trust bundle, PEM or SPIFFE JWKS
    #[arg(long, value_name = "FILE")]
    bundle: PathBuf,
    /// The trust domain whose bundle it is
    #[arg(long, value_name = "NAME", value_parser = TrustDomain::parse)]
    trust_domain: TrustDomain,
    /// Check for this time [default: now]
    #[arg(long, value_name = "TIME", value_parser = args::time)]
    at: Option<Millis>,
    /// The longest life that the server accepts
    #[arg(long, value_name = "DURATION", value_parser = args::duration, default_value = "24h")]
    max_ttl: Duration,
}

impl Noun for Report {
    fn name(&self) -> String {
        self.code.unwrap_or("accepted").to_owned()
    }
}

/// Runs it.
pub async fn run(command: SvidCommand, run: &Run) -> Result<Exit, CliError> {
    match command {
        SvidCommand::Check(args) => checked(args, run),
        SvidCommand::Fetch(args) => svid_fetch::run(args, run).await,
    }
}

fn checked(args: CheckArgs, run: &Run) -> Result<Exit, CliError> {
    let document = args::read(&args.bundle, limits::BUNDLE_BYTES)?;
    let wrong = |path: &PathBuf, e: &dyn std::fmt::Display| CliError::Local(format!("{} {e}", path.display()));
    let bundle = Bundle::parse(args.trust_domain, &document).map_err(|e| wrong(&args.bundle, &e))?;
    // As much as a peer may send, in PEM, which is a third longer.
    let text = args::read(&args.chain, limits::CHAIN_CERTIFICATES * limits::CERTIFICATE_BYTES * 2)?;
    let chain = PeerChain::from_pem(&text).map_err(|e| wrong(&args.chain, &e))?;
    let max_ttl_ms = u64::try_from(args.max_ttl.as_millis()).unwrap_or(u64::MAX);
    let report = check::check(&chain, &bundle, args.at.unwrap_or_else(|| run.system.wall()), max_ttl_ms);
    run.out.one(&report)?;
    Ok(if report.accepted { Exit::Ok } else { Exit::Denied })
}
