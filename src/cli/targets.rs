//! The targets of revocations and locks, as flags. A flag with several values takes them as separate arguments, so no separator can be
//! ambiguous.

use clap::Args;

use super::args;
use super::error::CliError;
use super::out::escape;
use super::out::tree::OrderedJson;
use mayfly_proto::mayfly::v1 as pb;
use mayfly_proto::mayfly::v1::target::Target as Kind;

/// All kinds of targets. Each flag can be repeated; all flags together make one revocation rule.
#[derive(Args, Clone, Default, Debug)]
#[command(next_help_heading = "Targets")]
pub struct TargetArgs {
    /// Credential, and everything derived from it
    #[arg(long, value_name = "ID", value_parser = args::credential_id)]
    pub credential: Vec<String>,
    /// Task and its child tasks
    #[arg(long, value_name = "ID", value_parser = args::task_id)]
    pub task: Vec<String>,
    /// Root certificate, by trust domain and SHA-256
    #[arg(long, num_args = 2, value_names = ["TRUST_DOMAIN", "SHA256"])]
    pub trust_anchor: Vec<String>,
    /// Binding, by name
    #[arg(long, value_name = "NAME")]
    pub binding: Vec<String>,
    /// Decisions made with a policy older than this version, by environment and version
    #[arg(long, num_args = 2, value_names = ["ENVIRONMENT", "VERSION"])]
    pub policy_below: Vec<String>,
    /// Signing key, by id, regardless of the claims of the tokens it signed
    #[arg(long, value_name = "KEY_ID")]
    pub signing_key: Vec<String>,
    /// X.509-SVID, by trust domain, SHA-256 of the issuer's public key, and serial number in hexadecimal
    #[arg(long, num_args = 3, value_names = ["TRUST_DOMAIN", "ISSUING_KEY_SHA256", "SERIAL"])]
    pub svid: Vec<String>,
    /// Subject token, by issuer and id
    #[arg(long, num_args = 2, value_names = ["ISSUER", "TOKEN_ID"])]
    pub subject_token: Vec<String>,
    #[command(flatten, next_help_heading = "Targets that a revocation also locks")]
    pub lockable: LockableArgs,
}

/// The targets that can also be locked, which blocks new grants for them.
#[derive(Args, Clone, Default, Debug)]
pub struct LockableArgs {
    /// Caller, by SPIFFE ID
    #[arg(long, value_name = "SPIFFE_ID")]
    pub caller: Vec<String>,
    /// All SPIFFE IDs equal to or below this one, by whole path segments
    #[arg(long, value_name = "SPIFFE_ID")]
    pub prefix: Vec<String>,
    /// Trust domain, by name
    #[arg(long, value_name = "NAME")]
    pub trust_domain: Vec<String>,
    /// Subject on whose behalf credentials are issued, by issuer and subject
    #[arg(long, num_args = 2, value_names = ["ISSUER", "SUB"])]
    pub subject: Vec<String>,
    /// Upstream, by name
    #[arg(long, value_name = "NAME")]
    pub upstream: Vec<String>,
    /// One scope of an upstream
    #[arg(long, num_args = 2, value_names = ["UPSTREAM", "SCOPE"])]
    pub upstream_scope: Vec<String>,
    /// Tool, by name
    #[arg(long, value_name = "NAME")]
    pub tool: Vec<String>,
    /// Environment, by name
    #[arg(long, value_name = "NAME")]
    pub environment: Vec<String>,
    /// Everything ever issued
    #[arg(long)]
    pub everything: bool,
}

fn target(kind: Kind) -> pb::Target {
    pb::Target { target: Some(kind) }
}

fn wrong(flag: &str, what: String) -> CliError {
    CliError::Usage(format!("--{flag}: {what}"))
}

impl TargetArgs {
    /// The targets, in the order in which the flags are declared.
    pub fn targets(&self) -> Result<Vec<pb::Target>, CliError> {
        let mut out: Vec<pb::Target> = Vec::new();
        out.extend(self.credential.iter().cloned().map(|id| target(Kind::CredentialId(id))));
        out.extend(self.task.iter().cloned().map(|id| target(Kind::TaskId(id))));
        for pair in self.trust_anchor.chunks(2) {
            let [trust_domain, digest] = pair else { continue };
            let sha256 = args::sha256(digest).map_err(|e| wrong("trust-anchor", e))?.to_vec().into();
            out.push(target(Kind::TrustAnchor(pb::TrustAnchorTarget { trust_domain: trust_domain.clone(), sha256 })));
        }
        out.extend(self.binding.iter().cloned().map(|name| target(Kind::Binding(name))));
        for pair in self.policy_below.chunks(2) {
            let [environment, version] = pair else { continue };
            let version =
                version.parse().map_err(|_| wrong("policy-below", format!("expected a version number, found {version:?}")))?;
            out.push(target(Kind::PolicyBelow(pb::PolicyBelowTarget { environment: environment.clone(), version })));
        }
        out.extend(self.signing_key.iter().cloned().map(|id| target(Kind::SigningKey(id))));
        for triple in self.svid.chunks(3) {
            let [trust_domain, issuing_key, serial] = triple else { continue };
            let issuing_key_sha256 = args::sha256(issuing_key).map_err(|e| wrong("svid", e))?.to_vec().into();
            // The server expects the serial number without the zero byte that DER and openssl put before a set high bit.
            let serial = args::hex(serial).map_err(|e| wrong("svid", e))?.into_iter().skip_while(|b| *b == 0).collect::<Vec<_>>();
            let svid = pb::SvidTarget { trust_domain: trust_domain.clone(), issuing_key_sha256, serial: serial.into() };
            out.push(target(Kind::Svid(svid)));
        }
        for pair in self.subject_token.chunks(2) {
            let [issuer, id] = pair else { continue };
            out.push(target(Kind::SubjectToken(pb::SubjectTokenTarget { issuer: issuer.clone(), id: id.clone() })));
        }
        out.extend(self.lockable.targets());
        Ok(out)
    }
}

impl LockableArgs {
    /// The targets, in the order in which the flags are declared.
    pub fn targets(&self) -> Vec<pb::Target> {
        let mut out: Vec<pb::Target> = Vec::new();
        out.extend(self.caller.iter().cloned().map(|id| target(Kind::Caller(id))));
        out.extend(self.prefix.iter().cloned().map(|id| target(Kind::SpiffeIdPrefix(id))));
        out.extend(self.trust_domain.iter().cloned().map(|name| target(Kind::TrustDomain(name))));
        for pair in self.subject.chunks(2) {
            let [issuer, sub] = pair else { continue };
            out.push(target(Kind::Subject(pb::Subject { issuer: issuer.clone(), sub: sub.clone() })));
        }
        out.extend(self.upstream.iter().cloned().map(|name| target(Kind::Upstream(name))));
        for pair in self.upstream_scope.chunks(2) {
            let [upstream, scope] = pair else { continue };
            out.push(target(Kind::UpstreamScope(pb::UpstreamScopeTarget { upstream: upstream.clone(), scope: scope.clone() })));
        }
        out.extend(self.tool.iter().cloned().map(|name| target(Kind::Tool(name))));
        out.extend(self.environment.iter().cloned().map(|name| target(Kind::Environment(name))));
        out.extend(self.everything.then(|| target(Kind::Everything(pb::EverythingTarget {}))));
        out
    }
}

/// The flag of a target, and its values as they would be typed.
pub fn flag_and_values(target: &pb::Target) -> (&'static str, Vec<String>) {
    let hex = |bytes: &[u8]| data_encoding::HEXLOWER.encode(bytes);
    match &target.target {
        Some(Kind::CredentialId(id)) => ("credential", vec![id.clone()]),
        Some(Kind::TaskId(id)) => ("task", vec![id.clone()]),
        Some(Kind::Caller(id)) => ("caller", vec![id.clone()]),
        Some(Kind::SpiffeIdPrefix(id)) => ("prefix", vec![id.clone()]),
        Some(Kind::TrustDomain(name)) => ("trust-domain", vec![name.clone()]),
        Some(Kind::TrustAnchor(t)) => ("trust-anchor", vec![t.trust_domain.clone(), hex(&t.sha256)]),
        Some(Kind::Subject(s)) => ("subject", vec![s.issuer.clone(), s.sub.clone()]),
        Some(Kind::Upstream(name)) => ("upstream", vec![name.clone()]),
        Some(Kind::UpstreamScope(t)) => ("upstream-scope", vec![t.upstream.clone(), t.scope.clone()]),
        Some(Kind::Binding(name)) => ("binding", vec![name.clone()]),
        Some(Kind::Tool(name)) => ("tool", vec![name.clone()]),
        Some(Kind::Environment(name)) => ("environment", vec![name.clone()]),
        Some(Kind::PolicyBelow(t)) => ("policy-below", vec![t.environment.clone(), t.version.to_string()]),
        Some(Kind::SigningKey(id)) => ("signing-key", vec![id.clone()]),
        Some(Kind::Svid(t)) => ("svid", vec![t.trust_domain.clone(), hex(&t.issuing_key_sha256), hex(&t.serial)]),
        Some(Kind::SubjectToken(t)) => ("subject-token", vec![t.issuer.clone(), t.id.clone()]),
        Some(Kind::Everything(_)) => ("everything", Vec::new()),
        None => ("unknown", Vec::new()),
    }
}

/// The JSON: the kind as its flag is named, the values in the order in which the flag takes them, and both, ready to type.
pub fn json(target: &pb::Target) -> OrderedJson {
    let (kind, values) = flag_and_values(target);
    OrderedJson::map([("kind", kind.into()), ("values", values.into()), ("flag", typed(target).into())])
}

/// The text for people, like `caller spiffe://example.org/ci`.
pub fn words(target: &pb::Target) -> String {
    let (flag, values) = flag_and_values(target);
    [flag.to_owned()].into_iter().chain(values).collect::<Vec<_>>().join(" ")
}

/// The text to type, like `--caller spiffe://example.org/ci`.
pub fn typed(target: &pb::Target) -> String {
    let (flag, values) = flag_and_values(target);
    let values = values.iter().map(|v| format!(" {}", escape::shell(v)));
    format!("--{flag}{}", values.collect::<String>())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Typed {
        #[command(flatten)]
        targets: TargetArgs,
    }

    fn one_of_each() -> Vec<String> {
        let digest = "ab".repeat(32);
        let id = "a".repeat(26);
        [
            format!("--credential cred_{id}"),
            format!("--task task_{id}"),
            format!("--trust-anchor example.org {digest}"),
            "--binding b".to_owned(),
            "--policy-below prod 7".to_owned(),
            "--signing-key k1".to_owned(),
            format!("--svid example.org {digest} 8f01"),
            "--subject-token https://issuer.example.org jti-1".to_owned(),
            "--caller spiffe://example.org/ci".to_owned(),
            "--prefix spiffe://example.org/ci".to_owned(),
            "--trust-domain example.org".to_owned(),
            "--subject https://issuer.example.org alice".to_owned(),
            "--upstream github".to_owned(),
            "--upstream-scope github repo.read".to_owned(),
            "--tool deploy".to_owned(),
            "--environment prod".to_owned(),
            "--everything".to_owned(),
        ]
        .to_vec()
    }

    fn parse(line: &str) -> Result<Vec<pb::Target>, CliError> {
        Typed::try_parse_from(["x"].into_iter().chain(line.split(' '))).unwrap().targets.targets()
    }

    #[test]
    fn every_target_of_the_wire_has_a_flag_that_gives_it_back() {
        let lines = one_of_each();
        let targets = parse(&lines.join(" ")).unwrap();
        assert_eq!(targets.iter().map(typed).collect::<Vec<_>>(), lines);
        let set = prost_types::FileDescriptorSet::decode(mayfly_proto::FILE_DESCRIPTOR_SET).unwrap();
        let mut messages = set.file.iter().filter(|f| f.package() == "mayfly.v1").flat_map(|f| &f.message_type);
        assert_eq!(messages.find(|m| m.name() == "Target").unwrap().field.len(), lines.len());
        assert_eq!(parse("--tool a --tool b --subject i s --subject i t").unwrap().len(), 4);
    }

    use prost::Message as _;

    #[test]
    fn what_is_malformed_names_its_flag() {
        for (line, flag) in
            [("--trust-anchor d zz", "--trust-anchor"), ("--policy-below e x", "--policy-below"), ("--svid d 00 1", "--svid")]
        {
            let Err(CliError::Usage(text)) = parse(line) else { panic!("{line} was taken") };
            assert!(text.starts_with(flag), "{text}");
        }
        for line in ["--credential task_x", "--task cred_x", "--subject only-one"] {
            assert!(Typed::try_parse_from(["x"].into_iter().chain(line.split(' '))).is_err(), "{line}");
        }
    }

    #[test]
    fn a_serial_loses_the_zero_byte_that_der_puts_before_a_high_bit() {
        let digest = "ab".repeat(32);
        assert_eq!(parse(&format!("--svid d {digest} 00:8F:01")).unwrap(), parse(&format!("--svid d {digest} 8f01")).unwrap());
    }
}
