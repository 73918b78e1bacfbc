//! The bearer token of the metrics listener, from its file.

use std::path::Path;
use std::sync::Arc;

use arc_swap::ArcSwap;
use aws_lc_rs::constant_time::verify_slices_are_equal;

use super::files::{self, FileProblem};
use mayfly_base::document::remedy::shell_quoted;
use mayfly_base::limits;
use mayfly_identity::sha256;

/// A bearer token that a client must present. Only its SHA-256 is kept.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct BearerToken([u8; 32]);

/// The token that is required now.
pub type CurrentToken = Arc<ArcSwap<BearerToken>>;

impl std::fmt::Debug for BearerToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("BearerToken")
    }
}

impl BearerToken {
    /// Reads a token: visible ASCII in one line. A line break at the end does not belong to the token.
    pub fn load(path: &Path) -> Result<BearerToken, FileProblem> {
        let (bytes, _) = files::read(path, limits::TOKEN_FILE_BYTES)?;
        files::closed_to_others(path)?;
        let token = bytes.trim_ascii_end();
        let (least, made) = (limits::TOKEN_MIN_BYTES, format!("(umask 077; openssl rand -hex 32 > {})", shell_quoted(path)));
        if !token.iter().all(u8::is_ascii_graphic) || token.len() < least {
            let what = format!("holds no token of at least {least} visible ASCII characters in one line");
            return Err(FileProblem::new(path, what, &format!("to make one: {made}")));
        }
        Ok(BearerToken(sha256(token)))
    }

    /// Whether `shown` is this token. The comparison takes the same time for every wrong token.
    pub fn is(&self, shown: &[u8]) -> bool {
        verify_slices_are_equal(&self.0, &sha256(shown)).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_token_is_private_and_long_enough_and_never_shown() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        let load = |text: &[u8], mode| {
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            BearerToken::load(&path)
        };
        let token = "0123456789abcdef0123456789abcdef";
        let good = load(format!("{token}\r\n").as_bytes(), 0o600).unwrap();
        assert!(
            good.is(token.as_bytes())
                && !good.is(b"")
                && !good.is(&token.as_bytes()[1..])
                && !good.is(format!("{token} ").as_bytes())
        );
        assert!(!format!("{good:?}").contains('0'));
        for (text, mode, said) in [
            (token.to_owned(), 0o640, "may be read by others"),
            (token.to_owned(), 0o604, "may be read by others"),
            (token[..8].to_owned(), 0o600, "at least"),
            (String::new(), 0o600, "at least"),
            (format!("{token}\n{token}"), 0o600, "in one line"),
            ("é".repeat(40), 0o600, "visible ASCII"),
        ] {
            let told = load(text.as_bytes(), mode).unwrap_err().to_string();
            assert!(told.contains(said), "{told}");
            assert!(text.is_empty() || !told.contains(text.as_str()), "{told}");
        }
        assert!(BearerToken::load(&dir.path().join("none")).unwrap_err().to_string().contains("cannot be read"));
    }
}
