//! Figures, ratios, and how they are shown.

use std::time::Duration;

/// Times of many calls.
#[derive(Debug, Default)]
pub(crate) struct Figure {
    times: Vec<Duration>,
}

impl Figure {
    pub(crate) fn add(&mut self, time: Duration) {
        let at = self.times.partition_point(|other| *other < time);
        self.times.insert(at, time);
    }

    /// The time that so many hundredths of the calls did not exceed.
    pub(crate) fn percentile(&self, hundredths: usize) -> Duration {
        let last = self.times.len().saturating_sub(1);
        self.times
            .get(last * hundredths / 100)
            .copied()
            .unwrap_or_default()
    }

    pub(crate) fn median(&self) -> Duration {
        self.percentile(50)
    }

    fn show(&self) -> String {
        let ms = |p| self.percentile(p).as_secs_f64() * 1000.0;
        format!(
            "p50 {:.2} ms, p95 {:.2} ms, p99 {:.2} ms",
            ms(50),
            ms(95),
            ms(99)
        )
    }
}

/// One line of the result.
#[derive(Debug)]
pub(crate) struct Row {
    name: String,
    measured: String,
    value: f64,
    target: &'static str,
}

impl Row {
    /// A measure beside a peer's, as the ratio of the medians.
    pub(crate) fn ratio(name: &str, ours: &Figure, peer_name: &str, peer: &Figure) -> Row {
        let value = ours.median().as_secs_f64() / peer.median().as_secs_f64();
        let peer = peer.median().as_secs_f64() * 1000.0;
        let measured = format!("{}; {peer_name} p50 {peer:.2} ms", ours.show());
        Row {
            name: name.to_owned(),
            measured,
            value,
            target: "",
        }
    }

    /// A measure that stands for itself.
    pub(crate) fn plain(name: &str, measured: String, value: f64) -> Row {
        Row {
            name: name.to_owned(),
            measured,
            value,
            target: "",
        }
    }

    pub(crate) fn target(self, target: &'static str) -> Row {
        Row { target, ..self }
    }
}

/// All lines, for a terminal and for a document.
pub(crate) fn table(rows: &[Row]) -> String {
    let mut text = String::from("measure | measured | value | asked\n---|---|--:|---\n");
    for row in rows {
        let Row {
            name,
            measured,
            value,
            target,
        } = row;
        text += &[name.as_str(), measured, &format!("{value:.2}"), target].join(" | ");
        text += "\n";
    }
    text
}

/// The numbers before `ms` in a line of [`table`], in order.
pub(crate) fn milliseconds_of(line: &str) -> Vec<f64> {
    let words: Vec<&str> = line
        .split([' ', ',', ';'])
        .filter(|word| !word.is_empty())
        .collect();
    words
        .windows(2)
        .filter(|pair| pair[1] == "ms")
        .filter_map(|pair| pair[0].parse().ok())
        .collect()
}

/// What this was measured on.
pub(crate) fn machine() -> String {
    let kernel = rustix::system::uname()
        .release()
        .to_string_lossy()
        .into_owned();
    let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
    let memory = rustix::system::sysinfo();
    let gib = (memory.totalram * u64::from(memory.mem_unit)) >> 30;
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info
        .lines()
        .find_map(|line| line.strip_prefix("model name"));
    let model = model
        .map(|rest| rest.trim_start_matches([' ', '\t', ':']))
        .unwrap_or("unknown");
    format!("machine: {model}, {cpus} processors, {gib} GiB, Linux {kernel}")
}
