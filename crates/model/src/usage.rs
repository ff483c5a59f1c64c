//! What a sandbox uses over time: moments at which it was looked at, and how many of them are shown.

use serde::{Deserialize, Serialize};

/// What a sandbox had used, or used, at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct UsagePoint {
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// Processor time since its start, in microseconds.
    pub cpu_us: u64,
    /// Memory, in bytes, without what the kernel keeps of files and would give back.
    pub memory_bytes: u64,
    /// That, in bytes.
    pub cache_bytes: u64,
    /// Storage that is filled, in bytes.
    pub disk_bytes: u64,
}

/// The same, and how fast it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UsageSpan {
    /// The end of the span. Memory and storage are the most that was seen in it.
    pub end: UsagePoint,
    /// Thousandths of a processor in it, on average; of the first span nobody knows.
    pub cpu_millis: Option<u32>,
}

/// Puts points in order and shows at most `most` of them (at least 2), each for a part of the time. A point
/// that is told twice counts once.
#[must_use]
pub fn spans(mut points: Vec<UsagePoint>, most: usize) -> Vec<UsageSpan> {
    points.sort_by_key(|point| point.at_ms);
    points.dedup_by_key(|point| point.at_ms);
    let (Some(first), Some(last)) = (points.first().copied(), points.last()) else {
        return Vec::new();
    };
    let most = u64::try_from(most.max(2)).unwrap_or(u64::MAX);
    // Rounded up, so that the last point is in the last part and not behind it.
    let width = ((last.at_ms - first.at_ms) / most + 1).max(1);
    let is_few = u64::try_from(points.len()).is_ok_and(|count| count <= most);
    let mut spans: Vec<UsageSpan> = Vec::new();
    let mut part = None;
    for point in points {
        let own = if is_few {
            point.at_ms
        } else {
            (point.at_ms - first.at_ms) / width
        };
        match spans.last_mut().filter(|_| part == Some(own)) {
            Some(span) => {
                span.end = UsagePoint {
                    memory_bytes: point.memory_bytes.max(span.end.memory_bytes),
                    cache_bytes: point.cache_bytes.max(span.end.cache_bytes),
                    disk_bytes: point.disk_bytes.max(span.end.disk_bytes),
                    ..point
                };
            }
            None => spans.push(UsageSpan {
                end: point,
                cpu_millis: None,
            }),
        }
        part = Some(own);
    }
    for index in 1..spans.len() {
        let (Some(before), Some(span)) = (spans.get(index - 1).copied(), spans.get_mut(index))
        else {
            continue;
        };
        span.cpu_millis = Some(speed(&before.end, &span.end));
    }
    spans
}

/// Thousandths of a processor between two moments. Time that runs backwards is of a counter that began anew.
#[must_use]
pub fn speed(before: &UsagePoint, after: &UsagePoint) -> u32 {
    let used_us = after.cpu_us.saturating_sub(before.cpu_us);
    // Microseconds in milliseconds are thousandths.
    let passed_ms = after.at_ms.saturating_sub(before.at_ms).max(1);
    u32::try_from(used_us / passed_ms).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn point(at_ms: u64, cpu_us: u64, memory_bytes: u64) -> UsagePoint {
        UsagePoint {
            at_ms,
            cpu_us,
            memory_bytes,
            ..UsagePoint::default()
        }
    }

    #[test]
    fn few_points_are_shown_as_they_are_and_many_as_the_most_of_each_part() {
        let points = vec![
            point(10_000, 0, 5),
            point(20_000, 5_000_000, 7),
            point(10_000, 0, 5),
            point(30_000, 5_000_000, 6),
        ];
        let shown = |most| -> Vec<_> {
            let spans = spans(points.clone(), most).into_iter();
            let short = |span: UsageSpan| (span.end.at_ms, span.end.memory_bytes, span.cpu_millis);
            spans.map(short).collect()
        };
        let all = vec![
            (10_000, 5, None),
            (20_000, 7, Some(500)),
            (30_000, 6, Some(0)),
        ];
        assert_eq!(shown(9), all);
        assert_eq!(shown(2), [(20_000, 7, None), (30_000, 6, Some(0))]);
        assert_eq!(spans(Vec::new(), 9), []);
        // A counter that began anew is no speed.
        assert_eq!(speed(&point(0, 9, 0), &point(1, 0, 0)), 0);
    }

    proptest! {
        #[test]
        fn there_are_never_more_than_asked_for_and_the_newest_is_among_them(
            times in proptest::collection::vec(any::<u64>(), 0..200),
            most in 0_usize..50,
        ) {
            let points = times.iter().map(|at| point(*at, *at, 1)).collect();
            let shown = spans(points, most);
            prop_assert!(shown.len() <= most.max(2));
            prop_assert_eq!(shown.last().map(|span| span.end.at_ms), times.iter().max().copied());
            prop_assert!(shown.windows(2).all(|pair| pair[0].end.at_ms < pair[1].end.at_ms));
        }
    }
}
