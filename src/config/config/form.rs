//! The forms of configuration values, and the defaults of keys.

/// Shortest `audit.keep`, milliseconds.
pub const KEEP_MIN_MS: u64 = 24 * 60 * 60_000;
/// Longest `audit.keep`, milliseconds: a hundred years.
pub const KEEP_MAX_MS: u64 = 36_525 * KEEP_MIN_MS;
/// Smallest `audit.keep`, bytes.
pub const KEEP_MIN_BYTES: u64 = 64 * 1024 * 1024;

/// The form of a value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ValueForm {
    /// A name of letters, digits and `._:/@+-`.
    Name,
    /// A list of names.
    Names,
    /// A trust domain.
    TrustDomain,
    /// An https URL without path, query, fragment and trailing slash.
    HttpsUrl,
    /// A path; relative paths are relative to the configuration file's directory.
    Path,
    /// A list of paths.
    Paths,
    /// An https URL, or an http URL on this host.
    WebhookUrl,
    /// An IP address and port.
    Address,
    /// A whole number between two bounds.
    Number(u64, u64),
    /// A fraction from 0 to 1, stored in millionths.
    Ratio,
    /// A list of whole numbers.
    Numbers,
    /// A duration between two bounds, milliseconds.
    Duration(u64, u64),
    /// A size between two bounds, bytes.
    Size(u64, u64),
    /// A duration or a size.
    Keep,
    /// The storage engine.
    Engine,
    /// True or false.
    Flag,
    /// A text, as described.
    Text(&'static str),
}

/// The value of a key that is not set.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum KeyDefault {
    /// The key must be set.
    Required,
    /// No value. The text says what follows from that.
    Absent(&'static str),
    /// The given value, as TOML.
    Is(&'static str),
    /// The upper bound of the key's form.
    Ceiling,
}
