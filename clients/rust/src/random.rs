//! The only place where the client's randomness comes from.

use crate::error::Error;

/// 128 random bits in hexadecimal: a request id that nobody else's request has.
pub fn request_id() -> Result<String, Error> {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| Error::fault("there is no randomness"))?;
    Ok(data_encoding::HEXLOWER.encode(&bytes))
}

/// From 0 to 1.
pub fn jitter() -> f64 {
    let mut bytes = [0; 2];
    // Without randomness all come back at once: no harm is done.
    let _ = aws_lc_rs::rand::fill(&mut bytes);
    f64::from(u16::from_be_bytes(bytes)) / f64::from(u16::MAX)
}
