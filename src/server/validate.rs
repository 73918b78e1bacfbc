//! `mayfly server validate`: everything that keeps a server from starting on a configuration, without starting.

use std::path::Path;

use super::check;
use crate::document::Complaint;
use crate::sources::config::{About, Config, Finding, Severity};
use crate::system::System;

/// What was found, and whether a server would start on it.
pub struct Report {
    /// Errors first.
    pub findings: Vec<Finding>,
    /// None of them is an error.
    pub starts: bool,
    /// A server runs on it: its store and its ports were not opened.
    pub running: bool,
}

/// Looks at a configuration and at what it names.
pub fn look(path: &Path, environment: impl IntoIterator<Item = (String, String)>, system: &System) -> Report {
    let (findings, running) = match Config::load(path, environment) {
        Ok(config) => check::for_validation(&config, system),
        Err(wrong) => (wrong.into_iter().map(error).collect(), false),
    };
    let starts = findings.iter().all(|f| f.severity != Severity::Error);
    Report { findings, starts, running }
}

fn error(complaint: Complaint) -> Finding {
    Finding { severity: Severity::Error, about: About::Everything, complaint }
}
