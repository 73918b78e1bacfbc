//! Sections of the configuration that are lists.

/// The environment variable for `[[bundles]]`: `domain=file,domain=file`; for a domain without a file the Workload API gives the bundle.
pub const BUNDLES_VARIABLE: &str = "MAYFLY_BUNDLES";

/// The sections that are lists, each with its description.
pub const LISTS: &[(&str, &str)] = &[
    ("bundles", "One section per trust domain, at least one. `MAYFLY_BUNDLES` replaces all of them."),
    (
        "oidc_issuers",
        "One section per OIDC issuer whose tokens are accepted: of people (docs/people.md), of CI jobs (docs/ci.md), and subject tokens (docs/delegation.md). No variable sets these sections.",
    ),
    (
        "attestation",
        "One section per rule that admits CI jobs and pods; the first rule that matches a job is applied. See docs/ci.md. No variable sets these sections.",
    ),
    (
        "rotation_hooks",
        "One section per upstream of kind `secret` whose secret a program on this host rotates. See docs/upstreams/secret.md. No variable sets these sections.",
    ),
    ("webhooks", "One section per receiver, at most 8. See docs/webhooks.md. No variable sets these sections."),
];

/// Whether a section is a list.
pub fn is_list(section: &str) -> bool {
    LISTS.iter().any(|(name, _)| *name == section)
}
