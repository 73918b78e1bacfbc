//! What comes from outside the process: the configuration, the files that it names, files of certificates, keys and bundles, what the agent
//! of this host gives (the SPIFFE Workload API), and what others publish.
#![forbid(unsafe_code)]

pub mod bundles;
pub mod config;
pub mod files;
pub mod https;
pub mod oidc;
pub mod policy_files;
pub mod svid_files;
pub mod token_file;
pub mod webhook_files;
pub mod workload_api;
