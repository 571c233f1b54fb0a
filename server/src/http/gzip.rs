//! Bodies that come compressed with gzip.

use std::io::Write;

use flate2::write::MultiGzDecoder;

/// Decompresses a body as it comes, to no more than a limit.
#[derive(Debug)]
pub struct Gzip(MultiGzDecoder<Limited>);

/// Why a body cannot be decompressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GzipError {
    /// It is larger than the limit.
    TooLarge,
    /// It is no gzip, or not all of it.
    Invalid,
}

#[derive(Debug)]
struct Limited {
    bytes: Vec<u8>,
    limit: usize,
    is_over: bool,
}

impl Write for Limited {
    fn write(&mut self, piece: &[u8]) -> std::io::Result<usize> {
        if self.bytes.len() + piece.len() > self.limit {
            self.is_over = true;
            return Err(std::io::ErrorKind::FileTooLarge.into());
        }
        self.bytes.extend_from_slice(piece);
        Ok(piece.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Gzip {
    /// Nothing has come.
    pub fn new(limit: usize) -> Self {
        Self(MultiGzDecoder::new(Limited { bytes: Vec::new(), limit, is_over: false }))
    }

    fn error(&self) -> GzipError {
        if self.0.get_ref().is_over { GzipError::TooLarge } else { GzipError::Invalid }
    }

    /// Takes a piece. What is beyond the limit is cut where it is reached.
    ///
    /// # Errors
    /// [`GzipError`].
    pub fn push(&mut self, piece: &[u8]) -> Result<(), GzipError> {
        self.0.write_all(piece).map_err(|_| self.error())
    }

    /// All of the body, which has ended.
    ///
    /// # Errors
    /// [`GzipError`].
    pub fn finish(mut self) -> Result<Vec<u8>, GzipError> {
        if self.0.try_finish().is_err() {
            return Err(self.error());
        }
        self.0.finish().map(|limited| limited.bytes).map_err(|_| GzipError::Invalid)
    }
}

#[cfg(test)]
mod tests {
    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    fn compressed(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn read(pieces: &[&[u8]], limit: usize) -> Result<Vec<u8>, GzipError> {
        let mut gzip = Gzip::new(limit);
        for piece in pieces {
            gzip.push(piece)?;
        }
        gzip.finish()
    }

    #[test]
    fn a_body_is_what_was_compressed_in_whatever_pieces() {
        let text = b"the moon ".repeat(1000);
        let body = compressed(&text);
        for size in [1, 7, body.len()] {
            let pieces: Vec<_> = body.chunks(size).collect();
            assert_eq!(read(&pieces, text.len()).as_ref(), Ok(&text));
            assert_eq!(read(&pieces, text.len() - 1), Err(GzipError::TooLarge));
        }
        let (first, second) = (compressed(b"a"), compressed(b"b"));
        assert_eq!(read(&[&first, &second], 2), Ok(b"ab".to_vec()));
    }

    #[test]
    fn what_is_no_gzip_is_refused() {
        let body = compressed(b"the moon");
        for wrong in [&b"{}"[..], &body[..body.len() - 1], &body[..5], b""] {
            assert_eq!(read(&[wrong], 100), Err(GzipError::Invalid), "{wrong:?}");
        }
        let mut flipped = body;
        let last = flipped.len() - 6;
        flipped[last] ^= 1;
        assert_eq!(read(&[&flipped], 100), Err(GzipError::Invalid));
    }

    #[test]
    fn a_bomb_is_cut() {
        let bomb = compressed(&vec![0; 64 << 20]);
        assert!(bomb.len() < 100_000);
        let mut gzip = Gzip::new(1 << 20);
        assert_eq!(gzip.push(&bomb), Err(GzipError::TooLarge));
        assert!(gzip.0.get_ref().bytes.capacity() <= 2 << 20);
    }
}
