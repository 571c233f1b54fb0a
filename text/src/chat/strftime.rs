//! Dates for chat templates: `strftime`'s directives, in English and in UTC.

use std::fmt::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const WEEKDAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

/// A moment, taken apart.
struct Civil {
    year: i64,
    /// From 1.
    month: i64,
    /// From 1.
    day: i64,
    /// From 1.
    day_of_year: i64,
    /// From Sunday = 0.
    weekday: i64,
    hour: i64,
    minute: i64,
    second: i64,
    microsecond: i64,
}

impl Civil {
    fn of(moment: SystemTime) -> Self {
        let (seconds, nanos) = match moment.duration_since(UNIX_EPOCH) {
            Ok(after) => (whole_seconds(after), after.subsec_nanos()),
            Err(error) => {
                let before = error.duration();
                let nanos = before.subsec_nanos();
                let borrow = i64::from(nanos > 0);
                (-whole_seconds(before) - borrow, (1_000_000_000 - nanos) % 1_000_000_000)
            }
        };
        let (days, second_of_day) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
        // A guess that is never late, a few years early at most.
        let mut year = 1970 + days.div_euclid(if days < 0 { 365 } else { 366 });
        while days_before_year(year + 1) <= days {
            year += 1;
        }
        let day_of_year = days - days_before_year(year);
        let mut month = 1;
        while days_before_month(year, month + 1) <= day_of_year {
            month += 1;
        }
        Self {
            year,
            month,
            day: day_of_year - days_before_month(year, month) + 1,
            day_of_year: day_of_year + 1,
            // 1 January 1970 was a Thursday.
            weekday: (days + 4).rem_euclid(7),
            hour: second_of_day / 3600,
            minute: second_of_day / 60 % 60,
            second: second_of_day % 60,
            microsecond: i64::from(nanos / 1000),
        }
    }
}

fn whole_seconds(duration: Duration) -> i64 {
    // Up to the year 9999, the last one that Python's dates know.
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX).min(253_402_300_799)
}

/// Days from 1 January 1970 to 1 January of a year of the Gregorian calendar.
fn days_before_year(year: i64) -> i64 {
    let before = year - 1;
    before * 365 + before.div_euclid(4) - before.div_euclid(100) + before.div_euclid(400) - 719_162
}

/// Days from 1 January to the first of a month; month 13 is the next year's January.
fn days_before_month(year: i64, month: i64) -> i64 {
    let leap = days_before_year(year + 1) - days_before_year(year) - 365;
    let common = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334, 365];
    let index = usize::try_from(month - 1).unwrap_or(0).min(12);
    common[index] + if month > 2 { leap } else { 0 }
}

/// Formats a moment; `%-d` and its like leave out the padding, as glibc has it.
///
/// # Errors
/// A directive that is not known, by name.
pub(super) fn strftime(moment: SystemTime, format: &str) -> Result<String, String> {
    let civil = Civil::of(moment);
    let mut out = String::new();
    let mut rest = format.chars();
    while let Some(c) = rest.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let mut directive = rest.next();
        let padded = directive != Some('-');
        if !padded {
            directive = rest.next();
        }
        write_directive(&civil, directive, padded, &mut out)?;
    }
    Ok(out)
}

fn write_directive(civil: &Civil, directive: Option<char>, padded: bool, out: &mut String) -> Result<(), String> {
    let month = MONTHS[usize::try_from(civil.month - 1).unwrap_or(0)];
    let weekday = WEEKDAYS[usize::try_from(civil.weekday).unwrap_or(0)];
    let hour12 = (civil.hour + 11) % 12 + 1;
    let mut digits = |value: i64, width: usize, fill: char| {
        let width = if padded { width } else { 1 };
        // Writing to a String cannot fail.
        let _ = if fill == '0' { write!(out, "{value:0width$}") } else { write!(out, "{value:width$}") };
    };
    match directive {
        Some('d') => digits(civil.day, 2, '0'),
        Some('e') => digits(civil.day, 2, ' '),
        Some('m') => digits(civil.month, 2, '0'),
        Some('y') => digits(civil.year.rem_euclid(100), 2, '0'),
        Some('Y') => digits(civil.year, 1, '0'),
        Some('H') => digits(civil.hour, 2, '0'),
        Some('I') => digits(hour12, 2, '0'),
        Some('M') => digits(civil.minute, 2, '0'),
        Some('S') => digits(civil.second, 2, '0'),
        Some('f') => digits(civil.microsecond, 6, '0'),
        Some('j') => digits(civil.day_of_year, 3, '0'),
        Some('w') => digits(civil.weekday, 1, '0'),
        Some('u') => digits((civil.weekday + 6) % 7 + 1, 1, '0'),
        Some('a') => out.push_str(&weekday[..3]),
        Some('A') => out.push_str(weekday),
        Some('b' | 'h') => out.push_str(&month[..3]),
        Some('B') => out.push_str(month),
        Some('p') => out.push_str(if civil.hour < 12 { "AM" } else { "PM" }),
        // Python's `datetime.now()` knows no zone and prints none.
        Some('z' | 'Z') => {}
        Some('%') => out.push('%'),
        Some(composite @ ('F' | 'T' | 'D' | 'R' | 'c' | 'x' | 'X')) => {
            let directives = match composite {
                'F' => "Y-m-d",
                'T' | 'X' => "H:M:S",
                'R' => "H:M",
                'c' => "a b e H:M:S Y",
                _ => "m/d/y",
            };
            for c in directives.chars() {
                if c.is_ascii_alphabetic() {
                    write_directive(civil, Some(c), true, out)?;
                } else {
                    out.push(c);
                }
            }
        }
        Some(other) => return Err(format!("strftime_now: the directive %{other} is not known")),
        None => return Err("strftime_now: the format ends with a lone %".to_owned()),
    }
    Ok(())
}
