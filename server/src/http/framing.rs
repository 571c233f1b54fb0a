//! Where a body ends in what a connection reads. Hyper reads the body itself; this only counts along.

/// What is left of a body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Framing {
    /// So many bytes.
    Length(u64),
    /// Chunks until an empty one.
    Chunked(Chunks),
    /// It cannot be said where it ends: hyper refuses it, and the connection ends with it.
    Unknown,
}

/// Where in a chunked body the next byte is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Chunks {
    /// In the hexadecimal length of a chunk.
    Size(u64),
    /// In what follows the length on its line.
    Extension(u64),
    /// So many bytes before the end of a chunk, its line end among them.
    Data(u64),
    /// At the beginning of a line after the last chunk.
    Trailer,
    /// In such a line.
    TrailerLine,
    /// Before the line feed of the last line.
    LastFeed,
    /// After the body.
    End,
}

impl Framing {
    /// A body of so many bytes.
    pub fn length(bytes: u64) -> Self {
        Self::Length(bytes)
    }

    /// A body in chunks.
    pub fn chunked() -> Self {
        Self::Chunked(Chunks::Size(0))
    }

    /// Whether all of it was taken.
    pub fn is_over(&self) -> bool {
        matches!(self, Self::Length(0) | Self::Chunked(Chunks::End))
    }

    /// Counts the bytes that belong to the body: so many of these, from the first on.
    pub fn take(&mut self, bytes: &[u8]) -> usize {
        match self {
            Self::Unknown => bytes.len(),
            Self::Length(left) => {
                let taken = bytes.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= taken as u64;
                taken
            }
            Self::Chunked(place) => {
                let mut taken = 0;
                while let (Some(rest @ [_, ..]), false) = (bytes.get(taken..), *place == Chunks::End) {
                    match place.after(rest) {
                        Some((next, count)) => (*place, taken) = (next, taken + count),
                        None => {
                            *self = Self::Unknown;
                            return bytes.len();
                        }
                    }
                }
                taken
            }
        }
    }
}

impl Chunks {
    /// The place after the first of these bytes, or after several of a chunk, and how many they are; none where they cannot be there.
    fn after(self, bytes: &[u8]) -> Option<(Self, usize)> {
        let byte = *bytes.first()?;
        let next = match (self, byte) {
            (Self::Data(left), _) => {
                let taken = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                let left = left - taken as u64;
                return Some((if left == 0 { Self::Size(0) } else { Self::Data(left) }, taken));
            }
            (Self::Size(size) | Self::Extension(size), b'\n') if size == 0 => Self::Trailer,
            (Self::Size(size) | Self::Extension(size), b'\n') => Self::Data(size + 2),
            (Self::Size(size), b'\r' | b';' | b' ' | b'\t') => Self::Extension(size),
            (Self::Size(size), digit) => {
                let digit = char::from(digit).to_digit(16)?;
                let size = size.checked_mul(16)?.checked_add(u64::from(digit))?;
                Self::Size(Some(size).filter(|&size| size < u64::MAX - 2)?)
            }
            (Self::Extension(size), _) => Self::Extension(size),
            (Self::Trailer, b'\r') => Self::LastFeed,
            (Self::Trailer, b'\n') | (Self::LastFeed, b'\n') => Self::End,
            (Self::TrailerLine, b'\n') => Self::Trailer,
            (Self::Trailer | Self::TrailerLine, _) => Self::TrailerLine,
            (Self::LastFeed | Self::End, _) => return None,
        };
        Some((next, 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_ends_where_it_says_however_it_comes() {
        let chunked = "5\r\nhello\r\n1A;x=\"1\"\r\nabcdefghijklmnopqrstuvwxyz\r\n0\r\nA: b\r\n\r\n";
        for (framing, body) in [(Framing::length(7), "1234567"), (Framing::chunked(), chunked)] {
            let all = format!("{body}GET /next");
            for step in 1..=all.len() {
                let (mut framing, mut taken) = (framing.clone(), 0);
                for piece in all.as_bytes().chunks(step) {
                    let count = framing.take(piece);
                    taken += count;
                    if count < piece.len() {
                        break;
                    }
                }
                assert!(framing.is_over() && taken == body.len(), "{framing:?} after {taken} in steps of {step}");
            }
        }
    }

    #[test]
    fn a_body_without_a_place_to_end_has_none() {
        for body in ["x\r\n", "5\r\nhello\r\nhello", "ffffffffffffffff\r\n", "0\r\n\rx"] {
            let mut framing = Framing::chunked();
            assert_eq!((framing.take(body.as_bytes()), &framing), (body.len(), &Framing::Unknown), "{body:?}");
            assert!(!framing.is_over());
        }
    }
}
