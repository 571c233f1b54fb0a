//! Writes a large file in order from pieces that are made in parallel, in bounded memory.
//!
//! The file is cut into *blocks* of a few megabytes, each a run of pieces. At any moment one block is being made by the
//! rayon pool, the one before it is being hashed, also there, and the ones before that are being written by a thread of
//! their own, so that a slow disk never keeps a processor from working, nor the other way round. The buffers of written
//! blocks are used again: memory is [`BUFFERS`] blocks, whatever the file's size.

use std::fs::File;
use std::io::Write;
use std::ops::Range;
use std::path::Path;
use std::sync::mpsc;

use engine_format::manifest::hash;
use engine_format::{FormatError, bf16};
use rayon::prelude::*;

use crate::error::{BuildError, Result};
use crate::non_finite::Findings;
use crate::progress::{Interrupt, Progress};

/// A block is at least this many bytes, unless the file ends.
const BLOCK_BYTES: usize = 16 << 20;

/// Pieces are cut to about this many bytes, small enough to share a block among many threads.
pub(crate) const PIECE_BYTES: usize = 1 << 20;

/// Blocks in memory: one being made, one being hashed, one waiting, one being written.
const BUFFERS: usize = 4;

/// Blocks that the system is asked to read ahead of the one being made, so that a disk always has something to do.
const AHEAD: usize = 8;

const ELEMENT: usize = size_of::<bf16>();

/// Some rows of one tensor of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Piece {
    /// Which tensor, as the caller counts them.
    pub(crate) tensor: usize,
    /// Its rows, as the caller counts them.
    pub(crate) rows: Range<usize>,
    /// Where the piece begins in the file, in bytes.
    pub(crate) offset: usize,
    /// Its size in bytes.
    pub(crate) bytes: usize,
}

/// A tensor of `rows` rows of `row_bytes` bytes at `offset`, cut into pieces of about [`PIECE_BYTES`] and of a multiple
/// of `step` rows each, except the last. The rows of a step that begins inside the tensor all take room in the file.
pub(crate) fn cut(
    tensor: usize,
    offset: usize,
    rows: usize,
    row_bytes: usize,
    step: usize,
) -> impl Iterator<Item = Piece> {
    let rows_of_piece = (PIECE_BYTES / row_bytes.max(1) / step * step).max(step);
    (0..rows).step_by(rows_of_piece).map(move |first| {
        let last = (first + rows_of_piece).min(rows);
        Piece {
            tensor,
            rows: first..last,
            offset: offset + first * row_bytes,
            bytes: (last - first).next_multiple_of(step) * row_bytes,
        }
    })
}

/// What fills the pieces of a file.
pub(crate) trait Fill: Sync {
    /// Writes every byte of `piece` to `out`; whether all weights are finite.
    fn fill(&self, piece: &Piece, out: &mut [bf16]) -> bool;
    /// `piece` will be asked for soon.
    fn prefetch(&self, piece: &Piece);
    /// Notes what of `piece` is no finite number in the source.
    fn note_non_finite(&self, piece: &Piece, findings: &Findings);
}

/// A file to write.
pub(crate) struct Job<'a> {
    /// The file to create.
    pub(crate) path: &'a Path,
    /// Its first bytes.
    pub(crate) head: &'a [u8],
    /// The rest, in order and without overlap; what lies between is zeros. Offsets are even.
    pub(crate) pieces: &'a [Piece],
    /// Size of the file.
    pub(crate) total_bytes: usize,
    /// What is no finite number.
    pub(crate) findings: &'a Findings,
}

/// BLAKE3 of a file and of each of its tensors, in hexadecimal.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Hashes {
    pub(crate) file: String,
    pub(crate) head: String,
    /// In the order of the pieces.
    pub(crate) tensors: Vec<String>,
}

/// Writes the file and gives it to the disk; with `hashed`, the hashes are not empty.
///
/// # Errors
/// [`BuildError::Interrupted`](crate::BuildError::Interrupted), or what the system said to a write.
pub(crate) fn write(
    job: &Job<'_>,
    fill: &impl Fill,
    hashed: bool,
    progress: &dyn Progress,
    interrupt: &Interrupt,
) -> Result<Hashes> {
    interrupt.check()?;
    let mut file = File::create(job.path).map_err(FormatError::io("create", job.path))?;
    let what = job.path.file_name().unwrap_or_default().to_string_lossy();
    progress.begin(&format!("writing {what}"), job.total_bytes as u64);
    let result = std::thread::scope(|scope| {
        let (full, filled) = mpsc::sync_channel::<Vec<bf16>>(1);
        let (empty, emptied) = mpsc::channel::<Vec<bf16>>();
        for _ in 0..BUFFERS {
            // The receiver lives in this function.
            let _ = empty.send(Vec::new());
        }
        let write = move || -> Result<(), FormatError> {
            let io = |error| FormatError::io("write", job.path)(error);
            file.write_all(job.head).map_err(io)?;
            progress.advance(job.head.len() as u64);
            for block in filled {
                let bytes: &[u8] = bytemuck::cast_slice(&block);
                file.write_all(bytes).map_err(io)?;
                progress.advance(bytes.len() as u64);
                // The maker has gone when it was interrupted: then there is nobody to give the buffer back to.
                let _ = empty.send(block);
            }
            file.sync_all().map_err(io)
        };
        let writer = system::threads::spawn_scoped(scope, "trtllm-write", write).map_err(BuildError::Thread)?;
        let made = make_blocks(job, fill, hashed, interrupt, &full, &emptied);
        drop(full);
        match writer.join() {
            // The writer's error is the cause where both failed.
            Ok(written) => written.map_err(Into::into).and(made),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    });
    progress.end();
    result
}

/// A run of pieces and the bytes of the file that it fills.
struct Block<'a> {
    pieces: &'a [Piece],
    range: Range<usize>,
}

fn blocks<'a>(job: &Job<'a>) -> Vec<Block<'a>> {
    let mut blocks = Vec::new();
    let mut start = job.head.len();
    let mut first = 0;
    for index in 0..job.pieces.len() {
        let end = job.pieces.get(index + 1).map_or(job.total_bytes, |next| next.offset);
        if end - start >= BLOCK_BYTES || index + 1 == job.pieces.len() {
            blocks.push(Block { pieces: &job.pieces[first..=index], range: start..end });
            (start, first) = (end, index + 1);
        }
    }
    blocks
}

fn make_blocks(
    job: &Job<'_>,
    fill: &impl Fill,
    hashed: bool,
    interrupt: &Interrupt,
    full: &mpsc::SyncSender<Vec<bf16>>,
    emptied: &mpsc::Receiver<Vec<bf16>>,
) -> Result<Hashes> {
    let blocks = blocks(job);
    let mut hashing = hashed.then(|| Hashing::new(job));
    let mut made: Option<(&Block<'_>, Vec<bf16>)> = None;
    let prefetch = |block: &Block<'_>| block.pieces.iter().for_each(|piece| fill.prefetch(piece));
    blocks.iter().take(AHEAD).for_each(prefetch);
    for index in 0..=blocks.len() {
        interrupt.check()?;
        if let Some(ahead) = blocks.get(index + AHEAD) {
            prefetch(ahead);
        }
        let next = blocks.get(index);
        let buffer = match next {
            None => Vec::new(),
            // A closed channel means that the writer has failed; it has the reason.
            Some(_) => match emptied.recv() {
                Ok(buffer) => buffer,
                Err(_) => return Ok(Hashes::default()),
            },
        };
        let (buffer, ()) = rayon::join(
            || next.map_or_else(Vec::new, |block| make(block, buffer, fill, job.findings)),
            || {
                if let (Some(hashing), Some((block, content))) = (&mut hashing, &made) {
                    hashing.update(block, bytemuck::cast_slice(content));
                }
            },
        );
        if let Some((_, content)) = made.take()
            && full.send(content).is_err()
        {
            return Ok(Hashes::default());
        }
        made = next.map(|block| (block, buffer));
    }
    Ok(hashing.map(Hashing::finish).unwrap_or_default())
}

/// The content of a block, in `buffer`.
fn make(block: &Block<'_>, mut buffer: Vec<bf16>, fill: &impl Fill, findings: &Findings) -> Vec<bf16> {
    buffer.resize(block.range.len() / ELEMENT, bf16::ZERO);
    let mut rest = buffer.as_mut_slice();
    let mut position = block.range.start;
    let mut work = Vec::with_capacity(block.pieces.len());
    for piece in block.pieces {
        let (gap, after) = rest.split_at_mut((piece.offset - position) / ELEMENT);
        let (out, after) = after.split_at_mut(piece.bytes / ELEMENT);
        gap.fill(bf16::ZERO);
        work.push((piece, out));
        rest = after;
        position = piece.offset + piece.bytes;
    }
    rest.fill(bf16::ZERO);
    work.into_par_iter().for_each(|(piece, out)| {
        if !fill.fill(piece, out) {
            fill.note_non_finite(piece, findings);
        }
    });
    buffer
}

/// The hashes of the file so far.
struct Hashing {
    file: blake3::Hasher,
    tensor: blake3::Hasher,
    current: Option<usize>,
    hashes: Hashes,
}

impl Hashing {
    fn new(job: &Job<'_>) -> Self {
        let mut file = blake3::Hasher::new();
        file.update(job.head);
        Self {
            file,
            tensor: blake3::Hasher::new(),
            current: None,
            hashes: Hashes { head: hash(job.head), ..Hashes::default() },
        }
    }

    fn update(&mut self, block: &Block<'_>, content: &[u8]) {
        let Self { file, tensor, current, hashes } = self;
        rayon::join(
            || file.update(content),
            || {
                for piece in block.pieces {
                    if current.is_some_and(|before| before != piece.tensor) {
                        hashes.tensors.push(tensor.finalize().to_hex().to_string());
                        tensor.reset();
                    }
                    *current = Some(piece.tensor);
                    let start = piece.offset - block.range.start;
                    tensor.update(&content[start..start + piece.bytes]);
                }
            },
        );
    }

    fn finish(mut self) -> Hashes {
        if self.current.is_some() {
            let last = self.tensor.finalize().to_hex().to_string();
            self.hashes.tensors.push(last);
        }
        self.hashes.file = self.file.finalize().to_hex().to_string();
        self.hashes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_tile_a_tensor_and_the_last_is_padded_to_a_step() {
        let (rows, row_bytes, step) = (16 * 1000 + 5, 8192, 16);
        let pieces: Vec<_> = cut(3, 640, rows, row_bytes, step).collect();
        let (mut row, mut offset) = (0, 640);
        for piece in &pieces {
            assert_eq!((piece.tensor, piece.rows.start, piece.offset), (3, row, offset));
            assert!(piece.bytes <= PIECE_BYTES && piece.rows.start.is_multiple_of(step));
            (row, offset) = (piece.rows.end, offset + piece.bytes);
        }
        assert_eq!((row, offset), (rows, 640 + 16 * 1001 * row_bytes));
        // A row longer than a piece is a piece.
        let long: Vec<_> = cut(0, 0, 3, 2 * PIECE_BYTES, 1).collect();
        assert_eq!(long.len(), 3);
    }
}
