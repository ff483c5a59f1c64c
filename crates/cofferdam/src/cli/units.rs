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
    let shift = match unit.trim_end_matches('B').trim_end_matches('I') {
        "" => 0,
        "K" => 10,
        "M" => 20,
        "G" => 30,
        "T" => 40,
        _ => return Err(help()),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
    let thousandths = format!("{fraction:0<3}");
    let thousandths = thousandths.get(..3).ok_or_else(help)?;
    let whole: u64 = whole.parse().map_err(|_| help())?;
    let part: u64 = thousandths.parse().map_err(|_| help())?;
    let scaled = whole.checked_mul(1 << shift).ok_or_else(help)?;
    Ok(scaled.saturating_add((part << shift) / 1000))
}

/// Reads a duration such as `30s`, `500ms`, `2m` or `1h`; seconds without a unit.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let help = || format!("`{text}` is not a duration; write for example 30s, 5m or 500ms");
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: u64 = digits.parse().map_err(|_| help())?;
    let scale = match text.get(digits.len()..).unwrap_or_default() {
        "ms" => 1,
        "" | "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(help()),
    };
    number
        .checked_mul(scale)
        .map(Duration::from_millis)
        .ok_or_else(help)
}

/// Reads processors such as `1`, `0.5` or `1500m`, in thousandths of one.
pub(crate) fn cpus(text: &str) -> Result<u32, String> {
    let help = || format!("`{text}` is not a number of processors; write for example 1 or 0.5");
    if let Some(millis) = text.strip_suffix('m') {
        return millis.parse().map_err(|_| help());
    }
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let whole: u32 = whole.parse().map_err(|_| help())?;
    let thousandths = format!("{fraction:0<3}");
    let part: u32 = thousandths
        .get(..3)
        .ok_or_else(help)?
        .parse()
        .map_err(|_| help())?;
    whole
        .checked_mul(1000)
        .and_then(|whole| whole.checked_add(part))
        .ok_or_else(help)
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
    } else {
        format!("{}.{} {name}", tenths / 10, tenths % 10)
    }
}

/// Writes a duration for people.
pub(crate) fn show_ms(ms: u64) -> String {
    match ms {
        0..1000 => format!("{ms} ms"),
        1000..60_000 => format!("{}.{} s", ms / 1000, ms % 1000 / 100),
        _ => format!("{} min {} s", ms / 60_000, ms % 60_000 / 1000),
    }
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
        for wrong in ["", "M", "1X", "-1", "1..2", "99999999999T"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn durations_have_units() {
        assert_eq!(duration("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(duration("5"), Ok(Duration::from_secs(5)));
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert!(duration("1d").is_err() && duration("s").is_err());
    }

    #[test]
    fn processors_may_be_parts() {
        assert_eq!(cpus("1"), Ok(1000));
        assert_eq!(cpus("0.5"), Ok(500));
        assert_eq!(cpus("250m"), Ok(250));
        assert!(cpus("one").is_err());
    }

    #[test]
    fn people_see_units() {
        assert_eq!(show_size(512), "512 B");
        assert_eq!(show_size(1536), "1.5 KiB");
        assert_eq!(show_ms(61_000), "1 min 1 s");
    }
}
