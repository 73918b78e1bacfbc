//! The kinds whose credentials are certificates: `x509` and `ssh`. mayfly makes them itself, by signing a key of the caller under a CA of the
//! upstream. Nothing exists at the upstream, whose servers trust the CA.
//!
//! - One CA for each upstream and kind, a key of purpose `UpstreamCa` or `SshCa`: whoever trusts the CA of one upstream takes certificates for
//!   that one only. The public listener serves the CAs, and lists of the certificates that ended before their time.
//! - A certificate is a function of its issuance record, the registration and the CA's key. Of a request only the public key goes into it.
//! - [`x509`](super::x509), [`ssh`](super::ssh): the two formats. Their sections of a registration share the readers of this file.

use serde::{Deserialize, Serialize};

use super::keyring::LoadedKey;
use super::minted::CredentialMaterial;
use super::ssh::{self, SshPublicKey, SshSettings};
use super::x509::{self, Csr, X509Settings};
use super::{CredentialKind, kind};
use mayfly_base::document::{Field, Section};
use mayfly_base::refusal::{Error, Fault, Reason, Refusal};
use mayfly_ledger::record::{CredentialIssued, KeyPurpose, upstream_path};
use mayfly_ledger::upstream::access::{AccessError, AccessLevel, AccessQuery, GrantedAccess};
use mayfly_ledger::upstream::registry::{Kind, Upstream};
use mayfly_ledger::upstream::settings::{KindSettings, SettingsContext, SettingsReader};
use mayfly_ledger::upstream::target::target_url;
use mayfly_policy::exchange_request::RequestedCertificateKey;
use mayfly_verify::seq::{CredentialId, Millis};

/// A kind of certificates: its section of a registration, and a registration to start from.
pub struct CertificateEntry {
    /// The kind, and the reader of its section.
    pub settings: SettingsReader,
    /// A registration to start from, with comments.
    pub template: &'static str,
}

/// The kinds of certificates.
pub const TABLE: &[CertificateEntry] = &[
    CertificateEntry {
        settings: SettingsReader { kind: Kind::X509, read: x509::settings::read },
        template: include_str!("x509/template.toml"),
    },
    CertificateEntry {
        settings: SettingsReader { kind: Kind::Ssh, read: ssh::settings::read },
        template: include_str!("ssh/template.toml"),
    },
];

/// How the CA of an upstream is followed by the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CaRotation {
    /// By time: trust stores fetch the CAs from the public listener.
    Automatic,
    /// When an operator says so: somebody copies the CAs into trust stores.
    Manual,
}

/// A CA that an upstream needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NeededCa {
    /// The purpose of its key.
    pub purpose: KeyPurpose,
    /// The upstream, as of [`upstream_path`].
    pub path: String,
    /// How it is followed by the next one.
    pub rotation: CaRotation,
}

/// The CAs that an upstream needs.
pub fn needed(upstream: &Upstream) -> Vec<NeededCa> {
    let Some(path) = upstream_path(&upstream.environment, &upstream.name) else { return Vec::new() };
    let x509 = || settings_of::<X509Settings>(&upstream.settings, CredentialKind::X509).map(|s| s.rotation);
    let ssh = || settings_of::<SshSettings>(&upstream.settings, CredentialKind::Ssh).map(|s| s.rotation);
    let one = |kind, purpose, rotation: Result<CaRotation, Fault>| {
        let rotation = rotation.unwrap_or(CaRotation::Manual);
        upstream.issues(kind).then(|| NeededCa { purpose, path: path.clone(), rotation })
    };
    let all = [one(Kind::X509, KeyPurpose::UpstreamCa, x509()), one(Kind::Ssh, KeyPurpose::SshCa, ssh())];
    all.into_iter().flatten().collect()
}

/// Whether keys of a purpose are CAs of upstreams.
pub const fn is_upstream_ca(purpose: KeyPurpose) -> bool {
    matches!(purpose, KeyPurpose::UpstreamCa | KeyPurpose::SshCa)
}

fn settings_of<S: for<'de> Deserialize<'de>>(settings: &KindSettings, kind: CredentialKind) -> Result<S, Fault> {
    settings.read(kind.name()).map_err(Fault::new)
}

/// The access of a certificate; `None` for other kinds. Names and principals are those that the certificate has; what they may do is known
/// to the servers that trust the CA.
pub fn describe(query: &AccessQuery<'_>) -> Option<Result<GrantedAccess, AccessError>> {
    let settings = &query.upstream.settings;
    let fault = |no: Fault| AccessError::NotGranted(no.to_string());
    let described = match query.kind {
        Kind::X509 => settings_of::<X509Settings>(settings, CredentialKind::X509).map_err(fault).and_then(|settings| {
            let names = settings.names(query.scopes).map_err(not_granted)?;
            let organization = names.organization.map(|name| format!("organization {name}"));
            let dns_names = names.dns_names.iter().map(|name| format!("dns {name}"));
            Ok(GrantedAccess {
                roles: names.common_name.into_iter().collect(),
                objects: dns_names.chain(organization).collect(),
                ..GrantedAccess::default()
            })
        }),
        Kind::Ssh => settings_of::<SshSettings>(settings, CredentialKind::Ssh).map_err(fault).and_then(|settings| {
            let rights = settings.rights(query.scopes).map_err(not_granted)?;
            Ok(GrantedAccess {
                roles: rights.principals.into_iter().collect(),
                privileges: rights.extensions.into_iter().map(|(name, _)| name.to_owned()).collect(),
                objects: rights.options.into_iter().map(|(name, value)| format!("{name} {value}")).collect(),
                ..GrantedAccess::default()
            })
        }),
        _ => return None,
    };
    let host = target_url(&query.upstream.target)
        .and_then(|url| Some(url.split_once("://")?.1.split('/').next()?.to_owned()))
        .filter(|host| !host.is_empty());
    Some(described.map(|access| GrantedAccess { levels: [AccessLevel::Unknown].into(), host, ..access }))
}

/// A refusal of scopes that one certificate cannot have together.
fn not_granted(no: Error) -> AccessError {
    match no {
        Error::Refusal(no) => AccessError::Details { field: "scopes".to_owned(), what: no.message },
        other => AccessError::NotGranted(other.to_string()),
    }
}

/// Reads the key of a request, for the record of its certificate: SubjectPublicKeyInfo in DER, or the blob of an SSH key. Also checks that
/// the sender of a CSR holds its key. OpenSSH's form has no such proof, and needs none: a certificate opens nothing without the key.
pub fn certified_key(key: &RequestedCertificateKey) -> Result<Vec<u8>, Refusal> {
    match key {
        RequestedCertificateKey::CertificateRequest(der) => {
            Csr::check(der).map(|csr| csr.spki().to_vec()).map_err(|no| Refusal::field(key.field(), no))
        }
        RequestedCertificateKey::Ssh(text) => {
            SshPublicKey::parse(text).map(|key| key.blob().to_vec()).map_err(|no| Refusal::field(key.field(), no))
        }
        RequestedCertificateKey::Recorded(bytes) => Ok(bytes.to_vec()),
    }
}

/// The parts of a certificate, besides its CA.
pub(super) struct CertificateInput<'a> {
    /// The kind.
    pub kind: CredentialKind,
    /// The credential.
    pub id: CredentialId,
    /// The issuance record.
    pub issued: &'a CredentialIssued,
    /// The sections of the registration.
    pub settings: &'a KindSettings,
    /// The issuer of the environment.
    pub issuer: &'a str,
}

/// Makes a certificate. Returns it with the SHA-256 of its signed part.
pub(super) fn make(ca: &LoadedKey, input: &CertificateInput<'_>) -> Result<(CredentialMaterial, [u8; 32]), Error> {
    let CertificateInput { kind, id, issued, settings, issuer } = *input;
    match kind {
        CredentialKind::X509 => {
            let settings: X509Settings = settings_of(settings, kind)?;
            let made = x509::client::make(ca, id, issued, &settings, issuer)?;
            let root = ca.certificate().map(|ca| ca.der().to_vec()).unwrap_or_default();
            let answer = CredentialMaterial::Certificate { chain: vec![made.der], root, crl_url: made.crl_url };
            Ok((answer, made.signed_part))
        }
        CredentialKind::Ssh => {
            let made = ssh::certificate::make(ca, id, issued, &settings_of(settings, kind)?)?;
            let answer = CredentialMaterial::SshCertificate {
                certificate: made.line,
                authority: ssh::authority_line(ca)?,
                principals: made.principals,
                krl_url: ssh::krl_url(issuer, &issued.upstream),
            };
            Ok((answer, made.signed_part))
        }
        _ => Err(kind::not_served(kind, "are no certificates")),
    }
}

/// Whether certificates of these sections cannot be revoked before they end.
pub(super) fn is_irrevocable(kind: CredentialKind, settings: &KindSettings) -> Result<bool, Fault> {
    match kind {
        CredentialKind::X509 => settings_of::<X509Settings>(settings, kind).map(|s| s.is_irrevocable()),
        _ => Ok(false),
    }
}

/// Checks that a CA outlives the certificate that it is about to sign.
pub(super) fn outlives(ca: &LoadedKey, issued: &CredentialIssued) -> Result<(), Refusal> {
    let ends = ca.certificate().map_or(Millis(u64::MAX), |certificate| certificate.ends_at());
    if Millis(issued.expires_at) <= ends {
        return Ok(());
    }
    let no = format!("the CA of upstream {} ends at {ends}, before the certificate would", issued.upstream);
    let command = format!("an operator runs: mayfly key rotate --purpose upstream_ca --upstream {}", issued.upstream);
    Err(Refusal::new(Reason::NotReady, no).way_out(command))
}

/// Reads `rotation`.
pub(super) fn rotation(section: &Section<'_>) -> Option<CaRotation> {
    section.required("rotation").and_then(|f| f.one_of(&[("automatic", CaRotation::Automatic), ("manual", CaRotation::Manual)]))
}

/// Checks that each entry of `grants` names a scope of the registration, and no scope twice.
pub(super) fn known_scopes<G>(
    field: &Field<'_>,
    around: &SettingsContext<'_>,
    grants: Vec<G>,
    scope: impl Fn(&G) -> &String,
) -> Option<Vec<G>> {
    let unknown = |g: &&G| around.scopes.is_some_and(|known| known.iter().all(|k| k.name != *scope(g)));
    if let Some(unknown) = grants.iter().find(unknown) {
        let what = format!("has scope {:?}, which is not in scopes", scope(unknown));
        return field.wrong(what, "add it to scopes, or correct it");
    }
    let twice = grants.iter().enumerate().find(|(n, g)| grants.iter().take(*n).any(|before| scope(before) == scope(g)));
    match twice {
        Some((_, g)) => field.wrong(format!("has scope {:?} twice", scope(g)), "one entry for each scope"),
        None => Some(grants),
    }
}

/// Checks that the upstream can have a CA of its own.
pub(super) fn path_exists(section: &Section<'_>, around: &SettingsContext<'_>) -> Option<()> {
    let field = section.required("rotation")?;
    for name in [around.environment, around.name].into_iter().flatten() {
        if name.contains('/') {
            let what = format!("is that of a CA of {name}, whose name has a slash");
            return field.wrong(what, "give upstream and environment names without slashes");
        }
    }
    Some(())
}
