//! What comes from outside the process: the configuration, the files that it names, and files of certificates, keys and bundles.

pub mod bundles;
pub mod config;
pub mod files;
pub mod policy_files;
pub mod svid_files;
pub mod webhook_files;
