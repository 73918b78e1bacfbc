//! The only source of randomness of the client.

use crate::error::Error;

/// 128 random bits in hexadecimal: a unique request id.
pub fn request_id() -> Result<String, Error> {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| Error::fault("there is no randomness"))?;
    Ok(data_encoding::HEXLOWER.encode(&bytes))
}

/// A random number from 0 to 1.
pub fn jitter() -> f64 {
    let mut bytes = [0; 2];
    // Without randomness all clients retry at the same time, which does no harm.
    let _ = aws_lc_rs::rand::fill(&mut bytes);
    f64::from(u16::from_be_bytes(bytes)) / f64::from(u16::MAX)
}
