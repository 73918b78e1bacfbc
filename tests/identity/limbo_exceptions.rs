//! Where the path step deliberately differs from x509-limbo.

const NO_CRL: &str = "the path step is given no CRLs: trust domains publish none, revoking is by rules on the SVID's anchor, issuing key and serial";
const DEPTH: &str = "the path step takes no depth per call; the chain a peer may send is bounded by CHAIN_CERTIFICATES before it";
const SELF_ISSUED: &str = "webpki has no self-issued certificates on a path: stricter";
const CA_LEAF: &str = "a CA certificate is never accepted as a caller";
const KEY_ID: &str = "key identifiers only help to find a path; webpki finds it by names and signatures";
const EMAIL: &str = "webpki 0.103 refuses constraints on e-mail names, which no SVID needs: stricter";
const NC_FORM: &str =
    "webpki applies name constraints however they are encoded or marked, and ignores them in a leaf: a matter of form";
const NAMES: &str = "name checks are off: the name would only be refused when compared, and no DNS name is ever an identity here";
const ROOT_FORM: &str = "an anchor is trusted for being in the bundle; this is about its form, and it is no less a CA";

/// The case, and why the difference is right for SVIDs.
pub const EXCEPTIONS: &[(&str, &str)] = &[
    ("crl::crlnumber-critical", NO_CRL),
    ("crl::crlnumber-missing", NO_CRL),
    ("crl::issuer-missing-crlsign", NO_CRL),
    ("crl::revoked-certificate-with-crl", NO_CRL),
    ("pathlen::max-chain-depth-0-exhausted", DEPTH),
    ("pathlen::max-chain-depth-1-exhausted", DEPTH),
    ("pathlen::self-issued-certs-pathlen", SELF_ISSUED),
    ("rfc5280::nc::permitted-self-issued", SELF_ISSUED),
    ("pathlen::validation-ignores-pathlen-in-leaf", CA_LEAF),
    ("rfc5280::ca-as-leaf", CA_LEAF),
    ("rfc5280::aki::intermediate-missing-aki", KEY_ID),
    ("rfc5280::aki::leaf-missing-aki", KEY_ID),
    ("rfc5280::ski::intermediate-missing-ski", KEY_ID),
    ("rfc5280::ski::root-missing-ski", KEY_ID),
    ("webpki::aki::root-with-aki-all-fields", KEY_ID),
    ("webpki::aki::root-with-aki-authoritycertissuer", KEY_ID),
    ("webpki::aki::root-with-aki-authoritycertserialnumber", KEY_ID),
    ("webpki::aki::root-with-aki-missing-keyidentifier", KEY_ID),
    ("webpki::aki::root-with-aki-ski-mismatch", KEY_ID),
    ("rfc5280::ca-empty-subject", ROOT_FORM),
    ("rfc5280::root-non-critical-basic-constraints", ROOT_FORM),
    ("webpki::forbidden-rsa-not-divisible-by-8-in-root", ROOT_FORM),
    ("rfc5280::leaf-ku-keycertsign", "KeyUsage is the profile's: LeafKeyCertSign"),
    ("rfc5280::san::noncritical-with-empty-subject", "the SAN's form is the profile's: SanNotCritical"),
    ("rfc5280::nc::nc-permits-email-domain", EMAIL),
    ("rfc5280::nc::nc-permits-email-exact", EMAIL),
    ("rfc5280::nc::nc-permits-email-literal-asterisk-exact-match", EMAIL),
    ("rfc5280::nc::nc-permits-email-literal-double-asterisk", EMAIL),
    ("rfc5280::nc::nc-permits-email-literal-mid-asterisk", EMAIL),
    ("rfc5280::nc::permitted-dn-match", "webpki refuses constraints on directory names: stricter"),
    ("rfc5280::nc::permitted-dns-match-noncritical", NC_FORM),
    ("rfc5280::nc::invalid-dnsname-leading-period", NC_FORM),
    ("rfc5280::nc::not-allowed-in-ee-critical", NC_FORM),
    ("rfc5280::nc::not-allowed-in-ee-noncritical", NC_FORM),
    ("webpki::nc::intermediate-permitted-excluded-subtrees-both-empty-sequences", NC_FORM),
    ("webpki::nc::intermediate-permitted-excluded-subtrees-both-null", NC_FORM),
    ("rfc5280::san::ip-in-dns", NAMES),
    ("rfc5280::san::underscore-dns", NAMES),
    (
        "rfc5280::pc::ica-noncritical-pc",
        "policy constraints are not processed; a critical one is refused, this one is not critical",
    ),
    ("webpki::malformed-aia", "the extension says where to fetch more; nothing is fetched, so it is not read"),
];
