//! Checks certificates, keys and bundles: each alone, and whether they belong together.

use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use zeroize::Zeroizing;

use super::{ConfigValidator, FindingSubject, Severity};
use crate::bundles::BundleFiles;
use crate::config::{BundleFile, KeyPair};
use crate::svid_files::{SvidFiles, TlsIdentity};
use crate::workload_api::AgentMessage;
use mayfly_base::bounded_file;
use mayfly_base::document::remedy::shell_quoted;
use mayfly_base::limits;
use mayfly_identity::bundle::Bundles;
use mayfly_identity::spiffe_id::{SpiffeId, TrustDomain};
use mayfly_identity::svid::{self, SvidDefect};

impl ConfigValidator<'_> {
    fn read(&mut self, key: &str, path: &Path, max: usize) -> Option<Zeroizing<Vec<u8>>> {
        let remedy = |e: &std::io::Error| match e.kind() {
            ErrorKind::NotFound | ErrorKind::InvalidInput => "name a file that is there".to_owned(),
            ErrorKind::FileTooLarge => format!("at most {max} bytes"),
            _ => "make it readable to the server's user".to_owned(),
        };
        let unreadable = |e: &std::io::Error| self.error(key, format!("{} cannot be read: {e}", path.display()), remedy(e));
        bounded_file::read(path, max).inspect_err(unreadable).ok()
    }

    /// The content of the two files, if they have no defect.
    pub(super) fn pair(&mut self, pair: &KeyPair, certificate: &str, key: &str, is_svid: bool) -> Option<TlsIdentity> {
        let before = self.errors();
        self.each(pair, certificate, key, is_svid);
        // Check the pair only if the single files are fine, so that no defect is reported twice.
        let own = if self.errors() == before { self.together(pair, certificate, key, is_svid) } else { None };
        own.filter(|_| self.errors() == before)
    }

    pub(super) fn errors(&self) -> usize {
        self.findings.iter().filter(|f| f.severity == Severity::Error).count()
    }

    fn each(&mut self, pair: &KeyPair, certificate: &str, key: &str, is_svid: bool) {
        if let Some(pem) = self.read(certificate, &pair.certificate, limits::CHAIN_CERTIFICATES * limits::CERTIFICATE_BYTES) {
            self.certificate(certificate, &pair.certificate, &pem, is_svid);
        }
        let Some(pem) = self.read(key, &pair.key, limits::CERTIFICATE_BYTES) else { return };
        if !pem.windows(12).any(|w| w == b"PRIVATE KEY-") {
            self.error(key, format!("{} has no private key", pair.key.display()), "a PEM file with BEGIN PRIVATE KEY");
        }
        self.closed_to_others(key, &pair.key);
    }

    /// Defects of two files that are fine each by itself and that a start would refuse.
    fn together(&mut self, pair: &KeyPair, certificate: &str, key: &str, is_svid: bool) -> Option<TlsIdentity> {
        match SvidFiles::new(&pair.certificate, &pair.key).load() {
            Err(problem) => {
                let place = if problem.path == pair.key { key } else { certificate };
                self.error(place, format!("{} {}", problem.path.display(), problem.what), problem.remedy);
                None
            }
            Ok(own) => {
                if is_svid && let Err(defect) = own.spiffe_id() {
                    let what = format!("{} is no X.509-SVID: {defect}", pair.certificate.display());
                    self.error(certificate, what, "an X.509-SVID of the server's trust domain");
                }
                Some(own)
            }
        }
    }

    fn closed_to_others(&mut self, key: &str, path: &Path) {
        let mode = std::fs::metadata(path).map_or(0, |m| m.mode() & 0o777);
        let mend = format!("chmod 600 {}", path.display());
        if mode & 0o007 != 0 {
            self.error(key, format!("{} can be read by every user (mode {mode:o})", path.display()), mend);
        } else if mode & 0o070 != 0 {
            self.warning(key, format!("{} can be read by its group (mode {mode:o})", path.display()), mend);
        }
    }

    fn certificate(&mut self, key: &str, path: &Path, pem: &[u8], is_svid: bool) {
        let first = x509_parser::pem::Pem::iter_from_buffer(pem).next().and_then(Result::ok);
        let parsed = first.as_ref().and_then(|block| block.parse_x509().ok());
        let Some(leaf) = parsed else {
            return self.error(
                key,
                format!("{} holds no certificate", path.display()),
                "a PEM file, the server's certificate first",
            );
        };
        let (mut dns, mut uris) = (0, Vec::new());
        if let Ok(Some(names)) = leaf.subject_alternative_name() {
            for name in &names.value.general_names {
                match name {
                    x509_parser::extensions::GeneralName::DNSName(_) => dns += 1,
                    x509_parser::extensions::GeneralName::URI(uri) => uris.push(*uri),
                    _ => {}
                }
            }
        }
        if dns == 0 {
            let remedy =
                "add one where the SVID is made (SPIRE: the entry's dnsNames); many gRPC clients refuse a certificate without";
            self.warning(key, format!("{} has no DNS name", path.display()), remedy);
        }
        if u64::try_from(leaf.validity().not_after.timestamp()).unwrap_or(0) < self.now.seconds() {
            self.error(key, format!("{} expired on {}", path.display(), leaf.validity().not_after), "renew it");
        }
        if !is_svid {
            return;
        }
        let own = &self.config.server.trust_domain;
        match uris.as_slice() {
            [one] if SpiffeId::parse(one).is_ok_and(|id| id.trust_domain() == own) => {}
            [] => self.error(key, format!("{} has no SPIFFE ID", path.display()), "an X.509-SVID of the server's trust domain"),
            found => {
                let what = format!("{} has {}, which is no single SPIFFE ID in {own}", path.display(), found.join(", "));
                self.error(key, what, "an X.509-SVID of the server's trust domain, or another server.trust_domain");
            }
        }
    }

    /// `own`: the server's own certificate from its files, if it has no defect by itself; the agent's SVID was checked when it arrived.
    pub(super) fn bundles(&mut self, own: Option<&TlsIdentity>, given: Option<&AgentMessage>) {
        let us = &self.config.server.trust_domain;
        for (place_in_list, bundle) in self.config.bundles.iter().enumerate() {
            let Ok(domain) = TrustDomain::parse(&bundle.trust_domain) else { continue };
            let (loaded, place) = match &bundle.file {
                Some(file) => (BundleFiles::new([(domain, file.clone())]).load(), file.display().to_string()),
                None => {
                    let given = given.and_then(|given| given.bundle(&domain, None).ok());
                    let place = self.config.workload_api.as_ref().map_or_else(String::new, |api| api.wanted.endpoint.to_string());
                    (Ok(Bundles::new(given).unwrap_or_default()), place)
                }
            };
            match loaded {
                Ok(bundles) if bundle.trust_domain == *us && bundles.get(us).is_some() => {
                    if let Some(Err(defect)) = own.map(|own| svid::verify_server(own.chain(), &bundles, self.now)) {
                        self.not_vouched_for(bundle, &place, defect);
                    }
                }
                Ok(_) => {}
                Err(problems) => {
                    self.about = FindingSubject::Bundle;
                    for problem in problems {
                        let what = format!("{} {}", problem.path.display(), problem.what);
                        self.in_list(Severity::Error, ("bundles.file", place_in_list), what, problem.remedy);
                    }
                    self.about = FindingSubject::default();
                }
            }
        }
        if !self.config.bundles.iter().any(|b| b.trust_domain == *us) {
            let what = format!("no bundle for {us}, so workloads of the server's own trust domain cannot call");
            self.warning("server.trust_domain", what, "add it under [[bundles]]");
        }
    }

    /// Workloads verify the server by this bundle, as the server verifies them: each of them would refuse the server in the handshake.
    fn not_vouched_for(&mut self, bundle: &BundleFile, place: &str, defect: SvidDefect) {
        let Some(KeyPair { certificate: chain, .. }) = &self.config.tls else { return };
        let domain = &bundle.trust_domain;
        let what = format!(
            "no root in {place}, the bundle of {domain}, vouches for {}, so its workloads refuse this server: {}",
            chain.display(),
            defect.clause()
        );
        let remedy = match &bundle.file {
            Some(roots) => format!(
                "write the CAs between the two into {}, or the bundle that its CA belongs to into {place}; then: mayfly svid check --bundle {} \
                 --trust-domain {domain} {}",
                chain.display(),
                shell_quoted(roots),
                shell_quoted(chain)
            ),
            None => "leave tls out: the agent gives an SVID of its bundle, too".to_owned(),
        };
        self.error("tls.certificate", what, remedy);
    }
}
