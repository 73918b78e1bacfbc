//! Changes of bundles: what is let in, kept out and revoked.
