//! Short numbers.

pub(crate) use engine_format::error::counted;

/// A number with about three digits: `48`, `19.6 K`, `8.41 B`.
pub(crate) fn short_count(number: f64) -> String {
    let units = [(1e9, "B"), (1e6, "M"), (1e3, "K")];
    match units.into_iter().find(|&(unit, _)| number >= unit) {
        Some((unit, name)) if number >= 10.0 * unit => format!("{:.1} {name}", number / unit),
        Some((unit, name)) => format!("{:.2} {name}", number / unit),
        None => format!("{number}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_short() {
        let texts = [48.0, 19_616.0, 5_327_616.0, 8_414_564_352.0, 69e9].map(short_count);
        assert_eq!(texts, ["48", "19.6 K", "5.33 M", "8.41 B", "69.0 B"]);
    }
}
