//! Numbers as a person reads them.

/// Seconds as a duration: `0.4 s`, `87 s`, `3.4 min`, `5.0 h`.
pub fn duration(seconds: f64) -> String {
    match seconds {
        seconds if seconds < 0.95 => format!("{seconds:.1} s"),
        seconds if seconds < 120.0 => format!("{seconds:.0} s"),
        seconds if seconds < 7_200.0 => format!("{:.1} min", seconds / 60.0),
        seconds => format!("{:.1} h", seconds / 3_600.0),
    }
}

/// The same of a guess, in few digits: `87 s`, `3 min`, `5.2 h`.
pub fn about(seconds: f64) -> String {
    match seconds {
        seconds if seconds < 89.5 => format!("{seconds:.0} s"),
        seconds if seconds < 5_370.0 => format!("{:.0} min", seconds / 60.0),
        seconds if seconds < 172_800.0 => format!("{:.1} h", seconds / 3_600.0),
        seconds => format!("{:.1} days", seconds / 86_400.0),
    }
}

/// A rate a second, with two digits at least: never 0 of something that goes on.
pub fn rate(per_s: f64) -> String {
    match per_s {
        per_s if per_s >= 9.95 => grouped(per_s.round() as u64),
        per_s if per_s >= 0.095 => format!("{per_s:.1}"),
        per_s => format!("{per_s:.2}"),
    }
}

/// Digits in groups of three: `190,000`.
pub fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

const METRIC: [&str; 9] = ["", "k", "M", "G", "T", "P", "E", "Z", "Y"];

/// Three digits and a metric prefix: `86.2 M`.
pub fn scaled(value: f64) -> String {
    let (value, prefix) = stepped(value, 1000.0, METRIC.len());
    format!("{value} {}", METRIC[prefix]).trim_end().to_owned()
}

/// Floating-point operations: `59.4 GFLOP`.
pub fn flop(value: f64) -> String {
    let (value, prefix) = stepped(value, 1000.0, METRIC.len());
    format!("{value} {}FLOP", METRIC[prefix])
}

/// Three digits and a binary prefix: `12.3 GiB`.
pub fn bytes(value: f64) -> String {
    const PREFIXES: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let (value, prefix) = stepped(value, 1024.0, PREFIXES.len());
    format!("{value} {}", PREFIXES[prefix])
}

fn stepped(mut value: f64, step: f64, prefixes: usize) -> (String, usize) {
    let mut prefix = 0;
    // From 999.5 on, three digits would read 1000.
    while value >= 999.5 && prefix + 1 < prefixes {
        value /= step;
        prefix += 1;
    }
    let decimals = match value {
        value if prefix == 0 || value >= 99.95 => 0,
        value if value >= 9.995 => 1,
        _ => 2,
    };
    (format!("{value:.decimals$}"), prefix)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_rate_is_not_zero() {
        let expected = [(5120.4, "5,120"), (9.96, "10"), (0.44, "0.4"), (0.06, "0.06"), (0.0, "0.00")];
        for (per_s, text) in expected {
            assert_eq!(rate(per_s), text);
        }
        assert_eq!([999, 1_000, 1_234_567].map(grouped), ["999", "1,000", "1,234,567"]);
    }

    #[test]
    fn sizes_have_three_digits() {
        assert_eq!(scaled(86_190_336.0), "86.2 M");
        assert_eq!(scaled(999.6e9), "1.00 T");
        assert_eq!(scaled(12.0), "12");
        assert_eq!(flop(59.36e9), "59.4 GFLOP");
        assert_eq!(bytes(1536.0), "1.50 KiB");
    }

    #[test]
    fn durations_have_few_digits_and_never_end_in_sixty() {
        let exact = [(0.42, "0.4 s"), (0.97, "1 s"), (87.4, "87 s"), (204.0, "3.4 min"), (18_000.0, "5.0 h")];
        for (seconds, text) in exact {
            assert_eq!(duration(seconds), text);
        }
        let guesses =
            [(0.0, "0 s"), (89.0, "89 s"), (90.0, "2 min"), (5_400.0, "1.5 h"), (259_200.0, "3.0 days")];
        for (seconds, text) in guesses {
            assert_eq!(about(seconds), text);
        }
    }
}
