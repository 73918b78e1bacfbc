//! Reads the signing secrets of webhooks from their file.

use std::path::Path;

use zeroize::Zeroizing;

use super::files::{FileProblem, closed_to_others, read};
use mayfly_base::document::remedy::shell_quoted;
use mayfly_base::limits;

/// The prefix of a secret (Standard Webhooks).
const PREFIX: &str = "whsec_";

/// The signing secrets: one, or two during a change of secrets. The file is read for each delivery attempt, so a change takes effect at
/// once.
pub fn secrets(path: &Path) -> Result<Vec<Zeroizing<Vec<u8>>>, FileProblem> {
    let made = format!("(umask 077; printf 'whsec_%s\\n' \"$(openssl rand -base64 32)\" > {})", shell_quoted(path));
    let wrong = |what: &str| Err(FileProblem::new(path, what, &format!("to make one: {made}")));
    let (bytes, _) = read(path, limits::WEBHOOK_SECRET_FILE_BYTES)?;
    closed_to_others(path)?;
    let Ok(text) = std::str::from_utf8(&bytes) else { return wrong("is no secret of a webhook") };
    let mut secrets = Vec::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let decoded = line.strip_prefix(PREFIX).and_then(|rest| data_encoding::BASE64.decode(rest.as_bytes()).ok());
        let Some(secret) = decoded.map(Zeroizing::new) else { return wrong("has a line that is not whsec_ and base64") };
        if !(limits::WEBHOOK_SECRET_MIN_BYTES..=limits::WEBHOOK_SECRET_BYTES).contains(&secret.len()) {
            return wrong("has a secret that is not 24 to 64 bytes long");
        }
        secrets.push(secret);
    }
    match secrets.len() {
        1 | 2 => Ok(secrets),
        0 => wrong("holds no secret"),
        _ => wrong("holds more than two secrets"),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn file(text: &str, mode: u32) -> Result<usize, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        secrets(&path).map(|s| s.len()).map_err(|e| e.to_string())
    }

    #[test]
    fn a_secret_is_private_and_long_enough_and_never_shown() {
        let good = format!("whsec_{}\n", data_encoding::BASE64.encode(&[7; 32]));
        assert_eq!(file(&good, 0o600), Ok(1));
        assert_eq!(file(&format!("{good}{good}"), 0o400), Ok(2));
        let short = format!("whsec_{}", data_encoding::BASE64.encode(&[7; 23]));
        for (text, mode, said) in [
            (good.clone(), 0o640, "may be read by others"),
            (short.clone(), 0o600, "24 to 64"),
            (format!("{good}{good}{good}"), 0o600, "more than two"),
            (String::new(), 0o600, "no secret"),
            ("hunter2hunter2hunter2hunter2".into(), 0o600, "whsec_"),
        ] {
            let told = file(&text, mode).unwrap_err();
            assert!(told.contains(said), "{told}");
            assert!(text.is_empty() || !told.contains(text.trim()), "{told}");
        }
    }
}
