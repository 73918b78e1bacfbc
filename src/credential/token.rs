//! A bearer token on its way out.

use std::sync::Arc;

use bytes::BufMut;
use zeroize::{Zeroize as _, Zeroizing};

/// A token. What of it is secret is wiped when it is dropped.
pub struct Token {
    /// What it has in common with its neighbours comes first.
    shared: Option<Arc<str>>,
    own: String,
    /// From here on its own is secret.
    secret: usize,
}

impl Token {
    /// All of it is secret.
    pub fn secret(mut token: Zeroizing<String>) -> Token {
        Token { shared: None, own: std::mem::take(&mut *token), secret: 0 }
    }

    /// Of what we signed only the signature is: what it signs says nothing that the record does not, and is good for nothing without it.
    /// `own`: what comes after `shared`, with a signature of so many bytes at its end.
    pub fn signed(shared: Option<Arc<str>>, own: String, signature: usize) -> Token {
        let secret = own.len().saturating_sub(signature);
        Token { shared, own, secret }
    }

    /// Its two pieces.
    fn pieces(&self) -> [&str; 2] {
        [self.shared.as_deref().unwrap_or_default(), &self.own]
    }

    /// How many bytes.
    pub fn length(&self) -> usize {
        self.pieces().iter().map(|piece| piece.len()).sum()
    }

    /// Writes it.
    pub fn write(&self, out: &mut impl BufMut) {
        self.pieces().iter().for_each(|piece| out.put_slice(piece.as_bytes()));
    }

    /// In one piece: one copy less where nothing is shared.
    pub fn into_text(mut self) -> String {
        match self.shared.take() {
            Some(shared) => [&shared[..], &self.own].concat(),
            None => std::mem::take(&mut self.own),
        }
    }
}

impl Drop for Token {
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
        let whole = Token::secret(Zeroizing::new("mfr_abc".to_owned()));
        let shared = Token::signed(Some("a.b".into()), "c.sig".to_owned(), 3);
        for (token, text) in [(whole, "mfr_abc"), (shared, "a.bc.sig"), (Token::signed(None, "x.sig".to_owned(), 9), "x.sig")] {
            let mut out = Vec::new();
            token.write(&mut out);
            assert_eq!((token.length(), &*out), (text.len(), text.as_bytes()));
            assert_eq!(token.into_text(), text);
        }
    }
}
