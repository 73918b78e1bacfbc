//! The section `[ssh]` of a registration.

use core::net::IpAddr;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::public_key::SshKeyType;
use crate::certificates::{CaRotation, known_scopes, path_exists, rotation};
use mayfly_base::document::{Field, Section};
use mayfly_base::limits;
use mayfly_base::refusal::{Error, Refusal};
use mayfly_ledger::upstream::file::each;
use mayfly_ledger::upstream::settings::SettingsContext;

/// The extensions that a scope may give (PROTOCOL.certkeys), in order.
const EXTENSIONS: &[&str] =
    &["permit-X11-forwarding", "permit-agent-forwarding", "permit-port-forwarding", "permit-pty", "permit-user-rc"];

/// The section, as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SshSettings {
    /// How the CA is followed by the next one.
    pub rotation: CaRotation,
    /// The types of keys that are certified.
    pub key_types: Vec<SshKeyType>,
    /// The entries of `grants`, by scope.
    pub grants: Vec<LoginGrant>,
}

/// The names that one scope gives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoginGrant {
    /// The scope.
    pub scope: String,
    /// The names that the holder may log in as.
    pub principals: Vec<String>,
    /// The one command that the holder may run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub force_command: Option<String>,
    /// The networks that the holder may come from. Empty: any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub source_addresses: Vec<String>,
    /// The extensions: rights besides running a command.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub extensions: Vec<String>,
}

/// The rights of one certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateRights {
    /// The principals, sorted; never empty, since a certificate without principals is good for every account.
    pub principals: Vec<String>,
    /// The critical options, sorted by name.
    pub options: Vec<(&'static str, String)>,
    /// The extensions, sorted by name.
    pub extensions: Vec<(&'static str, String)>,
}

impl SshSettings {
    /// The rights of these scopes together. Refused where they differ in anything but the principals: one certificate would give each scope
    /// the rights of the others.
    pub fn rights(&self, scopes: &[String]) -> Result<CertificateRights, Error> {
        let grants: Option<Vec<&LoginGrant>> =
            scopes.iter().map(|scope| self.grants.iter().find(|grant| grant.scope == *scope)).collect();
        let grants = grants.unwrap_or_default();
        let Some(first) = grants.first() else {
            return Err(Error::Refusal(Refusal::field("scopes", "name a scope without principals in the registration")));
        };
        let alike = |other: &&LoginGrant| {
            first.force_command == other.force_command
                && first.source_addresses == other.source_addresses
                && first.extensions == other.extensions
        };
        if !grants.iter().all(alike) {
            let no = "differ in force_command, source_addresses or extensions, which one certificate has once";
            return Err(Error::Refusal(Refusal::field("scopes", no).way_out("ask for a certificate for each scope")));
        }
        let mut principals: Vec<String> = grants.iter().flat_map(|grant| grant.principals.iter().cloned()).collect();
        principals.sort_unstable();
        principals.dedup();
        let mut options = Vec::new();
        if let Some(command) = &first.force_command {
            options.push(("force-command", command.clone()));
        }
        if !first.source_addresses.is_empty() {
            options.push(("source-address", first.source_addresses.join(",")));
        }
        let given = EXTENSIONS.iter().filter(|name| first.extensions.iter().any(|given| given == *name));
        Ok(CertificateRights { principals, options, extensions: given.map(|name| (*name, String::new())).collect() })
    }
}

/// Reads the section.
pub fn read(section: &Section<'_>, around: &SettingsContext<'_>) -> Option<Value> {
    let rotation = rotation(section);
    let key_types = match section.optional("key_types") {
        Some(field) => each(&field, 1, |f| f.one_of(SshKeyType::NAMES)),
        None => Some(SshKeyType::NAMES.iter().map(|(_, of)| *of).collect()),
    };
    let grants = section.required("grants").and_then(|field| {
        let read: Option<Vec<LoginGrant>> = field.list(limits::TASK_LIST)?.iter().map(|entry| entry.inside(grant)).collect();
        let grants = known_scopes(&field, around, read?, |g| &g.scope)?;
        let missing = around.scopes.and_then(|known| known.iter().find(|k| grants.iter().all(|g| g.scope != k.name)));
        match missing {
            Some(scope) => field.wrong(format!("has no entry for scope {:?}", scope.name), "principals for each scope"),
            None => Some(grants),
        }
    });
    path_exists(section, around)?;
    serde_json::to_value(SshSettings { rotation: rotation?, key_types: key_types?, grants: grants? }).ok()
}

fn grant(section: &Section<'_>) -> Option<LoginGrant> {
    let scope = section.required("scope").and_then(|f| f.text(limits::NAME_BYTES));
    let principals = section.required("principals").and_then(|f| few(&f, principal));
    let force_command = match section.optional("force_command") {
        Some(field) => command(&field).map(Some),
        None => Some(None),
    };
    let source_addresses = section.optional("source_addresses").map_or(Some(Vec::new()), |f| few(&f, network));
    let names: Vec<(&str, &str)> = EXTENSIONS.iter().map(|name| (*name, *name)).collect();
    let extensions =
        section.optional("extensions").map_or(Some(Vec::new()), |f| few(&f, |f| f.one_of(&names).map(str::to_owned)));
    Some(LoginGrant {
        scope: scope?,
        principals: principals?,
        force_command: force_command?,
        source_addresses: source_addresses?,
        extensions: extensions?,
    })
}

/// A list of 1 to `limits::CERTIFICATE_NAMES` values.
fn few(field: &Field<'_>, read: impl Fn(&Field<'_>) -> Option<String>) -> Option<Vec<String>> {
    let mut all = each(field, 1, read)?;
    all.sort_unstable();
    match all.len() <= limits::CERTIFICATE_NAMES {
        true => Some(all),
        false => field.wrong(format!("has {} entries", all.len()), format!("at most {}", limits::CERTIFICATE_NAMES)),
    }
}

/// A principal: visible ASCII without what separates principals in sshd's files.
fn principal(field: &Field<'_>) -> Option<String> {
    let text = field.text(limits::SSH_PRINCIPAL_BYTES)?;
    match !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b',' | b'"' | b'\\' | b'*' | b'?' | b'#'))
    {
        true => Some(text),
        false => field.wrong(format!("is {text:?}"), "the name of an account or role, like deploy"),
    }
}

fn command(field: &Field<'_>) -> Option<String> {
    let text = field.text(limits::SSH_COMMAND_BYTES)?;
    match !text.is_empty() && text.bytes().all(|b| (0x20..0x7f).contains(&b)) {
        true => Some(text),
        false => field.wrong("is not printable ASCII", "a command, like /usr/bin/rsync --server"),
    }
}

/// A network like 10.1.0.0/16, or one address, in the form that sshd reads.
fn network(field: &Field<'_>) -> Option<String> {
    let text = field.text(limits::NAME_BYTES)?;
    let (address, prefix) = text.split_once('/').map_or((text.as_str(), None), |(a, p)| (a, Some(p)));
    let read = |address: IpAddr| {
        let (bits, width) = match address {
            IpAddr::V4(v4) => (u128::from(u32::from(v4)) << 96, 32),
            IpAddr::V6(v6) => (u128::from(v6), 128),
        };
        let prefix: u32 = match prefix {
            Some(text) => text.parse().ok().filter(|n: &u32| n.to_string() == text && *n <= width)?,
            None => width,
        };
        // sshd refuses a network whose address has bits beyond its prefix.
        let within = if prefix == 0 { bits == 0 } else { prefix == 128 || bits & (u128::MAX >> prefix) == 0 };
        within.then_some(())
    };
    match address.parse().ok().and_then(read) {
        Some(()) => Some(text),
        None => field.wrong(format!("is {text:?}"), "an address, or a network like 10.1.0.0/16 with no bits beyond its prefix"),
    }
}
