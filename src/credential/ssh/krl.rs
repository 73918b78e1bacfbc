//! Key revocation lists (PROTOCOL.krl of OpenSSH): the unexpired certificates of an upstream's CAs that ended before their time, by serial
//! number and by key id, and the CAs that are compromised.

use super::certificate::{self, serial};
use super::wire::{Reader, Writer};
use super::{authority_blob, sign};
use crate::keyring::LoadedKey;
use mayfly_base::refusal::Fault;
use mayfly_verify::seq::{CredentialId, Millis};

const MAGIC: &[u8; 8] = b"SSHKRL\n\0";
const FORMAT: u32 = 1;
const SECTION_CERTIFICATES: u8 = 1;
const SECTION_EXPLICIT_KEY: u8 = 2;
const SECTION_SIGNATURE: u8 = 4;
const CERTIFICATES_SERIAL_LIST: u8 = 0x20;
const CERTIFICATES_KEY_ID: u8 = 0x23;

/// The section of a KRL about one CA.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RevokedUnderCa {
    /// The CA's public key: an uncompressed point.
    pub authority: Vec<u8>,
    /// The certificates.
    pub ended: Vec<CredentialId>,
}

/// The content of a KRL.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KrlContent {
    /// The CAs whose certificates are listed.
    pub authorities: Vec<RevokedUnderCa>,
    /// CAs that nothing is accepted of: their public keys, as uncompressed points.
    pub compromised: Vec<Vec<u8>>,
}

/// Signs a KRL. `number` must be higher than in every earlier KRL of the upstream.
/// OpenSSH does not look who signed a KRL: whoever fetches one relies on TLS.
pub fn krl(content: &KrlContent, signer: &LoadedKey, number: u64, comment: &str, now: Millis) -> Result<Vec<u8>, Fault> {
    let mut out = Writer::default();
    out.raw(MAGIC).uint32(FORMAT).uint64(number).uint64(now.seconds()).uint64(0).string(b"").string(comment.as_bytes());
    for RevokedUnderCa { authority, ended } in &content.authorities {
        if ended.is_empty() {
            continue;
        }
        let mut serials: Vec<u64> = ended.iter().map(|id| serial(*id)).collect();
        serials.sort_unstable();
        serials.dedup();
        let (mut list, mut ids) = (Writer::default(), Writer::default());
        for serial in &serials {
            list.uint64(*serial);
        }
        let mut names: Vec<String> = ended.iter().map(CredentialId::to_string).collect();
        names.sort_unstable();
        names.dedup();
        for id in &names {
            ids.string(id.as_bytes());
        }
        let mut section = Writer::default();
        section.string(&authority_blob(authority)).string(b"");
        section.byte(CERTIFICATES_SERIAL_LIST).string(list.bytes());
        section.byte(CERTIFICATES_KEY_ID).string(ids.bytes());
        out.byte(SECTION_CERTIFICATES).string(section.bytes());
    }
    if !content.compromised.is_empty() {
        let mut section = Writer::default();
        for point in &content.compromised {
            section.string(&authority_blob(point));
        }
        out.byte(SECTION_EXPLICIT_KEY).string(section.bytes());
    }
    let point = signer.public().ok_or_else(|| Fault::new(format!("key {} signs nothing", signer.id())))?;
    out.byte(SECTION_SIGNATURE).string(&authority_blob(point));
    let signature = sign(signer, out.bytes())?;
    out.string(&signature);
    Ok(out.into_bytes())
}

/// Whether a KRL lists a certificate under a CA, by serial number and by key id. `false` for a text that is no KRL of this CA, or is not signed
/// by it.
pub fn lists(krl: &[u8], id: CredentialId, authority: &[u8]) -> bool {
    read(krl, id, authority).is_some()
}

fn read(krl: &[u8], id: CredentialId, authority: &[u8]) -> Option<()> {
    let header = MAGIC.len() + 4 + 3 * 8;
    krl.strip_prefix(MAGIC)?;
    let mut rest = Reader::of(krl.get(header..)?);
    rest.string()?;
    rest.string()?;
    let (mut by_serial, mut by_id) = (false, false);
    loop {
        let section = rest.byte()?;
        let data = rest.string()?;
        if section == SECTION_SIGNATURE {
            let signed = krl.get(..krl.len() - rest.rest().len())?;
            certificate::verify(authority, signed, rest.string()?)?;
            return (by_serial && by_id && data == authority_blob(authority)).then_some(());
        }
        let mut certificates = Reader::of(data);
        if section != SECTION_CERTIFICATES || certificates.string()? != authority_blob(authority) {
            continue;
        }
        certificates.string()?;
        while !certificates.rest().is_empty() {
            let (sort, list) = (certificates.byte()?, certificates.string()?);
            by_serial |= sort == CERTIFICATES_SERIAL_LIST && list.chunks_exact(8).any(|one| *one == serial(id).to_be_bytes());
            let (mut ids, name) = (Reader::of(list), id.to_string());
            while sort == CERTIFICATES_KEY_ID && !ids.rest().is_empty() {
                by_id |= ids.string()? == name.as_bytes();
            }
        }
    }
}
