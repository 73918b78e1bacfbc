//! `mayfly server validate`: finds everything that prevents a server from starting on a configuration, without starting it.

use std::path::Path;

use super::check::{self, ConfigCheck};
use mayfly_base::document::Diagnostic;
use mayfly_base::system::System;
use mayfly_config::config::{Config, ConfigFinding, FindingSubject, Severity};

/// The findings, and whether a server would start.
pub struct ValidationReport {
    /// The findings, errors first.
    pub findings: Vec<ConfigFinding>,
    /// Whether none of the findings is an error.
    pub starts: bool,
    /// Whether a server runs on the configuration.
    pub running: bool,
    /// The checks that were left out because the server of this configuration runs.
    pub unchecked: Vec<String>,
}

/// Checks a configuration and everything that it names.
pub fn validate_config(
    path: &Path,
    environment: impl IntoIterator<Item = (String, String)>,
    system: &System,
) -> ValidationReport {
    let ConfigCheck { findings, running, unchecked } = match Config::load(path, environment) {
        Ok(config) => check::for_validation(&config, system),
        Err(wrong) => ConfigCheck { findings: wrong.into_iter().map(error).collect(), ..ConfigCheck::default() },
    };
    let starts = findings.iter().all(|f| f.severity != Severity::Error);
    ValidationReport { findings, starts, running, unchecked }
}

fn error(complaint: Diagnostic) -> ConfigFinding {
    ConfigFinding { severity: Severity::Error, about: FindingSubject::Everything, complaint }
}
