//! Sections of the configuration that are lists.

/// The environment variable for `[[bundles]]`: `domain=file,domain=file`; for a domain without a file the Workload API gives the bundle.
pub const BUNDLES_VARIABLE: &str = "MAYFLY_BUNDLES";

/// The sections that are lists, each with its description.
pub const LISTS: &[(&str, &str)] = &[
    ("bundles", "One section per trust domain, at least one. `MAYFLY_BUNDLES` replaces all of them."),
    (
        "oidc_issuers",
        "One section per OIDC issuer whose tokens are taken; docs/delegation.md says for what. No variable sets them.",
    ),
    (
        "attestation",
        "One section per rule on which CI jobs and pods are let in; the first that is for a job counts. docs/ci.md. No variable sets them.",
    ),
    ("webhooks", "One section per receiver, at most 8; docs/webhooks.md. No variable sets them."),
];

/// Whether a section is a list.
pub fn is_list(section: &str) -> bool {
    LISTS.iter().any(|(name, _)| *name == section)
}
