//! The findings of `validate` in a configuration and the files beside it, one defect at a time.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use mayfly::seq::Millis;
use mayfly::sources::config::{Config, ConfigFinding, Severity, validate};

/// November 2026.
const NOW: Millis = Millis(1_795_000_000_000);

/// A directory with all files that a configuration names.
struct Host {
    dir: tempfile::TempDir,
    ca: Ca,
}

struct Ca {
    params: rcgen::CertificateParams,
    key: rcgen::KeyPair,
}

impl Ca {
    fn new(name: &str) -> Ca {
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign];
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        Ca { params, key: rcgen::KeyPair::generate().unwrap() }
    }

    fn pem(&self) -> String {
        self.params.self_signed(&self.key).unwrap().pem()
    }

    /// An intermediate CA under this one, and its certificate.
    fn under(&self, name: &str) -> (Ca, String) {
        let below = Ca::new(name);
        let pem = below.params.signed_by(&below.key, &self.issuer()).unwrap().pem();
        (below, pem)
    }

    fn issuer(&self) -> rcgen::Issuer<'_, &rcgen::KeyPair> {
        rcgen::Issuer::from_params(&self.params, &self.key)
    }
}

impl Host {
    fn new() -> Host {
        let host = Host { dir: tempfile::tempdir().unwrap(), ca: Ca::new("dev CA") };
        let samples = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/cli/samples");
        fs::create_dir(host.path("upstreams")).unwrap();
        fs::create_dir(host.path("data")).unwrap();
        for file in ["policy.cedar", "roles.toml", "upstreams/echo.toml", "upstreams/repos.toml", "upstreams/tickets.toml"] {
            fs::copy(samples.join(file), host.path(file)).unwrap();
        }
        host.write("mayfly.toml", include_str!("../samples/mayfly.toml"));
        host.write("bundle.pem", &host.ca.pem());
        host.secret("seal.key", "0123456789abcdef0123456789abcdeF");
        host.svid(&["mayfly.example.org"], &["spiffe://dev.mayfly.internal/mayfly"], 2040);
        host
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    fn secret(&self, name: &str, text: &str) {
        self.write(name, text);
        self.mode(name, 0o600);
    }

    fn mode(&self, name: &str, mode: u32) {
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(mode)).unwrap();
    }

    fn change(&self, name: &str, from: &str, to: &str) {
        let text = fs::read_to_string(self.path(name)).unwrap();
        assert!(text.contains(from), "{from} in {name}");
        self.write(name, &text.replacen(from, to, 1));
    }

    fn svid(&self, dns: &[&str], uris: &[&str], until: i32) {
        self.svid_of(&self.ca, dns, uris, until);
    }

    fn svid_of(&self, ca: &Ca, dns: &[&str], uris: &[&str], until: i32) {
        let mut params = rcgen::CertificateParams::new(dns.iter().map(|d| d.to_string()).collect::<Vec<_>>()).unwrap();
        for uri in uris {
            params.subject_alt_names.push(rcgen::SanType::URI((*uri).try_into().unwrap()));
        }
        params.key_usages = vec![rcgen::KeyUsagePurpose::DigitalSignature];
        params.not_after = rcgen::date_time_ymd(until, 1, 1);
        let key = rcgen::KeyPair::generate().unwrap();
        self.write("svid.pem", &params.signed_by(&key, &ca.issuer()).unwrap().pem());
        self.secret("svid.key", &key.serialize_pem());
    }

    fn findings(&self) -> Vec<ConfigFinding> {
        let config = Config::load(&self.path("mayfly.toml"), []).unwrap_or_else(|wrong| panic!("{wrong:#?}"));
        let findings = validate(&config, NOW);
        for finding in &findings {
            let what = &finding.complaint.what;
            let key = what.split(": ").next().unwrap();
            assert!(!what.starts_with(&format!("{key}: {key}:")), "its key is named twice: {what}");
        }
        findings
    }

    fn said(&self) -> String {
        self.findings().iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    }
}

#[test]
fn a_host_in_order_has_no_findings() {
    assert_eq!(Host::new().said(), "");
}

#[test]
fn a_file_that_is_not_there_is_told_with_its_line() {
    let host = Host::new();
    let missing = Config::load(&host.path("nowhere.toml"), []).unwrap_err();
    assert!(missing[0].to_string().contains("nowhere.toml: cannot be read"));
    for (file, line) in [
        ("svid.pem", ":7: tls.certificate"),
        ("svid.key", ":8: tls.key"),
        ("bundle.pem", ":11: bundles.file"),
        ("seal.key", ":15: seal.key_file"),
    ] {
        let host = Host::new();
        fs::remove_file(host.path(file)).unwrap();
        let findings = host.findings();
        assert_eq!(findings.len(), 1, "{findings:#?}");
        assert!(
            findings[0].severity == Severity::Error && host.said().contains(line) && host.said().contains(file),
            "{}",
            host.said()
        );
    }
    for (file, line) in
        [("policy.cedar", ":17: policy.files"), ("roles.toml", ":18: policy.roles"), ("upstreams", ":19: policy.upstreams")]
    {
        let host = Host::new();
        fs::rename(host.path(file), host.path("gone")).unwrap();
        let said = host.said();
        assert!(said.contains(&format!("{file}: cannot be read")) && said.contains(line), "{said}");
    }
}

/// A file without an end would take all memory, and a pipe without a writer would take all time.
#[test]
fn a_device_or_a_pipe_is_refused_in_the_place_of_each_file() {
    let named = ["mayfly.toml", "svid.pem", "svid.key", "bundle.pem", "seal.key", "policy.cedar", "roles.toml"];
    for (file, pipe) in named.iter().flat_map(|file| [(*file, false), (*file, true)]) {
        let host = Host::new();
        let path = host.path(file);
        fs::remove_file(&path).unwrap();
        match pipe {
            true => assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success()),
            false => std::os::unix::fs::symlink("/dev/zero", &path).unwrap(),
        }
        let said = match Config::load(&host.path("mayfly.toml"), []) {
            Ok(_) => host.said(),
            Err(wrong) => wrong[0].to_string(),
        };
        assert!(said.contains(file) && said.contains("not a regular file"), "{file}: {said}");
    }
}

#[test]
fn a_set_that_leaves_nobody_who_may_act_is_found() {
    let host = Host::new();
    host.change("policy.cedar", "action in Action::\"Admin\"", "action == Action::\"Observe\"");
    let findings = host.findings();
    assert_eq!((findings.len(), findings[0].severity), (1, Severity::Error), "{findings:#?}");
    let said = host.said();
    for part in
        ["nobody may do ManagePolicy, Revoke or Lock in environment dev", "listen.admin_socket", "admin.single_operator = true"]
    {
        assert!(said.contains(part), "{part} in\n{said}");
    }
    // The uids of the socket may revoke and lock, and alone they may change policy.
    fs::create_dir(host.path("run")).unwrap();
    host.mode("run", 0o700);
    host.change("mayfly.toml", "[tls]", "[listen]\nadmin_socket = \"run/admin.sock\"\n[tls]");
    let findings = host.findings();
    assert_eq!((findings.len(), findings[0].severity), (1, Severity::Warning), "{findings:#?}");
    assert!(host.said().contains("except over the local socket"), "{}", host.said());
    host.change("mayfly.toml", "[tls]", "[admin]\nsingle_operator = true\n[tls]");
    assert_eq!(host.said(), "");
}

#[test]
fn a_certificate_that_clients_will_refuse_is_found() {
    type Svid = (&'static [&'static str], &'static [&'static str], i32, Severity, &'static str);
    let cases: [Svid; 5] = [
        (&[], &["spiffe://dev.mayfly.internal/mayfly"], 2040, Severity::Warning, "has no DNS name"),
        (&["a.example"], &[], 2040, Severity::Error, "has no SPIFFE ID"),
        (&["a.example"], &["spiffe://other/mayfly"], 2040, Severity::Error, "no single SPIFFE ID in dev.mayfly.internal"),
        (
            &["a.example"],
            &["spiffe://dev.mayfly.internal/a", "spiffe://dev.mayfly.internal/b"],
            2040,
            Severity::Error,
            "no single SPIFFE ID",
        ),
        (&["a.example"], &["spiffe://dev.mayfly.internal/mayfly"], 2025, Severity::Error, "expired on"),
    ];
    for (dns, uris, until, severity, part) in cases {
        let host = Host::new();
        host.svid(dns, uris, until);
        let findings = host.findings();
        assert_eq!(findings.len(), 1, "{findings:#?}");
        assert_eq!(findings[0].severity, severity);
        assert!(host.said().contains(":7: tls.certificate") && host.said().contains(part), "{}", host.said());
    }
    let host = Host::new();
    host.write("svid.pem", "nothing");
    assert!(host.said().contains("holds no certificate"));
    host.secret("svid.key", "nothing");
    assert!(host.said().contains(":8: tls.key") && host.said().contains("no private key"));
}

#[test]
fn a_certificate_that_no_root_of_its_own_trust_domain_vouches_for_is_found() {
    let names = (&["mayfly.example.org"][..], &["spiffe://dev.mayfly.internal/mayfly"][..]);
    let host = Host::new();
    let finds = |why: &str| {
        let findings = host.findings();
        assert_eq!((findings.len(), findings[0].severity), (1, Severity::Error), "{why}: {findings:#?}");
        let said = host.said();
        for part in [":7: tls.certificate", "no root in ", "/bundle.pem", "/svid.pem", "mayfly svid check --bundle ", why] {
            assert!(said.contains(part), "{part:?} is not in {said}");
        }
    };
    // Another CA with the same name: only its key differs.
    host.svid_of(&Ca::new("dev CA"), names.0, names.1, 2040);
    finds("dev.mayfly.internal");
    // An intermediate CA that the file leaves out; with the intermediate the configuration is valid.
    let (below, between) = host.ca.under("between");
    host.svid_of(&below, names.0, names.1, 2040);
    finds("so its workloads refuse this server");
    let leaf = fs::read_to_string(host.path("svid.pem")).unwrap();
    host.write("svid.pem", &format!("{leaf}{between}"));
    assert_eq!(host.said(), "");
    // An empty bundle is an error, too.
    host.write("bundle.pem", "{\"keys\": []}");
    finds("dev.mayfly.internal");
    // Without a bundle of the domain there is nothing to compare with; the missing bundle is reported itself.
    host.change(
        "mayfly.toml",
        "[[bundles]]\ntrust_domain = \"dev.mayfly.internal\"",
        "[[bundles]]\ntrust_domain = \"other.example\"",
    );
    assert!(!host.said().contains("no root in") && host.said().contains("no bundle for dev.mayfly.internal"), "{}", host.said());
}

/// Defects that are found only by reading the contents of files, as the start does.
#[test]
fn contents_that_a_start_refuses_are_found() {
    let host = Host::new();
    let other = Host::new();
    fs::copy(other.path("svid.key"), host.path("svid.key")).unwrap();
    assert!(host.said().contains(":8: tls.key") && host.said().contains("does not belong"), "{}", host.said());
    for (bundle, part) in
        [("hello", "bundle.pem "), ("-----BEGIN CERTIFICATE-----\n", "bundle.pem "), ("{\"keys\":", "bundle.pem ")]
    {
        let host = Host::new();
        host.write("bundle.pem", bundle);
        let findings = host.findings();
        assert_eq!((findings.len(), findings[0].severity), (1, Severity::Error), "{findings:#?}");
        assert!(host.said().contains(":11: bundles.file") && host.said().contains(part), "{}", host.said());
        assert!(host.said().contains("the CA certificates of dev.mayfly.internal"), "{}", host.said());
    }
    for (key, part) in [("0123456789abcdef", "16 bytes"), ("kkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkk", "one byte repeated")] {
        let host = Host::new();
        host.secret("seal.key", key);
        assert!(host.said().contains(":15: seal.key_file") && host.said().contains(part), "{}", host.said());
        assert!(host.said().contains("head -c 32 /dev/urandom"), "{}", host.said());
    }
    // The certificate of a CA is no SVID, although its name is one.
    let host = Host::new();
    let mut params = rcgen::CertificateParams::new(vec!["mayfly.example.org".to_owned()]).unwrap();
    params.subject_alt_names.push(rcgen::SanType::URI("spiffe://dev.mayfly.internal/mayfly".try_into().unwrap()));
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.key_usages = vec![rcgen::KeyUsagePurpose::DigitalSignature];
    params.not_after = rcgen::date_time_ymd(2040, 1, 1);
    let key = rcgen::KeyPair::generate().unwrap();
    host.write("svid.pem", &params.self_signed(&key).unwrap().pem());
    host.secret("svid.key", &key.serialize_pem());
    assert!(host.said().contains(":7: tls.certificate") && host.said().contains("is no X.509-SVID"), "{}", host.said());
}

#[test]
fn keys_that_others_can_read_are_found() {
    for (file, mode, severity, part) in [
        ("svid.key", 0o644, Severity::Error, "every user (mode 644)"),
        ("svid.key", 0o640, Severity::Warning, "its group (mode 640)"),
        ("seal.key", 0o640, Severity::Error, "by others (mode 640)"),
    ] {
        let host = Host::new();
        host.mode(file, mode);
        let findings = host.findings();
        assert_eq!((findings.len(), findings[0].severity), (1, severity), "{findings:#?}");
        assert!(host.said().contains(part) && host.said().contains("chmod 600"), "{}", host.said());
    }
    let host = Host::new();
    fs::rename(host.path("seal.key"), host.path("data/seal.key")).unwrap();
    host.change("mayfly.toml", "\"seal.key\"", "\"data/seal.key\"");
    assert!(host.said().contains("lies in the data directory"));
}

#[test]
fn listeners_and_directories_that_cannot_work_are_found() {
    let host = Host::new();
    host.change("mayfly.toml", "[tls]", "[listen]\nadmin = \"127.0.0.1:7000\"\npublic = \"0.0.0.0:7000\"\n[tls]");
    assert!(host.said().contains(":8: listen.public: 0.0.0.0:7000 is taken by listen.admin"), "{}", host.said());

    let host = Host::new();
    host.change("mayfly.toml", "[tls]", "[listen]\nadmin_socket = \"run/admin.sock\"\n[tls]");
    assert!(host.said().contains("run/admin.sock is not there"), "{}", host.said());

    let host = Host::new();
    host.change("mayfly.toml", "[tls]", "[admin]\nuids = [0]\n[tls]");
    assert!(host.said().contains("warning: ") && host.said().contains("no listen.admin_socket"), "{}", host.said());

    let host = Host::new();
    host.change("mayfly.toml", "path = \"data\"", "path = \"roles.toml\"");
    assert!(host.said().contains("roles.toml is not a directory"), "{}", host.said());

    let host = Host::new();
    host.change("mayfly.toml", "path = \"data\"", "engine = \"memory\"");
    assert!(host.said().contains("nothing survives a restart in memory"), "{}", host.said());
}

#[test]
fn what_an_oidc_issuer_names_is_looked_at_and_nobody_is_asked() {
    let host = Host::new();
    let section = "[[oidc_issuers]]\nname = \"idp\"\nissuer = \"https://idp.invalid\"\nenvironments = [\"dev\", \"prod\"]\nuses = [\"subject\"]\n\
                   ca_file = \"roots.pem\"\njwks = \"keys.json\"\n[store]";
    host.change("mayfly.toml", "[store]", section);
    let said = host.said();
    for part in [
        ":15: oidc_issuers.environments: idp names environment prod",
        ":17: oidc_issuers.ca_file: idp: ",
        "roots.pem",
        ":18: oidc_issuers.jwks: idp: ",
        "keys.json",
        ":12: oidc_issuers: idp has neither scopes_claim nor rights",
    ] {
        assert!(said.contains(part), "{part} in\n{said}");
    }
    host.write("keys.json", "{\"keys\": []}");
    host.write("roots.pem", "nothing");
    let said = host.said();
    for part in ["no key that verifies", "no CA certificate in PEM"] {
        assert!(said.contains(part), "{part} in\n{said}");
    }
}

#[test]
fn what_is_wrong_in_a_section_of_a_list_is_told_with_its_key_and_line() {
    let host = Host::new();
    let section = "[[webhooks]]\nname = \"pager\"\nurl = \"https://h.example/\"\nsecret_file = \"no.secret\"\nca = \"no.pem\"\n\
                   environments = [\"prod\"]\n[store]";
    host.change("mayfly.toml", "[store]", section);
    let said = host.said();
    for part in [
        ":15: webhooks.secret_file: pager: ",
        "no.secret: ",
        ":16: webhooks.ca: pager: ",
        "no.pem: ",
        ":17: webhooks.environments: pager: environment prod",
    ] {
        assert!(said.contains(part), "{part} in\n{said}");
    }
    let host = Host::new();
    let rule = |name: &str| {
        format!(
            "[[attestation]]\nname = \"{name}\"\nissuer = \"hub\"\nclaims = {{ repository_id = \"12\", ref = \"refs/heads/main\" }}\n"
        )
    };
    let section = format!(
        "[own_domain]\ntrust_domain = \"ci.example.org\"\n[[oidc_issuers]]\nname = \"hub\"\nissuer = \"https://hub.example\"\n\
         environments = [\"dev\"]\nuses = [\"attest\"]\nplatform = \"github\"\n{}{}[store]",
        rule("first"),
        rule("later")
    );
    host.change("mayfly.toml", "[store]", &section);
    assert!(host.said().contains(":24: attestation: rule later is never the first that fits"), "{}", host.said());
}

#[test]
fn names_that_only_the_whole_shows_to_be_wrong_are_found() {
    for (file, from, to, parts) in [
        (
            "policy.cedar",
            "Upstream::\"echo\"",
            "Upstream::\"ecco\"",
            &["warning: ", "Upstream::\"ecco\", which is not registered"][..],
        ),
        ("policy.cedar", "context.act_depth", "context.act_deep", &["error: ", "policy.cedar:", "act_deep"]),
        (
            "mayfly.toml",
            "[\"dev\"]",
            "[\"prod\"]",
            &["the roles file has environment dev", "upstream echo is in environment dev"],
        ),
        ("upstreams/echo.toml", "2099-12-31", "2001-01-01", &["warning: ", "upstream echo expired"]),
        (
            "upstreams/echo.toml",
            "//dev.mayfly.internal/service",
            "//elsewhere/service",
            &["warning: ", "spiffe://elsewhere/service/echo"],
        ),
        ("upstreams/echo.toml", "owner", "ownr", &["upstreams/echo.toml:2:1", "did you mean owner?"]),
        (
            "upstreams/echo.toml",
            "http://127.0.0.1:7780",
            "https://repos.dev.mayfly.internal",
            &["upstream repos has the same target as upstream echo"],
        ),
        ("roles.toml", "under =", "undr =", &["roles.toml:4:1", "did you mean under?"]),
        ("mayfly.toml", "= \"dev.mayfly.internal\"\nfile", "= \"other\"\nfile", &["no bundle for dev.mayfly.internal"]),
    ] {
        let host = Host::new();
        host.change(file, from, to);
        let said = host.said();
        for part in parts {
            assert!(said.contains(part), "{part} in\n{said}");
        }
    }
    let host = Host::new();
    host.write("bundle.pem", "\n");
    assert!(host.said().contains(":11: bundles.file") && host.said().contains("is empty"), "{}", host.said());
}

#[test]
fn policies_come_from_directories_in_the_order_of_their_names() {
    let host = Host::new();
    fs::create_dir(host.path("policies")).unwrap();
    fs::rename(host.path("policy.cedar"), host.path("policies/b.cedar")).unwrap();
    host.write("policies/a.cedar", "permit (principal, action == Action::\"Observe\", resource);");
    host.write("policies/.#c.cedar", "left by an editor");
    host.change("mayfly.toml", "policy.cedar", "policies");
    assert_eq!(host.said(), "");
    let config = Config::load(&host.path("mayfly.toml"), []).unwrap();
    let loaded = mayfly::sources::policy_files::load(&config.policy).unwrap();
    assert!(loaded.policy.ids().contains(&"a.cedar#1".to_owned()));
    assert!(!loaded.policy.to_text().contains(host.dir.path().to_str().unwrap()));
    assert_eq!(loaded.upstreams.len(), 3);
    assert_eq!(config.line_of("policy.roles"), 18);
}
