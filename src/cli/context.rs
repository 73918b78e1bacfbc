//! Settings of the connection: the server's address and the identities of client and server.
//!
//! The order of precedence is: flags, the file named by `--config`, environment variables, and the file at the default path or named by the
//! environment. `mayfly dev up` writes such a file.

use std::path::{Path, PathBuf};

use clap::parser::ValueSource;
use clap::{ArgMatches, Args};
use serde::{Deserialize, Serialize};

use super::error::CliError;
use super::login::LoginFiles;
use mayfly_base::bounded_file::read_text;
use mayfly_base::limits;
use mayfly_identity::spiffe_id::SpiffeId;
use mayfly_verify::seq::Millis;

/// The identities of the client and of the server. These flags precede the command, since some commands have flags of the same names.
#[derive(Args, Clone, Default, Debug)]
#[command(next_help_heading = "Identity (before the command)")]
pub struct IdentityArgs {
    /// X.509-SVID of this client and its chain, PEM
    #[arg(long, value_name = "FILE", env = "MAYFLY_SVID", hide_env_values = true)]
    pub svid: Option<PathBuf>,
    /// Private key of the SVID, PEM
    #[arg(long, value_name = "FILE", env = "MAYFLY_KEY", hide_env_values = true)]
    pub key: Option<PathBuf>,
    /// Trust bundle of the server's trust domain, PEM or SPIFFE JWKS
    #[arg(long, value_name = "FILE", env = "MAYFLY_BUNDLE", hide_env_values = true)]
    pub bundle: Option<PathBuf>,
    /// SPIFFE ID of the server
    #[arg(long, value_name = "SPIFFE_ID", env = "MAYFLY_SERVER_ID", hide_env_values = true)]
    pub server_id: Option<String>,
}

/// The address of the server.
#[derive(Args, Clone, Default, Debug)]
#[command(next_help_heading = "Everywhere")]
pub struct AddressArgs {
    /// Address of the server: HOST:PORT (mTLS) or unix:/PATH
    #[arg(long, global = true, value_name = "ADDRESS", env = "MAYFLY_ADDRESS", hide_env_values = true)]
    pub address: Option<String>,
    /// File with connection settings [default: ~/.config/mayfly/config.toml]
    #[arg(long, global = true, value_name = "FILE", env = "MAYFLY_CONFIG", hide_env_values = true)]
    pub config: Option<PathBuf>,
    /// The values from environment variables, when the file is named by a flag and therefore takes precedence over them.
    #[arg(skip)]
    pub beneath: ContextFile,
}

/// Moves the values that came from environment variables below the file, if a flag names the file.
pub fn in_order(matches: &ArgMatches, identity: &mut IdentityArgs, at: &mut AddressArgs) {
    let all: Vec<&ArgMatches> = std::iter::successors(Some(matches), |m| m.subcommand().map(|(_, below)| below)).collect();
    let from = |m: &&ArgMatches, name: &str, source: ValueSource| {
        m.try_contains_id(name).unwrap_or(false) && m.value_source(name) == Some(source)
    };
    if !all.iter().any(|m| from(m, "config", ValueSource::CommandLine)) {
        return;
    }
    let root = |name: &str| from(&matches, name, ValueSource::EnvVariable);
    // A flag after the command takes precedence over the environment variable, which clap sets at the levels above the command.
    let everywhere = |name: &str| {
        let any = |source| all.iter().any(|m| from(m, name, source));
        any(ValueSource::EnvVariable) && !any(ValueSource::CommandLine)
    };
    let public = all.iter().find(|m| from(m, "public", ValueSource::EnvVariable));
    let public_ca = all.iter().find(|m| from(m, "public_ca", ValueSource::EnvVariable));
    at.beneath = ContextFile {
        address: if everywhere("address") { at.address.take() } else { None },
        svid: if root("svid") { identity.svid.take() } else { None },
        key: if root("key") { identity.key.take() } else { None },
        bundle: if root("bundle") { identity.bundle.take() } else { None },
        server_id: if root("server_id") { identity.server_id.take() } else { None },
        public: public.and_then(|m| m.get_one::<String>("public").cloned()),
        public_ca: public_ca.and_then(|m| m.get_one::<PathBuf>("public_ca").cloned()),
    };
}

/// The file of connection settings. Its keys are those of the flags; an unknown key is refused.
#[derive(Clone, Default, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContextFile {
    /// The address of the server: `https://HOST:PORT` or `unix:/PATH`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// The X.509-SVID of this client and its chain. A relative path is resolved against the folder of the file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub svid: Option<PathBuf>,
    /// The private key of the SVID.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<PathBuf>,
    /// The trust bundle of the server's trust domain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bundle: Option<PathBuf>,
    /// The SPIFFE ID of the server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_id: Option<String>,
    /// The server's public listener, where people sign in: `https://HOST:PORT`, with the path of its issuer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub public: Option<String>,
    /// Root certificates for the public listener, PEM, if its certificate is not the server's SVID.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub public_ca: Option<PathBuf>,
}

/// The settings that signing in uses.
pub struct LoginSettings {
    /// The address of the server's own listener.
    pub address: Option<String>,
    /// The path of the settings file, if there is one.
    pub file: Option<PathBuf>,
    /// The public listener.
    pub public: Option<String>,
    /// Root certificates for the public listener.
    pub public_ca: Option<PathBuf>,
    /// The trust bundle of the server's trust domain.
    pub bundle: Option<PathBuf>,
    /// The expected SPIFFE ID of the server.
    pub server_id: Option<SpiffeId>,
    /// Whether `public` and `public_ca` were set by environment variables that rank below the file; the file's values are then already
    /// merged into those fields.
    pub beneath: (bool, bool),
}

impl LoginSettings {
    /// Reads the settings from flags, environment variables and the file.
    pub fn read(identity: &IdentityArgs, at: &AddressArgs) -> Result<LoginSettings, CliError> {
        let (path, file) = ContextFile::chosen(at)?;
        let id = identity.server_id.clone().or(file.server_id);
        let server_id = id.map(|id| id.parse().map_err(|e| CliError::Usage(format!("--server-id {id:?}: {e}")))).transpose()?;
        let bundle = identity.bundle.clone().or(file.bundle);
        let address = at.address.clone().or(file.address);
        let beneath = (at.beneath.public.is_some(), at.beneath.public_ca.is_some());
        Ok(LoginSettings { file: path, address, public: file.public, public_ca: file.public_ca, bundle, server_id, beneath })
    }
}

/// The server to call, and how to reach it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ServerTarget {
    /// A Unix socket on this machine: the server identifies the client by its uid.
    Unix(PathBuf),
    /// A server that is called over mTLS.
    Mtls(Box<MtlsTarget>),
}

/// The settings of an mTLS connection.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MtlsTarget {
    /// The host name or IP address, without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
    /// The file with the X.509-SVID of this client.
    pub svid: PathBuf,
    /// The file with the private key of the SVID.
    pub key: PathBuf,
    /// The file with the trust bundle of the trust domain of `server_id`.
    pub bundle: PathBuf,
    /// The expected SPIFFE ID of the server.
    pub server_id: SpiffeId,
}

impl ServerTarget {
    /// The address as it was written in the settings.
    pub fn address(&self) -> String {
        match self {
            ServerTarget::Unix(path) => format!("unix:{}", path.display()),
            ServerTarget::Mtls(to) if to.host.contains(':') => format!("https://[{}]:{}", to.host, to.port),
            ServerTarget::Mtls(to) => format!("https://{}:{}", to.host, to.port),
        }
    }

    /// Resolves the target from flags and environment variables (which clap merges), and takes missing values from the file.
    pub fn resolve(identity: &IdentityArgs, at: &AddressArgs, now: Millis) -> Result<ServerTarget, CliError> {
        let (path, file) = ContextFile::chosen(at)?;
        let file = file.signed_in(&LoginFiles::beside(path.as_deref()).ok(), identity, now)?;
        ServerTarget::of(identity, at.address.as_deref(), &file)
    }

    fn of(identity: &IdentityArgs, address: Option<&str>, file: &ContextFile) -> Result<ServerTarget, CliError> {
        let address = address.or(file.address.as_deref()).ok_or_else(|| {
            CliError::Usage("which server? give --address or MAYFLY_ADDRESS, or start one with `mayfly dev up`".to_owned())
        })?;
        if let Some(path) = address.strip_prefix("unix:") {
            return match Path::new(path).is_absolute() {
                true => Ok(ServerTarget::Unix(PathBuf::from(path))),
                false => Err(CliError::Usage(format!(
                    "address {address:?}: unix: needs a whole path, like unix:/run/mayfly/admin.sock"
                ))),
            };
        }
        let (host, port) = host_and_port(address)?;
        let need = |flag: &str, variable: &str, given: Option<&PathBuf>| {
            given.cloned().ok_or_else(|| {
                CliError::Usage(format!(
                    "{address} is called by mTLS, which needs {flag} (or {variable}); a person signs in with `mayfly login`"
                ))
            })
        };
        let id = identity.server_id.as_ref().or(file.server_id.as_ref()).ok_or_else(|| {
            CliError::Usage(format!(
                "{address} is called by mTLS, which needs the server's SPIFFE ID: --server-id or MAYFLY_SERVER_ID"
            ))
        })?;
        let server_id = id.parse().map_err(|e| CliError::Usage(format!("--server-id {id:?}: {e}")))?;
        Ok(ServerTarget::Mtls(Box::new(MtlsTarget {
            host,
            port,
            svid: need("--svid", "MAYFLY_SVID", identity.svid.as_ref().or(file.svid.as_ref()))?,
            key: need("--key", "MAYFLY_KEY", identity.key.as_ref().or(file.key.as_ref()))?,
            bundle: need("--bundle", "MAYFLY_BUNDLE", identity.bundle.as_ref().or(file.bundle.as_ref()))?,
            server_id,
        })))
    }
}

impl ContextFile {
    /// Reads the named file, or the default file if it exists.
    fn chosen(at: &AddressArgs) -> Result<(Option<PathBuf>, ContextFile), CliError> {
        match at.config.clone().or_else(|| default_path().filter(|path| path.exists())) {
            Some(path) => ContextFile::load(&path).map(|file| (Some(path), file.over(&at.beneath))),
            None => Ok((None, ContextFile::default())),
        }
    }

    /// Uses the SVID of the signed-in person or job of this context, unless flags name another identity. An expired login with no other
    /// identity is an error.
    fn signed_in(self, kept: &Option<LoginFiles>, identity: &IdentityArgs, now: Millis) -> Result<ContextFile, CliError> {
        let Some((kept, end)) = kept.as_ref().and_then(|kept| Some((kept, kept.ends()?))) else { return Ok(self) };
        match end > now {
            true => Ok(ContextFile { svid: Some(kept.svid()), key: Some(kept.key()), ..self }),
            false if self.svid.is_none() && identity.svid.is_none() => {
                Err(CliError::Usage(format!("the login ended at {end}: sign in again with `mayfly login`")))
            }
            false => Ok(self),
        }
    }

    /// Takes missing values from `beneath`.
    fn over(self, beneath: &ContextFile) -> ContextFile {
        let below = beneath.clone();
        ContextFile {
            address: self.address.or(below.address),
            svid: self.svid.or(below.svid),
            key: self.key.or(below.key),
            bundle: self.bundle.or(below.bundle),
            server_id: self.server_id.or(below.server_id),
            public: self.public.or(below.public),
            public_ca: self.public_ca.or(below.public_ca),
        }
    }

    fn load(path: &Path) -> Result<ContextFile, CliError> {
        let wrong = |e: &dyn std::fmt::Display| CliError::Usage(format!("{}: {e}", path.display()));
        let text = read_text(path, limits::CONTEXT_FILE_BYTES).map_err(|e| wrong(&format!("cannot be read: {e}")))?;
        let mut file: ContextFile = toml::from_str(&text).map_err(|e| wrong(&e))?;
        let folder = path.parent().unwrap_or(Path::new(""));
        for name in [&mut file.svid, &mut file.key, &mut file.bundle, &mut file.public_ca].into_iter().flatten() {
            *name = folder.join(&*name);
        }
        Ok(file)
    }
}

/// The default path: `$XDG_CONFIG_HOME/mayfly/config.toml`, or the same under `~/.config`. An XDG folder that is not absolute is ignored
/// (XDG basedir spec).
pub fn default_path() -> Option<PathBuf> {
    let folder = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
    let base = folder("XDG_CONFIG_HOME").or_else(|| folder("HOME").map(|home| home.join(".config")))?;
    Some(base.join("mayfly").join("config.toml"))
}

fn host_and_port(address: &str) -> Result<(String, u16), CliError> {
    let wrong = || CliError::Usage(format!("address {address:?}: expected HOST:PORT, https://HOST:PORT or unix:/PATH"));
    // The prefix is accepted because clients in other languages require it; a port is always reached over mTLS.
    let rest = address.strip_prefix("https://").unwrap_or(address);
    let (host, port) = rest.strip_suffix('/').unwrap_or(rest).rsplit_once(':').ok_or_else(wrong)?;
    let host = match host.strip_prefix('[') {
        Some(inside) => inside.strip_suffix(']').filter(|h| h.parse::<std::net::Ipv6Addr>().is_ok()).ok_or_else(wrong)?,
        None => host,
    };
    let is_v6 = host.parse::<std::net::Ipv6Addr>().is_ok();
    let is_name = !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b));
    match (is_v6 || is_name, port.parse::<u16>()) {
        (true, Ok(port)) if port > 0 => Ok((host.to_owned(), port)),
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "address = \"https://mayfly.example.org:8443\"\nsvid = \"svid.pem\"\nkey = \"/keys/key.pem\"\nbundle = \"b.pem\"\nserver_id = \"spiffe://example.org/mayfly\"\n";

    fn load(text: &str) -> Result<ContextFile, CliError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.toml");
        std::fs::write(&path, text).unwrap();
        let file = ContextFile::load(&path)?;
        let under = |p: PathBuf| p.strip_prefix(folder.path()).map_or(p.clone(), |rest| Path::new("FOLDER").join(rest));
        Ok(ContextFile { svid: file.svid.map(under), key: file.key.map(under), bundle: file.bundle.map(under), ..file })
    }

    #[test]
    fn paths_in_the_file_count_from_its_folder_and_flags_win() {
        let file = load(FILE).unwrap();
        let flags = IdentityArgs { bundle: Some("here.pem".into()), ..IdentityArgs::default() };
        let ServerTarget::Mtls(to) = ServerTarget::of(&flags, None, &file).unwrap() else { panic!("not mTLS") };
        assert_eq!((to.host.as_str(), to.port), ("mayfly.example.org", 8443));
        assert_eq!(to.svid, Path::new("FOLDER/svid.pem"));
        assert_eq!(to.key, Path::new("/keys/key.pem"));
        assert_eq!(to.bundle, Path::new("here.pem"));
        let socket = ServerTarget::of(&flags, Some("unix:/run/mayfly.sock"), &file).unwrap();
        assert_eq!(socket, ServerTarget::Unix("/run/mayfly.sock".into()));
    }

    #[test]
    fn a_key_that_is_not_known_is_refused_by_its_name() {
        let Err(CliError::Usage(text)) = load("adress = \"unix:/x\"\n") else { panic!("taken") };
        assert!(text.contains("adress"), "{text}");
    }

    #[test]
    fn what_is_missing_or_malformed_is_named() {
        let file = ContextFile { server_id: None, ..toml::from_str(FILE).unwrap() };
        let says = |address: Option<&str>, file: &ContextFile| match ServerTarget::of(&IdentityArgs::default(), address, file) {
            Err(CliError::Usage(text)) => text,
            other => panic!("{other:?}"),
        };
        assert!(says(None, &file).contains("--server-id"));
        assert!(says(None, &ContextFile::default()).contains("MAYFLY_ADDRESS"));
        assert!(says(None, &ContextFile { key: None, ..toml::from_str(FILE).unwrap() }).contains("--key"));
        for wrong in [
            "http://h:1",
            "https://h",
            "https://h:0",
            "https://h:70000",
            "https://u@h:1",
            "https://[h]:1",
            "https://:1",
            "h",
            "://h:1",
            "h:1/x",
            "https://h:1/x",
        ] {
            assert!(says(Some(wrong), &file).contains("expected HOST:PORT"), "{wrong}");
        }
        assert!(says(Some("unix:relative"), &file).contains("whole path"));
        assert_eq!(host_and_port("https://[::1]:9000").unwrap(), ("::1".to_owned(), 9000));
        assert_eq!(host_and_port("[::1]:9000").unwrap(), ("::1".to_owned(), 9000));
        assert_eq!(host_and_port("mayfly.example.org:7443").unwrap(), ("mayfly.example.org".to_owned(), 7443));
    }
}
