//! `mayfly login` and `mayfly logout`: gets a person a short-lived SVID of the server's own trust domain, stored beside the context file
//! that uses it.
//!
//! - `provider`: requests an ID token from the OIDC provider, with a browser (RFC 8252) or a device code (RFC 8628).
//! - `loopback`: the redirect listener for the browser. `files`: the files of a login.

mod files;
mod loopback;
mod provider;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData as _};
use serde::Serialize;
use zeroize::Zeroizing;

pub(super) use files::LoginFiles;
pub(super) use loopback::{Loopback, form};
pub(super) use provider::browse;

use super::CommandContext;
use super::args;
use super::context::LoginSettings;
use super::error::CliError;
use super::exit::Exit;
use super::out::Printable;
use mayfly_api::people::{LoginAnswer, LoginMethods, LoginProvider, LoginRefused, LoginRequest};
use mayfly_api::tls::client_config;
use mayfly_base::limits;
use mayfly_config::https::{HttpsClient, HttpsResponse};
use mayfly_credential::x509::Csr;
use mayfly_identity::bundle::{Bundle, Bundles};
use mayfly_identity::oidc::discovery::{Discovery, document_url};
use mayfly_proto::mayfly::v1::{self as pb, token_service_client::TokenServiceClient};
use mayfly_verify::seq::Millis;
use provider::IdTokenRequest;

/// Arguments of `mayfly login`.
#[derive(Args)]
pub struct LoginArgs {
    /// Name of the OIDC provider; needed if the server has several
    #[arg(long, value_name = "NAME")]
    provider: Option<String>,
    /// Sign in on another machine by typing a code there (device flow), if the server allows it
    #[arg(long)]
    device: bool,
    /// Do not open a browser; the address is printed in any case
    #[arg(long)]
    no_browser: bool,
    /// Request one of these authentication context classes from the provider, in order of preference
    #[arg(long, value_name = "ACR")]
    acr: Vec<String>,
    /// Require a new sign-in at the provider if the last one is older than this
    #[arg(long, value_name = "DURATION", default_value = "12h", value_parser = args::duration)]
    max_age: Duration,
    /// Maximum time to wait for the sign-in
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = args::duration)]
    patience: Duration,
    #[command(flatten)]
    public: PublicArgs,
    /// Root certificates for the provider, PEM [default: the system's]
    #[arg(long, value_name = "FILE")]
    provider_ca: Option<PathBuf>,
}

/// The server's public listener.
#[derive(Args, Clone)]
pub(super) struct PublicArgs {
    /// Public listener of the server: https://HOST:PORT, with the path of its issuer
    #[arg(long, value_name = "URL", env = "MAYFLY_PUBLIC", hide_env_values = true)]
    public: Option<String>,
    /// Root certificates for the public listener, PEM [default: its certificate is the server's SVID]
    #[arg(long, value_name = "FILE", env = "MAYFLY_PUBLIC_CA", hide_env_values = true)]
    public_ca: Option<PathBuf>,
}

impl PublicArgs {
    /// The base URL of the public listener, and a client for it.
    pub(super) fn listener(&self, settings: &LoginSettings, run: &CommandContext) -> Result<(String, HttpsClient), CliError> {
        let base = ordered(&self.public, &settings.public, settings.beneath.0).ok_or_else(|| {
            CliError::Usage("which server? give --public or MAYFLY_PUBLIC, or `public` in the context's file".to_owned())
        })?;
        Ok((base.trim_end_matches('/').to_owned(), public_client(self, settings, run)?))
    }
}

/// Chooses between the value of a flag or the environment and that of the file. The file's value comes first if the environment ranks below
/// the file.
fn ordered<'a, T>(given: &'a Option<T>, file: &'a Option<T>, beneath: bool) -> Option<&'a T> {
    if beneath { file.as_ref().or(given.as_ref()) } else { given.as_ref().or(file.as_ref()) }
}

/// The printed form of a login.
#[derive(Serialize)]
pub(super) struct LoginView {
    pub spiffe_id: String,
    trust_domain: String,
    provider: String,
    credential: String,
    pub expires_at: String,
    svid: PathBuf,
    key: PathBuf,
}

impl LoginView {
    pub fn of(made: LoginAnswer, trust_domain: String, provider: String, kept: &LoginFiles) -> LoginView {
        let expires_at = Millis(made.expires_at).to_string();
        let (svid, key) = (kept.svid(), kept.key());
        LoginView { spiffe_id: made.spiffe_id, trust_domain, provider, credential: made.credential, expires_at, svid, key }
    }
}

impl Printable for LoginView {
    fn name(&self) -> String {
        self.spiffe_id.clone()
    }
}

/// A new private key, and the request for its certificate.
pub(super) struct KeyAndCsr {
    pub pem: Zeroizing<String>,
    pub spki: Vec<u8>,
    pub csr: Vec<u8>,
    /// The thumbprint of the key.
    pub nonce: String,
}

impl KeyAndCsr {
    pub fn make() -> Result<KeyAndCsr, CliError> {
        KeyAndCsr::of(&KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(CliError::ours)?)
    }

    /// Builds a request for another certificate of the stored key.
    pub fn again(kept: &LoginFiles) -> Result<KeyAndCsr, CliError> {
        let pem = args::read_text(&kept.key(), limits::PEM_FILE_BYTES)?;
        KeyAndCsr::of(&KeyPair::from_pem(&pem).map_err(|_| CliError::Local(format!("{}: is no key", kept.key().display())))?)
    }

    fn of(key: &KeyPair) -> Result<KeyAndCsr, CliError> {
        let csr = CertificateParams::default().serialize_request(key).map_err(CliError::ours)?.der().to_vec();
        let checked = Csr::check(&csr).map_err(CliError::ours)?;
        let pem = Zeroizing::new(key.serialize_pem());
        Ok(KeyAndCsr { pem, spki: key.subject_public_key_info(), nonce: checked.nonce(), csr })
    }
}

/// Runs `mayfly login`.
pub async fn login(args: LoginArgs, run: &CommandContext) -> Result<Exit, CliError> {
    let settings = run.settings()?;
    let (public, server) = args.public.listener(&settings, run)?;
    let ways: LoginMethods =
        answer(&server.get(&format!("{public}/login"), limits::LOGIN_BODY_BYTES).await.map_err(|e| unreachable(&public, &e))?)?;
    let provider = choose(&ways, args.provider.as_deref())?;
    // The directory is checked first, so that nobody signs in for a login that cannot be stored.
    let kept = LoginFiles::beside(settings.file.as_deref())?;
    kept.prepare(&run.system)?;
    if args.device && !ways.device {
        return Err(CliError::Usage(
            "this server does not allow device logins (own_domain.device_login); leave --device out".to_owned(),
        ));
    }
    let client = HttpsClient::new(args.provider_ca.as_deref(), &run.system).map_err(|e| CliError::Usage(e.to_string()))?;
    let url = document_url(&provider.issuer);
    let document = client.document(&url, limits::OIDC_DOCUMENT_BYTES).await.map_err(|e| unreachable(&url, &e))?;
    let known = Discovery::parse(&document, &provider.issuer).map_err(|e| CliError::Local(format!("{url} {e}")))?;
    let fresh = KeyAndCsr::make()?;
    let asking = IdTokenRequest {
        client: &client,
        known: &known,
        provider,
        nonce: &fresh.nonce,
        acr: &args.acr,
        max_age: args.max_age,
        patience: args.patience,
        run,
    };
    let id_token = match args.device {
        true => asking.by_device().await?,
        false => asking.by_browser(!args.no_browser).await?,
    };
    let ask = LoginRequest { id_token: id_token.to_string(), csr: STANDARD.encode(&fresh.csr) };
    let body = Zeroizing::new(serde_json::to_string(&ask).map_err(CliError::ours)?);
    let said = server.post_json(&format!("{public}/login"), body.to_string(), limits::LOGIN_BODY_BYTES).await;
    let made: LoginAnswer = answer(&said.map_err(|e| unreachable(&public, &e))?)?;
    kept.write(&made, &fresh.pem, &fresh.spki, &run.system)?;
    let told = LoginView::of(made, ways.trust_domain.clone(), provider.name.clone(), &kept);
    run.out.one(&told)?;
    run.out.say(format_args!("signed in until {}; what runs with this context is us: mayfly whoami", told.expires_at));
    Ok(Exit::Ok)
}

/// Runs `mayfly logout`: the server ends the login, and its files are removed whether or not the server was reached.
pub async fn logout(run: &CommandContext) -> Result<Exit, CliError> {
    let kept = LoginFiles::beside(run.settings()?.file.as_deref())?;
    let Some(credential) = kept.credential()? else {
        run.out.say("nobody is signed in with this context");
        return Ok(Exit::Ok);
    };
    let told = match kept.ended(run.system.wall()) {
        true => Ok(()),
        false => give_back(run, credential).await,
    };
    kept.remove()?;
    if let Err(error) = told {
        run.out.fail(&error);
        return Err(CliError::Partly(
            "the key was deleted on this machine; the server could not be reached, so the login ends when it expires".to_owned(),
        ));
    }
    run.out.say("signed out");
    Ok(Exit::Ok)
}

async fn give_back(run: &CommandContext, credential_id: String) -> Result<(), CliError> {
    let server = run.server().await?;
    let ask = pb::ReleaseRequest { credential_id };
    server.call(ask, |c, q| async move { TokenServiceClient::new(c).release(q).await }).await.map(drop)
}

/// The client of the public listener. The server is authenticated by its SVID or, if roots are given, by its DNS name.
fn public_client(args: &PublicArgs, settings: &LoginSettings, run: &CommandContext) -> Result<HttpsClient, CliError> {
    if let Some(ca) = ordered(&args.public_ca, &settings.public_ca, settings.beneath.1) {
        return HttpsClient::new(Some(ca), &run.system).map_err(|e| CliError::Usage(e.to_string()));
    }
    let (Some(bundle), Some(id)) = (&settings.bundle, &settings.server_id) else {
        let what =
            "the public listener is known by the server's SVID, which needs --bundle and --server-id; or name roots: --public-ca";
        return Err(CliError::Usage(what.to_owned()));
    };
    let document = args::read_regular(bundle, limits::BUNDLE_BYTES)?;
    let parsed = Bundle::parse(id.trust_domain_owned(), &document);
    let parsed = parsed.map_err(|e| CliError::Usage(format!("{} {e}", bundle.display())))?;
    let bundles = Bundles::new([Arc::new(parsed)]).unwrap_or_default();
    let config = client_config(None, Arc::new(ArcSwap::from_pointee(bundles)), id.clone(), &run.system);
    Ok(HttpsClient::over(config.map_err(CliError::ours)?))
}

fn choose<'a>(ways: &'a LoginMethods, named: Option<&str>) -> Result<&'a LoginProvider, CliError> {
    let names = || ways.providers.iter().map(|p| p.name.as_str()).collect::<Vec<_>>().join(", ");
    match (named, ways.providers.as_slice()) {
        (_, []) => {
            Err(CliError::Usage("this server has no identity provider for logins ([[oidc_issuers]] with uses login)".to_owned()))
        }
        (None, [one]) => Ok(one),
        (None, _) => Err(CliError::Usage(format!("which provider? give --provider: one of {}", names()))),
        (Some(name), all) => all.iter().find(|p| p.name == name).ok_or_else(|| {
            let what = format!("there is no provider {}; there are {}", super::out::escape::for_terminal(name), names());
            CliError::LocalAs(what, Exit::NotFound)
        }),
    }
}

pub(super) fn unreachable(address: &str, error: &dyn std::fmt::Display) -> CliError {
    CliError::Unreachable { address: address.to_owned(), what: error.to_string() }
}

/// Decodes the server's answer, or its error.
pub(super) fn answer<T: serde::de::DeserializeOwned>(said: &HttpsResponse) -> Result<T, CliError> {
    if said.status.is_success() {
        return serde_json::from_slice(&said.body).map_err(|_| CliError::Local("the server's answer is malformed".to_owned()));
    }
    match serde_json::from_slice::<LoginRefused>(&said.body) {
        Ok(no) => Err(CliError::of_reason(&no.reason, no.message, no.rule, no.way_out)),
        Err(_) => Err(CliError::Local(format!("the server answered {}", said.status))),
    }
}

/// Descriptions of the login for other commands.
impl LoginFiles {
    fn credential(&self) -> Result<Option<String>, CliError> {
        let Some(serial) = self.serial()? else { return Ok(None) };
        let id = mayfly_ledger::state::login_of_serial(&serial)
            .ok_or_else(|| CliError::Local("the serial number of the login's certificate is too long".to_owned()))?;
        Ok(Some(id.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fresh_key_is_asked_for_with_its_own_nonce_and_never_shown() {
        let (one, other) = (KeyAndCsr::make().unwrap(), KeyAndCsr::make().unwrap());
        assert_ne!(one.nonce, other.nonce);
        assert_eq!(Csr::check(&one.csr).unwrap().spki(), one.spki);
        assert_eq!(one.nonce, data_encoding::BASE64URL_NOPAD.encode(&mayfly_identity::sha256(&one.spki)));
    }

    #[test]
    fn one_provider_is_chosen_by_itself_and_several_by_name() {
        let provider = |name: &str| LoginProvider { name: name.into(), issuer: "https://i".into(), client_id: "c".into() };
        let ways = |names: &[&str]| LoginMethods {
            trust_domain: "t".into(),
            providers: names.iter().map(|n| provider(n)).collect(),
            device: false,
        };
        assert_eq!(choose(&ways(&["a"]), None).unwrap().name, "a");
        assert_eq!(choose(&ways(&["a", "b"]), Some("b")).unwrap().name, "b");
        for (names, named) in [(&["a", "b"][..], None), (&[], None), (&["a"], Some("b"))] {
            assert!(
                matches!(choose(&ways(names), named), Err(CliError::Usage(_) | CliError::LocalAs(_, Exit::NotFound))),
                "{names:?} {named:?}"
            );
        }
    }
}
