//! What is read from outside the process: files of certificates, keys and bundles.

pub mod bundles;
pub mod config;
pub mod files;
pub mod policy_files;
pub mod svid_files;
