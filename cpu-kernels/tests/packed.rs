//! The weight layout: what is where, in pieces or whole, and what is refused.

mod common;

use common::{Random, Weight, panic_of};
use cpu_kernels::packed::{K_TILE, PANEL_COLUMNS, pack_panels, packed_len, padded_k};
use cpu_kernels::{PackError, PackedMatrix, bf16};
use proptest::prelude::*;

/// The layout as the documentation states it.
fn element(data: &[bf16], padded_k: usize, n: usize, k: usize) -> bf16 {
    let (panel, column, pair, j) = (n / PANEL_COLUMNS, n % PANEL_COLUMNS, k / 2, k % 2);
    data[((panel * padded_k / 2 + pair) * PANEL_COLUMNS + column) * 2 + j]
}

fn check_layout(n: usize, k: usize) {
    let rows = Random((n * 1000 + k) as u64).bf16s(n * k, 1.0);
    let weight = Weight::pack(&rows, k);
    for row in 0..n.next_multiple_of(PANEL_COLUMNS) {
        for i in 0..padded_k(k) {
            let expected = if row < n && i < k { rows[row * k + i] } else { bf16::ZERO };
            let found = element(&weight.data, padded_k(k), row, i);
            assert_eq!(found.to_bits(), expected.to_bits(), "{n} x {k}: row {row}, k {i}");
        }
    }
    let mut out = vec![bf16::NAN; k];
    for (row, expected) in rows.chunks_exact(k).enumerate() {
        weight.matrix().row(row, &mut out);
        assert_eq!(out, expected, "{n} x {k}: row {row}");
    }
}

#[test]
fn the_layout_at_the_edges() {
    for n in [1, 2, 15, 16, 17, 33] {
        for k in [1, 2, 3, 15, 16, 17, 31, 32, 33, 63, 64, 65, 95] {
            check_layout(n, k);
        }
    }
}

proptest! {
    #[test]
    fn the_layout(n in 1_usize..70, k in 1_usize..200) {
        check_layout(n, k);
    }

    #[test]
    fn packing_in_pieces_is_packing_at_once(n in 1_usize..100, k in 1_usize..70, panels in 1_usize..4) {
        let rows = Random(n as u64).bf16s(n * k, 1.0);
        let whole = Weight::pack(&rows, k);
        let mut pieces = Vec::new();
        for piece in rows.chunks(panels * PANEL_COLUMNS * k) {
            pieces.extend(Weight::pack(piece, k).data);
        }
        prop_assert_eq!(whole.data, pieces);
    }
}

#[test]
fn sizes() {
    assert_eq!((PANEL_COLUMNS, K_TILE), (16, 32));
    assert_eq!(packed_len(17, 33), Some(32 * 64));
    assert_eq!(packed_len(0, 5), Some(0));
    assert_eq!(packed_len(usize::MAX, 1), None);
    assert_eq!(packed_len(1, usize::MAX), None);
    assert_eq!(packed_len(usize::MAX / 64, 64), None);
    assert_eq!((padded_k(1), padded_k(32), padded_k(33)), (32, 32, 64));
}

#[test]
fn what_is_refused() {
    let data = vec![bf16::ZERO; 512];
    assert_eq!(PackedMatrix::new(&data, 0, 3).unwrap_err(), PackError::Empty { n: 0, k: 3 });
    assert_eq!(PackedMatrix::new(&data, 3, 0).unwrap_err(), PackError::Empty { n: 3, k: 0 });
    let n = usize::MAX;
    assert_eq!(PackedMatrix::new(&data, n, 3).unwrap_err(), PackError::TooLarge { n, k: 3 });
    let error = PackedMatrix::new(&data, 17, 32).unwrap_err();
    assert_eq!(error.to_string(), "a packed matrix of 17 x 32 has 1024 elements, not 512");

    let matrix = PackedMatrix::new(&data, 10, 20).unwrap();
    let mut row = vec![bf16::ZERO; 20];
    assert!(panic_of(|| matrix.row(10, &mut row)).contains("row 10 of a packed matrix of 10 rows"));
    assert!(panic_of(|| matrix.row(1, &mut row[..19])).contains("out must hold one row"));
    let mut out = vec![bf16::ZERO; 512];
    assert!(panic_of(|| pack_panels(&data, 0, &mut out)).contains("k must be at least 1"));
    assert!(panic_of(|| pack_panels(&data, 7, &mut out)).contains("whole rows of 7"));
    assert!(panic_of(|| pack_panels(&data, 16, &mut out)).contains("out must hold"));
}
