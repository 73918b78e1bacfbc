//! `mayfly svid fetch`: an X.509-SVID, its key and the bundle from the SPIFFE Workload API, as files; again each time they rotate.
//!
//! What reads them, a server or this command line, reads them anew when they change. So nothing is told or started again when an agent rotates.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use serde::Serialize;
use tonic::codec::Streaming;
use tonic::transport::Channel;
use tonic::{Request, Status};
use tonic_prost::ProstCodec;
use zeroize::Zeroizing;

use super::Run;
use super::error::CliError;
use super::exit::Exit;
use super::out::Noun;
use crate::identity::spiffe_id::SpiffeId;
use crate::serve::client;
use crate::sources::svid_files::OwnPair;

/// Between two tries, where the agent is away.
const PAUSE: Duration = Duration::from_secs(2);

/// `mayfly svid fetch`
#[derive(Args)]
pub struct FetchArgs {
    /// The folder for svid.pem, key.pem and bundle.pem; each is replaced as a whole, and readable by its owner alone
    #[arg(long, value_name = "FOLDER")]
    to: PathBuf,
    /// The agent's socket
    #[arg(long, value_name = "unix:/PATH", env = "SPIFFE_ENDPOINT_SOCKET", hide_env_values = true)]
    socket: String,
    /// The SPIFFE ID, where the agent has several for us [default: its first]
    #[arg(long, value_name = "SPIFFE_ID")]
    id: Option<String>,
    /// Go on, and write them again each time they rotate; tries again for as long as the agent is away
    #[arg(long)]
    watch: bool,
}

/// `X509SVIDRequest` of the SPIFFE Workload API.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct X509SvidRequest {}

/// `X509SVIDResponse`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct X509SvidResponse {
    /// The first is the default.
    #[prost(message, repeated, tag = "1")]
    pub svids: Vec<X509Svid>,
}

/// `X509SVID`. It cannot be printed.
#[derive(Clone, PartialEq, Eq, prost::Message)]
#[prost(skip_debug)]
pub struct X509Svid {
    /// Whose it is.
    #[prost(string, tag = "1")]
    pub spiffe_id: String,
    /// The chain, leaf first, DER after DER.
    #[prost(bytes = "vec", tag = "2")]
    pub x509_svid: Vec<u8>,
    /// Its key, PKCS #8.
    #[prost(bytes = "vec", tag = "3")]
    pub x509_svid_key: Vec<u8>,
    /// The bundle of its trust domain, DER after DER.
    #[prost(bytes = "vec", tag = "4")]
    pub bundle: Vec<u8>,
    /// What the agent says about it.
    #[prost(string, tag = "5")]
    pub hint: String,
}

impl std::fmt::Debug for X509Svid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("X509Svid").field("spiffe_id", &self.spiffe_id).finish_non_exhaustive()
    }
}

/// Where they are now.
#[derive(Serialize)]
struct Written {
    spiffe_id: String,
    svid: PathBuf,
    key: PathBuf,
    bundle: PathBuf,
}

impl Noun for Written {
    fn name(&self) -> String {
        self.spiffe_id.clone()
    }
}

/// Runs it.
pub async fn run(args: FetchArgs, run: &Run) -> Result<Exit, CliError> {
    let socket = path_of(&args.socket)?;
    loop {
        let ended = follow(&socket, &args, run).await;
        match ended {
            Ok(()) if !args.watch => return Ok(Exit::Ok),
            Ok(()) => {}
            Err(error) if !args.watch => return Err(error),
            // What is there stays in use until it ends.
            Err(error) => run.out.fail(&error),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// `unix:/PATH` and `unix:///PATH`, as the SPIFFE Workload Endpoint says it.
fn path_of(socket: &str) -> Result<PathBuf, CliError> {
    let path =
        socket.strip_prefix("unix:").map(|rest| rest.strip_prefix("//").unwrap_or(rest)).filter(|path| path.starts_with('/'));
    path.map(PathBuf::from).ok_or_else(|| CliError::Usage(format!("--socket {socket:?}: expected unix:/PATH")))
}

/// Writes what comes, until the stream ends; once, where nobody wants more.
async fn follow(socket: &Path, args: &FetchArgs, run: &Run) -> Result<(), CliError> {
    let said = |status: Status| CliError::Local(format!("the agent at {}: {}", socket.display(), status.message()));
    let unreachable =
        |e: tonic::transport::Error| CliError::Unreachable { address: format!("unix:{}", socket.display()), what: e.to_string() };
    let channel = client::unix(socket).await.map_err(unreachable)?;
    let mut stream = fetch(channel).await.map_err(said)?;
    while let Some(answer) = stream.message().await.map_err(said)? {
        let written = write(answer, args)?;
        run.out.one(&written)?;
        if !args.watch {
            return Ok(());
        }
    }
    Ok(())
}

async fn fetch(channel: Channel) -> Result<Streaming<X509SvidResponse>, Status> {
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.map_err(|e| Status::unavailable(e.to_string()))?;
    let mut request = Request::new(X509SvidRequest {});
    // The Workload Endpoint's sign that this is no request that somebody was tricked into.
    request.metadata_mut().insert("workload.spiffe.io", tonic::metadata::MetadataValue::from_static("true"));
    let path = http::uri::PathAndQuery::from_static("/SpiffeWorkloadAPI/FetchX509SVID");
    let codec = ProstCodec::<X509SvidRequest, X509SvidResponse>::default();
    Ok(client.server_streaming(request, path, codec).await?.into_inner())
}

fn write(answer: X509SvidResponse, args: &FetchArgs) -> Result<Written, CliError> {
    let mut found = answer.svids.into_iter().filter(|svid| args.id.as_ref().is_none_or(|id| *id == svid.spiffe_id));
    let svid =
        found.next().ok_or_else(|| CliError::Local("the agent has no such SVID for us: look at its entries".to_owned()))?;
    let key_der = Zeroizing::new(svid.x509_svid_key);
    let (chain, bundle) = (pems(&svid.x509_svid)?, pems(&svid.bundle)?);
    let key = Zeroizing::new(pem("PRIVATE KEY", &key_der));
    // Never what a server would not show: what is there stays.
    let pair = OwnPair::from_pem(chain.as_bytes(), key.as_bytes()).map_err(|defect| wrong(&defect))?;
    let id = pair.spiffe_id().map_err(|defect| wrong(&defect))?;
    if id.as_str() != svid.spiffe_id || id.as_str().parse::<SpiffeId>().is_err() || bundle.is_empty() {
        return Err(wrong(&"its SPIFFE ID is another, or it has no bundle"));
    }
    fs::create_dir_all(&args.to).map_err(|e| CliError::Local(format!("{}: {e}", args.to.display())))?;
    let at = |name: &str| args.to.join(name);
    let written = Written { spiffe_id: svid.spiffe_id, svid: at("svid.pem"), key: at("key.pem"), bundle: at("bundle.pem") };
    replace(&written.bundle, bundle.as_bytes())?;
    replace(&written.key, key.as_bytes())?;
    replace(&written.svid, chain.as_bytes())?;
    Ok(written)
}

fn wrong(what: &dyn std::fmt::Display) -> CliError {
    CliError::Local(format!("what the agent gave us is no X.509-SVID: {what}"))
}

/// One or more certificates, DER after DER.
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

/// RFC 7468: lines of 64.
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

fn replace(path: &Path, bytes: &[u8]) -> Result<(), CliError> {
    if fs::read(path).is_ok_and(|old| old == bytes) {
        return Ok(());
    }
    let aside = path.with_added_extension("new");
    // What a process left that ended here.
    let _ = fs::remove_file(&aside);
    let written = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&aside);
    let written = written.and_then(|mut file| file.write_all(bytes)).and_then(|()| fs::rename(&aside, path));
    written.map_err(|e| CliError::Local(format!("{}: cannot be written: {e}", path.display())))
}
