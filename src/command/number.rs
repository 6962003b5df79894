//! Numbers on the command line, each within bounds that its help names.

use std::ops::RangeInclusive;

/// Reads a whole number within `bounds`.
pub fn whole(bounds: RangeInclusive<usize>) -> impl Fn(&str) -> Result<usize, String> + Clone {
    move |text| match text.parse() {
        Ok(number) if bounds.contains(&number) => Ok(number),
        _ => Err(format!("expected a whole number from {} to {}", bounds.start(), bounds.end())),
    }
}

/// Reads a number within `bounds`.
pub fn real(bounds: RangeInclusive<f64>) -> impl Fn(&str) -> Result<f64, String> + Clone {
    move |text| match text.parse() {
        // A NaN is in no range.
        Ok(number) if bounds.contains(&number) => Ok(number),
        _ => Err(format!("expected a number from {} to {}", bounds.start(), bounds.end())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_outside_of_their_bounds_are_refused_with_the_bounds() {
        let threads = whole(1..=1024);
        assert_eq!(threads("7"), Ok(7));
        for text in
            ["0", "1025", "1000000000", "18446744073709551615", "99999999999999999999999", "-1", "1e3", ""]
        {
            assert_eq!(threads(text).unwrap_err(), "expected a whole number from 1 to 1024", "{text}");
        }
        let seconds = real(0.1..=3600.0);
        assert_eq!(seconds("5"), Ok(5.0));
        for text in ["NaN", "inf", "-1", "1e99", "x"] {
            assert_eq!(seconds(text).unwrap_err(), "expected a number from 0.1 to 3600", "{text}");
        }
    }
}
