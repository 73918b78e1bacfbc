//! `mayfly server validate`: everything that is wrong with a configuration, without starting.

use std::path::Path;

use crate::document::Complaint;
use crate::seq::Millis;
use crate::sources::config::{Config, Finding, Severity, validate};

/// What was found, and whether a server would start on it.
pub struct Report {
    /// Errors first.
    pub findings: Vec<Finding>,
    /// None of them is an error.
    pub starts: bool,
}

/// Looks at a configuration and at what it names.
pub fn look(path: &Path, environment: impl IntoIterator<Item = (String, String)>, now: Millis) -> Report {
    let findings = match Config::load(path, environment) {
        Ok(config) => validate(&config, now),
        Err(wrong) => wrong.into_iter().map(error).collect(),
    };
    let starts = findings.iter().all(|f| f.severity != Severity::Error);
    Report { findings, starts }
}

fn error(complaint: Complaint) -> Finding {
    Finding { severity: Severity::Error, complaint }
}
