//! Durations as people write them: `90`, `90s`, `5m`, `1h30m`, `2d`.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

/// Reads a duration. A plain number is seconds.
///
/// # Errors
/// Says which forms are taken.
pub fn parse(text: &str) -> Result<Duration, String> {
    const FORM: &str = "write seconds such as 90, or 90s, 5m, 1h30m, 2d";
    let text = text.trim();
    if text.is_empty() {
        return Err(FORM.into());
    }
    if let Ok(seconds) = text.parse::<u64>() {
        return Ok(Duration::from_secs(seconds));
    }
    let (days, rest) = match text.split_once('d') {
        Some((days, rest)) => (days.trim().parse::<u64>().map_err(|_| FORM)?, rest.trim()),
        None => (0, text),
    };
    let rest = if rest.is_empty() { Duration::ZERO } else { read(rest).ok_or(FORM)? };
    let days = days.checked_mul(24 * 3600).map(Duration::from_secs).ok_or(FORM)?;
    days.checked_add(rest).ok_or_else(|| FORM.to_owned())
}

fn read(text: &str) -> Option<Duration> {
    Duration::try_from(text.parse::<SignedDuration>().ok()?).ok()
}

/// Reads a duration in whole seconds.
///
/// # Errors
/// Says which forms are taken.
pub fn parse_seconds(text: &str) -> Result<u32, String> {
    u32::try_from(parse(text)?.as_secs()).map_err(|_| "longer than a hundred years".to_owned())
}

/// How long ago, or for how long, in one or two units: `3s`, `12m`, `5h20m`, `3d`.
#[must_use]
pub fn short(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let two = |big: u64, unit: &str, small: u64, below: &str| match small {
        0 => format!("{big}{unit}"),
        small => format!("{big}{unit}{small}{below}"),
    };
    match seconds {
        0..60 => format!("{seconds}s"),
        60..600 => two(seconds / 60, "m", seconds % 60, "s"),
        600..3600 => format!("{}m", seconds / 60),
        3600..36_000 => two(seconds / 3600, "h", seconds % 3600 / 60, "m"),
        36_000..86_400 => format!("{}h", seconds / 3600),
        _ => two(seconds / 86_400, "d", seconds % 86_400 / 3600, "h"),
    }
}

/// How long before `now` something was; nothing for what is yet to come.
#[must_use]
pub fn age(since: Timestamp, now: Timestamp) -> String {
    short(Duration::try_from(now.duration_since(since)).unwrap_or_default())
}

/// How long after `now` something will be.
#[must_use]
pub fn ahead(until: Timestamp, now: Timestamp) -> String {
    short(Duration::try_from(until.duration_since(now)).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_in_the_forms_that_people_write() {
        for (text, seconds) in
            [("90", 90), ("90s", 90), ("5m", 300), ("1h30m", 5400), ("2d", 172_800), ("1d 2h", 93_600)]
        {
            assert_eq!(parse(text).expect(text).as_secs(), seconds, "{text}");
        }
        for text in ["", "x", "-5", "-5s", "5 parsecs", "99999999999999999999d"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn durations_are_shown_in_at_most_two_units() {
        for (seconds, shown) in
            [(0, "0s"), (59, "59s"), (60, "1m"), (90, "1m30s"), (660, "11m"), (5400, "1h30m"), (90_000, "1d1h")]
        {
            assert_eq!(short(Duration::from_secs(seconds)), shown);
        }
    }
}
