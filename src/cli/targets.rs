//! What can be revoked or locked, as flags. A flag with several values takes them as several words, so no separator can be mistaken.

use clap::Args;

use super::args;
use super::error::CliError;
use super::out::escape;
use crate::pb::mayfly::v1 as pb;
use pb::target::Target as Kind;

/// Every kind of target. Each may be given several times; together they are one rule.
#[derive(Args, Clone, Default, Debug)]
#[command(next_help_heading = "Targets")]
pub struct TargetArgs {
    /// A credential, and whatever rests on it
    #[arg(long, value_name = "ID", value_parser = args::credential_id)]
    pub credential: Vec<String>,
    /// A task and the tasks under it
    #[arg(long, value_name = "ID", value_parser = args::task_id)]
    pub task: Vec<String>,
    /// A root certificate, by its trust domain and SHA-256
    #[arg(long, num_args = 2, value_names = ["TRUST_DOMAIN", "SHA256"])]
    pub trust_anchor: Vec<String>,
    /// A binding by its name
    #[arg(long, value_name = "NAME")]
    pub binding: Vec<String>,
    /// Decisions with a policy older than this version
    #[arg(long, num_args = 2, value_names = ["ENVIRONMENT", "VERSION"])]
    pub policy_below: Vec<String>,
    /// A signing key by its id, whatever a token says of itself
    #[arg(long, value_name = "KEY_ID")]
    pub signing_key: Vec<String>,
    /// An X.509-SVID, by trust domain, SHA-256 of its issuer's public key, and serial number in hexadecimal
    #[arg(long, num_args = 3, value_names = ["TRUST_DOMAIN", "ISSUING_KEY_SHA256", "SERIAL"])]
    pub svid: Vec<String>,
    /// A subject token, by issuer and id
    #[arg(long, num_args = 2, value_names = ["ISSUER", "TOKEN_ID"])]
    pub subject_token: Vec<String>,
    #[command(flatten)]
    pub lockable: LockableArgs,
}

/// The kinds that can also be locked: no new grant for them.
#[derive(Args, Clone, Default, Debug)]
#[command(next_help_heading = "Targets that are also locked")]
pub struct LockableArgs {
    /// A caller by its SPIFFE ID
    #[arg(long, value_name = "SPIFFE_ID")]
    pub caller: Vec<String>,
    /// All SPIFFE IDs at or under this one, by whole path segments
    #[arg(long, value_name = "SPIFFE_ID")]
    pub prefix: Vec<String>,
    /// A trust domain by its name
    #[arg(long, value_name = "NAME")]
    pub trust_domain: Vec<String>,
    /// Somebody on whose behalf things are done, by issuer and subject
    #[arg(long, num_args = 2, value_names = ["ISSUER", "SUB"])]
    pub subject: Vec<String>,
    /// An upstream by its name
    #[arg(long, value_name = "NAME")]
    pub upstream: Vec<String>,
    /// One scope of an upstream
    #[arg(long, num_args = 2, value_names = ["UPSTREAM", "SCOPE"])]
    pub upstream_scope: Vec<String>,
    /// A tool by its name
    #[arg(long, value_name = "NAME")]
    pub tool: Vec<String>,
    /// An environment by its name
    #[arg(long, value_name = "NAME")]
    pub environment: Vec<String>,
    /// Everything that was ever issued
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
    /// The targets, in the order of the flags' list.
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
            // As the wire has it: without the zero byte that DER and openssl put before a high bit.
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
    /// The targets, in the order of the flags' list.
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

/// The flag of a target and its values, as they would be typed.
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

/// For people, like `caller spiffe://example.org/ci`.
pub fn words(target: &pb::Target) -> String {
    let (flag, values) = flag_and_values(target);
    [flag.to_owned()].into_iter().chain(values).collect::<Vec<_>>().join(" ")
}

/// To type, like `--caller spiffe://example.org/ci`.
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
        let set = prost_types::FileDescriptorSet::decode(crate::pb::FILE_DESCRIPTOR_SET).unwrap();
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
