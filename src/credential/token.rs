//! A bearer token in memory.

use std::sync::Arc;

use bytes::BufMut;
use zeroize::{Zeroize as _, Zeroizing};

use mayfly_ledger::commit::sha256;

/// The digest by which a token is found again: SHA-256 of a JWT without its last dot and signature, of any other token as a whole.
pub fn token_digest(token: &str) -> [u8; 32] {
    let jwt = token.bytes().filter(|b| *b == b'.').count() == 2;
    sha256(if jwt { token.rsplit_once('.').map_or(token, |(input, _)| input) } else { token }.as_bytes())
}

/// A token. Its secret part is wiped on drop.
pub struct IssuedToken {
    /// The common beginning of the tokens of a batch.
    shared: Option<Arc<str>>,
    own: String,
    /// Offset in `own` at which the secret part begins.
    secret: usize,
}

impl IssuedToken {
    /// A token that is secret as a whole.
    pub fn secret(mut token: Zeroizing<String>) -> IssuedToken {
        IssuedToken { shared: None, own: std::mem::take(&mut *token), secret: 0 }
    }

    /// A signed token. Only the signature is secret: the signed part says no more than the record and is useless without the signature.
    /// `own`: the part after `shared`, which ends with a signature of `signature` bytes.
    pub fn signed(shared: Option<Arc<str>>, own: String, signature: usize) -> IssuedToken {
        let secret = own.len().saturating_sub(signature);
        IssuedToken { shared, own, secret }
    }

    /// The two pieces of the token.
    fn pieces(&self) -> [&str; 2] {
        [self.shared.as_deref().unwrap_or_default(), &self.own]
    }

    /// The digest of [`token_digest`].
    pub fn digest(&self) -> [u8; 32] {
        token_digest(&Zeroizing::new(self.pieces().concat()))
    }

    /// The length in bytes.
    pub fn length(&self) -> usize {
        self.pieces().iter().map(|piece| piece.len()).sum()
    }

    /// Writes the token.
    pub fn write(&self, out: &mut impl BufMut) {
        self.pieces().iter().for_each(|piece| out.put_slice(piece.as_bytes()));
    }

    /// The token as one string. Avoids a copy where nothing is shared.
    pub fn into_text(mut self) -> String {
        match self.shared.take() {
            Some(shared) => [&shared[..], &self.own].concat(),
            None => std::mem::take(&mut self.own),
        }
    }
}

impl Drop for IssuedToken {
    fn drop(&mut self) {
        let mut own = std::mem::take(&mut self.own).into_bytes();
        if let Some(secret) = own.get_mut(self.secret..) {
            secret.zeroize();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_same_in_pieces_and_in_one() {
        let whole = IssuedToken::secret(Zeroizing::new("mfr_abc".to_owned()));
        let shared = IssuedToken::signed(Some("a.b".into()), "c.sig".to_owned(), 3);
        for (token, text) in
            [(whole, "mfr_abc"), (shared, "a.bc.sig"), (IssuedToken::signed(None, "x.sig".to_owned(), 9), "x.sig")]
        {
            let mut out = Vec::new();
            token.write(&mut out);
            assert_eq!((token.length(), &*out), (text.len(), text.as_bytes()));
            assert_eq!(token.into_text(), text);
        }
    }
}
