//! The table of connectors: the kinds whose credentials an upstream makes, as far as this build has them.
//!
//! A connector is a folder beside this file and a line in [`TABLE`]; docs/adding-a-kind.md leads through it.

use std::path::PathBuf;
use std::sync::{Arc, LazyLock};

use super::access::UpstreamAccess;
use super::connector::{UpstreamConnector, UpstreamConnectors};
use super::{CredentialKind, certificates};
use mayfly_base::system::System;
use mayfly_ledger::upstream::settings::SettingsReader;

/// A connector's line in the table.
pub struct ConnectorEntry {
    /// The kind, and the reader of its section of a registration.
    pub settings: SettingsReader,
    /// Makes the connector of a server.
    pub build: fn(UpstreamAccess) -> Arc<dyn UpstreamConnector>,
    /// A registration to start from, with comments: what `mayfly upstream template` prints.
    pub template: &'static str,
}

impl ConnectorEntry {
    /// The kind of its credentials.
    pub fn kind(&self) -> Option<CredentialKind> {
        CredentialKind::from_number(u32::from(self.settings.kind.tag()))
    }
}

/// The connectors of this build.
pub const TABLE: &[ConnectorEntry] = &[
    #[cfg(feature = "oauth")]
    super::oauth::ENTRY,
    #[cfg(feature = "postgres")]
    super::postgres::ENTRY,
    #[cfg(feature = "secret")]
    super::secret::ENTRY,
    #[cfg(feature = "github")]
    super::github::ENTRY,
    #[cfg(feature = "federation")]
    super::federation::ENTRY,
    #[cfg(feature = "aws")]
    super::aws::ENTRY,
    #[cfg(feature = "mysql")]
    super::mysql::ENTRY,
    #[cfg(feature = "redis")]
    super::redis::ENTRY,
];

/// The readers of the sections of registrations, for [`mayfly_ledger::upstream::file::parse`].
pub static READERS: LazyLock<Vec<SettingsReader>> = LazyLock::new(|| {
    TABLE.iter().map(|entry| entry.settings).chain(certificates::TABLE.iter().map(|entry| entry.settings)).collect()
});

/// The registrations to start from, by the name of their kind: of connectors, and of the kinds of certificates.
pub fn templates() -> impl Iterator<Item = (&'static str, &'static str)> {
    let made_there = TABLE.iter().map(|entry| (entry.settings.kind.as_str(), entry.template));
    made_there.chain(certificates::TABLE.iter().map(|entry| (entry.settings.kind.as_str(), entry.template)))
}

/// Whether this build has the connector of a kind.
pub fn has(kind: CredentialKind) -> bool {
    TABLE.iter().any(|entry| entry.kind() == Some(kind))
}

/// The connectors of a server. `secrets_dir`: `upstreams.secrets_dir` of its configuration.
pub fn built_in(secrets_dir: Option<PathBuf>, system: &System) -> UpstreamConnectors {
    let access = UpstreamAccess::new(secrets_dir, system.clone());
    TABLE.iter().fold(UpstreamConnectors::over(access.vault().clone()), |all, entry| all.with((entry.build)(access.clone())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use mayfly_base::document::SourceFile;
    use mayfly_ledger::upstream::file;

    #[test]
    fn each_template_is_a_registration_of_its_kind() {
        for entry in TABLE {
            let kind = entry.kind().expect("both tables name it");
            assert!(kind.served() && !kind.made_locally());
            let source = SourceFile::new("template.toml", entry.template);
            let upstream = file::parse(&source, &READERS).unwrap_or_else(|wrong| panic!("{wrong:#?}"));
            assert_eq!(upstream.kinds, [entry.settings.kind]);
            assert!(upstream.settings.of(kind.name()).is_some());
        }
        for entry in certificates::TABLE {
            let upstream = file::parse(&SourceFile::new("template.toml", entry.template), &READERS);
            let upstream = upstream.unwrap_or_else(|wrong| panic!("{wrong:#?}"));
            assert_eq!(upstream.kinds, [entry.settings.kind]);
            assert!(entry.settings.kind.is_certificate() && certificates::needed(&upstream).len() == 1);
        }
    }
}
