//! Certificates, keys and bundles from files.
