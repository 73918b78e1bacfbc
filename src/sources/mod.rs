//! What comes from outside the process: the configuration, and the files that it names.

pub mod config;
pub mod policy_files;
