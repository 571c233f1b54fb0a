//! Server-sent events, out of bytes as they come.

/// Bytes of an event; more is no chunk of any server's.
const MOST_BYTES: usize = 16 << 20;

/// An event is larger than any chunk.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooLarge;

/// Cuts a stream into events, whose data it hands on. Lines end in LF, CR or both; comments and other fields are passed over.
#[derive(Debug, Default)]
pub(super) struct EventReader {
    line: Vec<u8>,
    data: Option<Vec<u8>>,
    after_cr: bool,
}

impl EventReader {
    /// Takes what came, and gives `each` the data of every event that ended with it, until `each` fails.
    pub(super) fn read<E: From<TooLarge>>(
        &mut self,
        mut bytes: &[u8],
        mut each: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        while !bytes.is_empty() {
            if std::mem::take(&mut self.after_cr) && bytes[0] == b'\n' {
                bytes = &bytes[1..];
                continue;
            }
            let Some(end) = bytes.iter().position(|byte| matches!(byte, b'\n' | b'\r')) else {
                self.line.extend_from_slice(bytes);
                return self.check().map_err(E::from);
            };
            self.line.extend_from_slice(&bytes[..end]);
            self.after_cr = bytes[end] == b'\r';
            bytes = &bytes[end + 1..];
            if self.line.is_empty() {
                if let Some(data) = self.data.take() {
                    each(&data)?;
                }
            } else {
                self.end_line();
            }
            self.check()?;
        }
        Ok(())
    }

    fn end_line(&mut self) {
        if let Some(value) = self.line.strip_prefix(b"data:") {
            let value = value.strip_prefix(b" ").unwrap_or(value);
            match &mut self.data {
                Some(data) => {
                    data.push(b'\n');
                    data.extend_from_slice(value);
                }
                None => self.data = Some(value.to_vec()),
            }
        }
        self.line.clear();
    }

    fn check(&self) -> Result<(), TooLarge> {
        let size = self.line.len() + self.data.as_ref().map_or(0, Vec::len);
        if size > MOST_BYTES { Err(TooLarge) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(pieces: &[&[u8]]) -> Vec<String> {
        let (mut reader, mut events) = (EventReader::default(), Vec::new());
        for piece in pieces {
            let each = |data: &[u8]| {
                events.push(String::from_utf8(data.to_vec()).unwrap());
                Ok::<_, TooLarge>(())
            };
            reader.read(piece, each).unwrap();
        }
        events
    }

    const STREAM: &[u8] =
        b": keep-alive\n\ndata: {\"a\": 1}\n\nevent: x\r\ndata:b\r\ndata: c\r\n\r\n\rid: 7\rdata: [DONE]\r\rdata: cut";

    #[test]
    fn comments_and_other_fields_are_no_data() {
        assert_eq!(read(&[STREAM]), ["{\"a\": 1}", "b\nc", "[DONE]"]);
        assert_eq!(read(&[b"data:\n\ndata\n\n"]), [""]);
    }

    #[test]
    fn an_event_without_an_end_is_bounded() {
        let mut reader = EventReader::default();
        let block = vec![b'x'; 1 << 20];
        let refused = (0..20).any(|_| reader.read(&block, |_| Ok::<_, TooLarge>(())).is_err());
        assert!(refused);
        let mut reader = EventReader::default();
        let line = [b"data: ".as_slice(), &block, b"\n"].concat();
        assert!((0..20).any(|_| reader.read(&line, |_| Ok::<_, TooLarge>(())).is_err()));
    }

    proptest! {
        #[test]
        fn where_a_stream_is_cut_changes_nothing(cuts in proptest::collection::vec(0..STREAM.len(), 0..12)) {
            let mut cuts = cuts;
            cuts.sort_unstable();
            let mut pieces = Vec::new();
            let mut from = 0;
            for cut in cuts {
                pieces.push(&STREAM[from..cut]);
                from = cut;
            }
            pieces.push(&STREAM[from..]);
            prop_assert_eq!(read(&pieces), read(&[STREAM]));
        }
    }
}
