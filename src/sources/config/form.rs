//! What values of the configuration look like, and what holds where nobody sets one.

/// Shortest `audit.keep`, milliseconds.
pub const KEEP_MIN_MS: u64 = 24 * 60 * 60_000;
/// Longest `audit.keep`, milliseconds: a hundred years.
pub const KEEP_MAX_MS: u64 = 36_525 * KEEP_MIN_MS;
/// Smallest `audit.keep`, bytes.
pub const KEEP_MIN_BYTES: u64 = 64 * 1024 * 1024;

/// What a value looks like.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Form {
    /// A name of letters, digits and `._:/@+-`.
    Name,
    /// A list of names.
    Names,
    /// A trust domain.
    TrustDomain,
    /// An https URL without path, query and fragment at the end.
    HttpsUrl,
    /// A path; relative ones begin at the configuration file's directory.
    Path,
    /// A list of paths.
    Paths,
    /// An https URL, or one of http on this host.
    WebhookUrl,
    /// An IP address and port.
    Address,
    /// A whole number from … to ….
    Number(u64, u64),
    /// A part of the whole, from 0 to 1; kept in millionths.
    Ratio,
    /// A list of whole numbers.
    Numbers,
    /// A duration from … to …, milliseconds.
    Duration(u64, u64),
    /// A size from … to …, bytes.
    Size(u64, u64),
    /// A duration or a size.
    Keep,
    /// The storage engine.
    Engine,
    /// True or false.
    Flag,
    /// A text, as this says.
    Text(&'static str),
}

/// What holds where nobody sets the key.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Unset {
    /// It must be set.
    Required,
    /// Nothing. The text says what follows from that.
    Absent(&'static str),
    /// This, as TOML.
    Is(&'static str),
    /// The bound itself: the largest value that may be set.
    Ceiling,
}
