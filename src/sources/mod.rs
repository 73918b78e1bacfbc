//! What is read from outside the process: files of certificates, keys and bundles.

pub mod bundles;
pub mod files;
pub mod svid_files;
