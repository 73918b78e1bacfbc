//! Denying sessions that were revoked: an inline policy of the role with a statement that denies everything to the sessions with certain
//! values of the tag `mayfly-lease`.
//!
//! A value is the id of a lease, a dot, and the time at which the session is over, so that the list itself says which entries may go. IAM
//! has no compare-and-set, and the last writer of a policy wins. So each process writes a policy of its own and no other's; it deletes those
//! of others only once all their entries are over. Sessions that are denied at once by several tasks are written by one call.

use std::collections::BTreeSet;
use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::Mutex as AsyncMutex;

use super::sigv4::{SigningScope, signed};
use super::sts::{SessionKeys, code, element, problem, unescaped};
use crate::access::https::{UpstreamHttps, UpstreamResponse};
use mayfly_base::limits;
use mayfly_verify::seq::Millis;

/// The key of the session tag.
pub const TAG: &str = "mayfly-lease";
/// The start of the names of mayfly's policies.
const POLICIES: &str = "mayfly-revoked-";

/// The denied sessions of one role, as far as this process has denied them.
#[derive(Default)]
pub struct DenyList {
    /// To be written.
    pending: Mutex<BTreeSet<String>>,
    /// One writer at a time. The keys of the administration role are kept while they are valid.
    pub keys: AsyncMutex<Option<Arc<SessionKeys>>>,
    writing: AsyncMutex<()>,
}

/// The IAM of a role's account.
pub struct Iam<'a> {
    /// The client.
    pub client: &'a UpstreamHttps,
    /// The endpoint.
    pub url: &'a str,
    /// The region of signatures.
    pub region: &'a str,
    /// The name of the role.
    pub role: &'a str,
    /// The keys of the administration role.
    pub keys: &'a SessionKeys,
    /// The name of this process's policy.
    pub policy: &'a str,
    /// The time.
    pub now: Millis,
}

/// The name of the policy of a process. `random`: to tell processes apart.
pub fn policy_name(random: [u8; 16]) -> String {
    format!("{POLICIES}{}", data_encoding::HEXLOWER.encode(&random[..6]))
}

/// The entry of a session.
pub fn entry(lease: &str, ends_at: Millis) -> String {
    format!("{lease}.{}", ends_at.seconds())
}

/// Whether the session of an entry is over, with a margin for the clocks. What is no entry of mayfly's is never over.
fn over(entry: &str, now: Millis) -> bool {
    let ends = entry.rsplit_once('.').and_then(|(_, s)| s.parse::<u64>().ok());
    ends.is_some_and(|ends| ends.saturating_add(limits::AWS_DENY_MARGIN_S) < now.seconds())
}

fn document(entries: &BTreeSet<String>) -> String {
    let tags: Vec<&str> = entries.iter().map(String::as_str).collect();
    let condition = json!({ "StringEquals": { format!("aws:PrincipalTag/{TAG}"): tags } });
    let statement = json!({ "Sid": "RevokedByMayfly", "Effect": "Deny", "Action": "*", "Resource": "*", "Condition": condition });
    json!({ "Version": "2012-10-17", "Statement": [statement] }).to_string()
}

/// The entries of a policy of mayfly's. The error says that it is another's.
fn entries(document: &str) -> Result<BTreeSet<String>, String> {
    let foreign = || "it is no policy of mayfly's".to_owned();
    let value: Value = serde_json::from_str(document).map_err(|_| foreign())?;
    let tags = value.pointer("/Statement/0/Condition/StringEquals").and_then(|c| c.get(format!("aws:PrincipalTag/{TAG}")));
    match tags {
        Some(Value::String(one)) => Ok(BTreeSet::from([one.clone()])),
        Some(Value::Array(all)) => all.iter().map(|one| one.as_str().map(str::to_owned).ok_or_else(foreign)).collect(),
        _ => Err(foreign()),
    }
}

impl DenyList {
    /// Denies a session. Another task may write it.
    pub async fn deny(&self, iam: &Iam<'_>, entry: &str) -> Result<(), String> {
        self.pending.lock().insert(entry.to_owned());
        let _one = self.writing.lock().await;
        let batch = self.pending.lock().clone();
        if !batch.contains(entry) {
            return Ok(());
        }
        let written = iam.write(&batch).await;
        if written.is_ok() {
            self.pending.lock().retain(|one| !batch.contains(one));
        }
        written
    }
}

impl Iam<'_> {
    async fn call(&self, fields: &[(&str, &str)]) -> Result<UpstreamResponse, String> {
        let scope = SigningScope { region: self.region, service: "iam", now_s: self.now.seconds() };
        let action = fields.first().map_or("", |(_, action)| action);
        let mut all = fields.to_vec();
        all.extend([("Version", "2010-05-08"), ("RoleName", self.role)]);
        let request = signed(self.url, &all, self.keys, &scope)?;
        let answer = self.client.call(request).await.map_err(|e| e.to_string())?;
        match answer.status.is_success() || code(&answer) == "NoSuchEntity" {
            true => Ok(answer),
            false => Err(problem(&answer, &format!("{action} of role {}", self.role))),
        }
    }

    /// The entries of a policy; `None` if there is no such policy.
    async fn read(&self, policy: &str) -> Result<Option<BTreeSet<String>>, String> {
        let answer = self.call(&[("Action", "GetRolePolicy"), ("PolicyName", policy)]).await?;
        if !answer.status.is_success() {
            return Ok(None);
        }
        let text = std::str::from_utf8(answer.body()).map_err(|e| e.to_string())?;
        let document = element(text, "PolicyDocument").and_then(unescaped).and_then(|text| percent_decoded(&text));
        let document = document.ok_or_else(|| format!("the answer has no policy {policy}"))?;
        entries(&document).map(Some).map_err(|no| format!("policy {policy} of role {}: {no}", self.role))
    }

    /// Whether a session is denied, as IAM says.
    pub async fn denies(&self, entry: &str) -> Result<bool, String> {
        Ok(self.read(self.policy).await?.is_some_and(|entries| entries.contains(entry)))
    }

    async fn write(&self, new: &BTreeSet<String>) -> Result<(), String> {
        let mut own = self.read(self.policy).await?.unwrap_or_default();
        own.extend(new.iter().cloned());
        own.retain(|entry| !over(entry, self.now));
        self.clear_others().await?;
        let text = document(&own);
        if text.len() > limits::AWS_ROLE_POLICIES_CHARACTERS {
            return Err(format!(
                "the policies of role {} have no room for more than {} denied sessions ({} characters); the next one is denied as soon as \
                 another session is over",
                self.role,
                own.len().saturating_sub(new.len()),
                limits::AWS_ROLE_POLICIES_CHARACTERS
            ));
        }
        self.call(&[("Action", "PutRolePolicy"), ("PolicyName", self.policy), ("PolicyDocument", &text)]).await.and_then(
            |answer| match answer.status.is_success() {
                true => Ok(()),
                false => Err(problem(&answer, &format!("PutRolePolicy of role {}", self.role))),
            },
        )
    }

    /// Deletes the policies of processes that have ended, once all their sessions are over.
    async fn clear_others(&self) -> Result<(), String> {
        let answer = self.call(&[("Action", "ListRolePolicies")]).await?;
        let text = std::str::from_utf8(answer.body()).map_err(|e| e.to_string())?;
        let names = element(text, "PolicyNames").unwrap_or_default();
        let names = names.split("<member>").filter_map(|part| part.split("</member>").next()).map(str::trim);
        let others = names.filter(|name| name.starts_with(POLICIES) && *name != self.policy).take(limits::AWS_POLICIES_CLEARED);
        for name in others {
            if self.read(name).await?.is_some_and(|entries| entries.iter().all(|entry| over(entry, self.now))) {
                self.call(&[("Action", "DeleteRolePolicy"), ("PolicyName", name)]).await?;
            }
        }
        Ok(())
    }
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'%' => {
                let mut digit = || char::from(bytes.next()?).to_digit(16);
                out.push(u8::try_from(digit()? * 16 + digit()?).ok()?);
            }
            b'+' => out.push(b' '),
            other => out.push(other),
        }
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_says_itself_which_of_its_entries_are_over() {
        let all = BTreeSet::from([entry("lease_a", Millis(1_000_000)), entry("lease_b", Millis(9_000_000))]);
        assert_eq!(entries(&document(&all)).unwrap(), all);
        let at = |s: u64| all.iter().filter(|one| !over(one, Millis(s * 1000))).count();
        let margin = limits::AWS_DENY_MARGIN_S;
        assert_eq!((at(999), at(1_000 + margin), at(1_001 + margin), at(9_001 + margin)), (2, 2, 1, 0));
        assert!(!over("by hand", Millis(u64::MAX)), "what somebody else wrote stays");
        assert!(entries("{}").is_err() && entries("no").is_err());
        let one = document(&all).replace("[\"lease_a.1000\",\"lease_b.9000\"]", "\"lease_a.1000\"");
        assert_eq!(entries(&one).unwrap().len(), 1);
    }

    #[test]
    fn a_full_list_fits_into_the_limit_of_iam() {
        let lease = format!("lease_{}", "a".repeat(26));
        let all: BTreeSet<String> = (0..150).map(|n| entry(&lease, Millis(1_764_200_000_000 + n * 1000))).collect();
        assert!(document(&all).len() < limits::AWS_ROLE_POLICIES_CHARACTERS);
    }

    #[test]
    fn documents_come_percent_encoded() {
        assert_eq!(percent_decoded("%7B%22a+b%22%3A1%7D").as_deref(), Some("{\"a b\":1}"));
        assert_eq!(percent_decoded("%7"), None);
    }
}
