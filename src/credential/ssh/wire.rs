//! The data types of RFC 4251, section 5.

/// Writes SSH's data types.
#[derive(Default)]
pub struct Writer {
    out: Vec<u8>,
}

impl Writer {
    /// With room for this many bytes.
    pub fn with_room(bytes: usize) -> Writer {
        Writer { out: Vec::with_capacity(bytes) }
    }

    /// One byte.
    pub fn byte(&mut self, value: u8) -> &mut Writer {
        self.out.push(value);
        self
    }

    /// A `uint32`.
    pub fn uint32(&mut self, value: u32) -> &mut Writer {
        self.out.extend_from_slice(&value.to_be_bytes());
        self
    }

    /// A `uint64`.
    pub fn uint64(&mut self, value: u64) -> &mut Writer {
        self.out.extend_from_slice(&value.to_be_bytes());
        self
    }

    /// A `string`. All that is written here is far below 4 GiB.
    pub fn string(&mut self, value: &[u8]) -> &mut Writer {
        self.uint32(u32::try_from(value.len()).unwrap_or(u32::MAX));
        self.out.extend_from_slice(value);
        self
    }

    /// Bytes without a length.
    pub fn raw(&mut self, value: &[u8]) -> &mut Writer {
        self.out.extend_from_slice(value);
        self
    }

    /// An `mpint` that is not negative, given big-endian.
    pub fn mpint(&mut self, value: &[u8]) -> &mut Writer {
        let digits = value.iter().position(|b| *b != 0).and_then(|at| value.get(at..)).unwrap_or_default();
        let sign = digits.first().is_some_and(|first| first & 0x80 != 0);
        self.uint32(u32::try_from(digits.len() + usize::from(sign)).unwrap_or(u32::MAX));
        if sign {
            self.out.push(0);
        }
        self.out.extend_from_slice(digits);
        self
    }

    /// The bytes so far.
    pub fn bytes(&self) -> &[u8] {
        &self.out
    }

    /// The bytes.
    pub fn into_bytes(self) -> Vec<u8> {
        self.out
    }
}

/// Reads SSH's data types.
#[derive(Clone, Copy)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Reads from the beginning of these bytes.
    pub fn of(bytes: &'a [u8]) -> Reader<'a> {
        Reader { rest: bytes }
    }

    /// The bytes that were not read.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// One byte.
    pub fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*first)
    }

    /// A `uint32`.
    pub fn uint32(&mut self) -> Option<u32> {
        let (first, rest) = self.rest.split_first_chunk()?;
        self.rest = rest;
        Some(u32::from_be_bytes(*first))
    }

    /// A `string`.
    pub fn string(&mut self) -> Option<&'a [u8]> {
        let mut after = *self;
        let length = usize::try_from(after.uint32()?).ok()?;
        let (value, rest) = after.rest.split_at_checked(length)?;
        self.rest = rest;
        Some(value)
    }

    /// An `mpint` that is greater than 0 and in its shortest form, big-endian without leading zeros.
    pub fn positive_mpint(&mut self) -> Option<&'a [u8]> {
        match self.string()? {
            [] => None,
            [0, digits @ ..] => Some(digits).filter(|d| d.first().is_some_and(|first| first & 0x80 != 0)),
            digits => Some(digits).filter(|d| d.first().is_some_and(|first| first & 0x80 == 0)),
        }
    }
}
