//! The head of a safetensors file, from names and shapes alone: the data follows as a stream.
//!
//! Format: <https://huggingface.co/docs/safetensors>.

use serde_json::{Map, Value, json};

/// Data begins at a multiple of this, as the `safetensors` library writes it.
const ALIGNMENT: usize = 8;

/// A file of bfloat16 tensors, one after the other.
#[derive(Debug)]
pub(crate) struct Layout {
    /// Everything before the first tensor's data.
    pub(crate) head: Vec<u8>,
    /// Where each tensor's data begins in the file, in the order given.
    pub(crate) offsets: Vec<usize>,
    /// Size of the file.
    pub(crate) total_bytes: usize,
}

/// Lays out tensors of the given names, shapes and sizes in bytes.
pub(crate) fn layout<'a>(tensors: impl IntoIterator<Item = (String, &'a [usize], usize)>) -> Layout {
    let mut entries = Map::new();
    let mut offsets = Vec::new();
    let mut end = 0;
    for (name, shape, bytes) in tensors {
        let start = end;
        end += bytes;
        offsets.push(start);
        let entry = json!({ "dtype": "BF16", "shape": shape, "data_offsets": [start, end] });
        entries.insert(name, entry);
    }
    let mut text = Value::Object(entries).to_string().into_bytes();
    // The format pads its JSON with spaces.
    text.resize(text.len().next_multiple_of(ALIGNMENT), b' ');
    let mut head = (text.len() as u64).to_le_bytes().to_vec();
    head.extend(text);
    for offset in &mut offsets {
        *offset += head.len();
    }
    Layout { offsets, total_bytes: head.len() + end, head }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_safetensors_library_reads_it() {
        let layout = layout([("b".to_owned(), &[2, 3][..], 12), ("a".to_owned(), &[5][..], 10)]);
        assert_eq!(layout.head.len() % ALIGNMENT, 0);
        let mut file = layout.head;
        file.extend(0..22);
        assert_eq!(file.len(), layout.total_bytes);
        let read = safetensors::SafeTensors::deserialize(&file).unwrap();
        let a = read.tensor("a").unwrap();
        assert_eq!(a.shape(), [5]);
        assert_eq!(a.dtype(), safetensors::Dtype::BF16);
        assert_eq!(a.data(), &file[layout.offsets[1]..]);
        assert_eq!(read.tensor("b").unwrap().data()[0], 0);
    }
}
