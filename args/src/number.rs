//! Numbers on the command line, refused in words.

use std::ops::RangeInclusive;

use runner::generation_options::whole_number;

/// A parser of whole numbers for clap, which names the flag and what was typed.
pub fn whole<T>(range: RangeInclusive<u64>) -> impl Fn(&str) -> Result<T, String> + Clone
where
    T: TryFrom<u64>,
{
    move |text| {
        // A range beyond `T` would be a mistake of the flag's definition; its numbers are then refused as too large.
        let beyond = |_| "is too large".to_owned();
        whole_number(text, range.clone()).and_then(|number| T::try_from(number).map_err(beyond))
    }
}

/// A parser of whole numbers from 1.
pub fn positive(text: &str) -> Result<usize, String> {
    whole(1..=u64::MAX)(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_number_is_told_what_one_is() {
        assert_eq!(whole::<u16>(1..=1024)("1024"), Ok(1024));
        assert_eq!(positive("7"), Ok(7));
        for wrong in ["0", "1025", "x", "", "-1", "1.5", "1e3", " 1", "99999999999999999999999"] {
            let error = whole::<u16>(1..=1024)(wrong).unwrap_err();
            assert_eq!(error, "must be a whole number from 1 to 1024", "{wrong}");
        }
        assert_eq!(whole::<u8>(0..=300)("256"), Err("is too large".to_owned()));
    }
}
