//! Checked sizes: every multiplication of numbers that came from a file goes through here.

/// Number of elements of `shape`, or `None` when it does not fit a `usize`. The empty shape has one element.
pub fn elements(shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(1usize, |product, &dim| product.checked_mul(dim))
}

/// Size of `shape` in bytes with `element_bytes` per element, or `None` when it does not fit a `usize`.
pub fn bytes(shape: &[usize], element_bytes: usize) -> Option<usize> {
    elements(shape)?.checked_mul(element_bytes)
}

/// `value` rounded up to a multiple of `multiple`; `multiple` must not be zero.
pub const fn round_up(value: usize, multiple: usize) -> usize {
    value.div_ceil(multiple) * multiple
}

/// Rows and columns of a tensor seen as a matrix: a vector of `n` elements is `n` rows of one column.
pub fn as_matrix(shape: &[usize]) -> Option<(usize, usize)> {
    match shape {
        [rows] => Some((*rows, 1)),
        [rows, columns] => Some((*rows, *columns)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_checked() {
        assert_eq!(elements(&[]), Some(1));
        assert_eq!(elements(&[3, 0, 5]), Some(0));
        assert_eq!(elements(&[usize::MAX, 2]), None);
        assert_eq!(bytes(&[4, 8], 2), Some(64));
        assert_eq!(bytes(&[usize::MAX / 2], 4), None);
        assert_eq!(round_up(33, 16), 48);
        assert_eq!(round_up(32, 16), 32);
    }
}
