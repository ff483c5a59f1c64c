//! Sizes and durations as people write them.

use std::time::Duration;

/// Reads a size such as `512M`, `1.5G` or `65536`: powers of 1024, bytes without a unit.
pub(crate) fn size(text: &str) -> Result<u64, String> {
    let help = || format!("`{text}` is not a size; write for example 512M or 2G");
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = text
        .get(digits.len()..)
        .unwrap_or_default()
        .to_ascii_uppercase();
    let shift = match unit.as_str() {
        "" | "B" => 0,
        "K" | "KB" | "KIB" => 10,
        "M" | "MB" | "MIB" => 20,
        "G" | "GB" | "GIB" => 30,
        "T" | "TB" | "TIB" => 40,
        _ => return Err(help()),
    };
    let thousandths = thousandths(digits).ok_or_else(help)?;
    let integer = (thousandths / 1000).checked_mul(1 << shift);
    let part = ((thousandths % 1000) << shift) / 1000;
    integer
        .ok_or_else(help)
        .map(|bytes| bytes.saturating_add(part))
}

/// Reads a number. Nothing but digits: a sign would be read by the standard library too, and means
/// nothing here.
fn whole(text: &str) -> Option<u64> {
    let is_number = text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|_| is_number)
}

/// Reads a number in thousandths; decimals beyond the third do not count.
fn thousandths(text: &str) -> Option<u64> {
    let (integer, fraction) = text.split_once('.').unwrap_or((text, "0"));
    whole(fraction)?;
    let part = whole(format!("{fraction:0<3}").get(..3)?)?;
    whole(integer)?.checked_mul(1000)?.checked_add(part)
}

/// Reads a duration such as `30s`, `500ms`, `2m`, `1h` or `7d`; seconds without a unit.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let help =
        || format!("`{text}` is not a duration; write for example 500ms, 30s, 5m, 12h or 7d");
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number = whole(digits).ok_or_else(help)?;
    let scale = match text.get(digits.len()..).unwrap_or_default() {
        "ms" => 1,
        "" | "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 24 * 3_600_000,
        _ => return Err(help()),
    };
    number
        .checked_mul(scale)
        .map(Duration::from_millis)
        .ok_or_else(help)
}

/// The same with a unit: where days are usual, a number alone would be read as seconds, and nobody would mean them.
pub(crate) fn life(text: &str) -> Result<Duration, String> {
    match whole(text) {
        Some(_) => Err(format!(
            "`{text}` has no unit; write for example 90d or 12h"
        )),
        None => duration(text),
    }
}

/// Reads processors such as `1`, `0.5` or `1500m`, in thousandths of one.
pub(crate) fn cpus(text: &str) -> Result<u32, String> {
    let help = || format!("`{text}` is not a number of processors; write for example 1 or 0.5");
    let millis = match text.strip_suffix('m') {
        Some(millis) => whole(millis),
        None => thousandths(text),
    };
    let millis = millis.and_then(|millis| u32::try_from(millis).ok());
    millis.ok_or_else(help)
}

/// Reads a number of processes.
pub(crate) fn count(text: &str) -> Result<u32, String> {
    let help = || format!("`{text}` is not a number of processes; write for example 64");
    let number = whole(text).and_then(|number| u32::try_from(number).ok());
    number.ok_or_else(help)
}

/// Writes a size for people.
pub(crate) fn show_size(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut tenths = bytes.saturating_mul(10);
    let mut unit = 0;
    while tenths >= 10_240 && unit + 1 < units.len() {
        tenths /= 1024;
        unit += 1;
    }
    let name = units.get(unit).copied().unwrap_or_default();
    if unit == 0 {
        format!("{bytes} {name}")
    } else if tenths.is_multiple_of(10) {
        format!("{} {name}", tenths / 10)
    } else {
        format!("{}.{} {name}", tenths / 10, tenths % 10)
    }
}

/// Writes a duration for people.
pub(crate) fn show_ms(ms: u64) -> String {
    let (hours, minutes, seconds) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60);
    match ms {
        0..1000 => format!("{ms} ms"),
        1000..60_000 if ms.is_multiple_of(1000) => format!("{seconds} s"),
        1000..60_000 => format!("{seconds}.{} s", ms % 1000 / 100),
        60_000..3_600_000 if seconds == 0 => format!("{minutes} min"),
        60_000..3_600_000 => format!("{minutes} min {seconds} s"),
        _ if minutes == 0 => format!("{hours} h"),
        _ => format!("{hours} h {minutes} min"),
    }
}

/// Writes thousandths of a processor as processors.
pub(crate) fn show_cpus(millis: u64) -> String {
    let text = format!("{}.{:03}", millis / 1000, millis % 1000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_powers_of_1024() {
        assert_eq!(size("512M"), Ok(512 << 20));
        assert_eq!(size("1.5G"), Ok((1 << 30) + (500 << 30) / 1000));
        assert_eq!(size("2GiB"), Ok(2 << 30));
        assert_eq!(size("0"), Ok(0));
        for wrong in [
            "",
            "M",
            "1X",
            "-1",
            "1..2",
            "99999999999T",
            "1é",
            "0.é",
            "١M",
            "0.+5",
            "+5",
            "5I",
            "1MBB",
            "0.0000é",
        ] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn durations_have_units() {
        assert_eq!(duration("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(duration("5"), Ok(Duration::from_secs(5)));
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("7d"), Ok(Duration::from_secs(7 * 86_400)));
        assert_eq!(life("2d"), Ok(Duration::from_secs(172_800)));
        assert_eq!(life("1h"), Ok(Duration::from_secs(3600)));
        for bad in ["90", "0", "d", "-1d", "1.5d", "x", ""] {
            assert!(life(bad).is_err(), "{bad}");
        }
        for wrong in [
            "1w",
            "s",
            "",
            "-5",
            "+5",
            "1.5s",
            "\u{661}s",
            "99999999999999999999",
        ] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn processors_may_be_parts() {
        assert_eq!(cpus("1"), Ok(1000));
        assert_eq!(cpus("0.5"), Ok(500));
        assert_eq!(cpus("250m"), Ok(250));
        for wrong in ["one", "", "-1", "1..5", ".5.", "1é", "0.5é", "99999999"] {
            assert!(cpus(wrong).is_err(), "{wrong}");
        }
        assert!(count("64") == Ok(64) && count("-1").is_err() && count("").is_err());
    }

    #[test]
    fn people_see_units() {
        assert_eq!(show_size(512), "512 B");
        assert_eq!(show_size(1536), "1.5 KiB");
        let times = [999, 2000, 2345, 60_000, 61_500, 86_400_000, 3_900_000];
        let shown = [
            "999 ms",
            "2 s",
            "2.3 s",
            "1 min",
            "1 min 1 s",
            "24 h",
            "1 h 5 min",
        ];
        assert_eq!(times.map(show_ms), shown);
        assert_eq!([10, 1000, 2500].map(show_cpus), ["0.01", "1", "2.5"]);
    }
}
