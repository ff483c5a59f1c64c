//! `GET /metrics`: what the sandbox uses, as far as it can be seen from inside.
//!
//! The node knows the limits and counts by control groups; this is for who asks the guest alone.

use super::Live;
use rustix::fs::statvfs;
use serde_json::{Value, json};
use std::time::Instant;

/// Processes that are looked at; a sandbox that has more tells less.
const LOOKED_AT_MAX: usize = 2048;

/// The writable storage.
const STORAGE: &str = "/home";

/// Processor time in microseconds, and when it was looked at.
#[derive(Debug, Clone, Copy)]
pub(super) struct Look {
    at: Instant,
    cpu_us: u64,
}

/// What the processes use.
#[derive(Debug, Default, PartialEq, Eq)]
struct Used {
    ticks: u64,
    pages: u64,
}

/// All of it, and the share of the processors since it was last asked.
pub(super) fn answer(live: &Live) -> Value {
    let page = u64::try_from(rustix::param::page_size()).unwrap_or(4096);
    let used = used();
    let ticks = rustix::param::clock_ticks_per_second().max(1);
    let cpu_us = used.ticks * 1_000_000 / ticks + live.processes.borrow().cpu_us_of_dead();
    let now = Look {
        at: Instant::now(),
        cpu_us,
    };
    let before = live.look.replace(Some(now));
    let disk = statvfs(STORAGE).map_or((0, 0), |disk| {
        let used = disk.f_blocks.saturating_sub(disk.f_bfree);
        (used * disk.f_frsize, disk.f_blocks * disk.f_frsize)
    });
    let system = rustix::system::sysinfo();
    let mem_total = u64::from(system.mem_unit) * system.totalram;
    let mem_used = (used.pages * page).saturating_add(disk.0).min(mem_total);
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
    json!({
        "ts": now.tv_sec,
        "cpu_count": rustix::thread::sched_getaffinity(None).map_or(1, |cpus| cpus.count()),
        "cpu_used_us": cpu_us,
        "cpu_used_pct": before.map_or(0.0, |before| share(before, cpu_us)),
        "mem_total": mem_total,
        "mem_used": mem_used,
        "mem_cache": 0,
        "mem_total_mib": mem_total >> 20,
        "mem_used_mib": mem_used >> 20,
        "disk_used": disk.0,
        "disk_total": disk.1,
    })
}

/// Percent of one processor.
fn share(before: Look, cpu_us: u64) -> f64 {
    let used = std::time::Duration::from_micros(cpu_us.saturating_sub(before.cpu_us));
    let passed = before.at.elapsed().as_secs_f64().max(0.001);
    (used.as_secs_f64() / passed * 10_000.0).round() / 100.0
}

fn used() -> Used {
    let entries = std::fs::read_dir("/proc").into_iter().flatten();
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let pids = names.filter_map(|name| name.parse::<u32>().ok());
    // The first is the guest itself.
    let stats = pids.filter(|pid| *pid != 1).take(LOOKED_AT_MAX);
    let stats = stats.filter_map(|pid| std::fs::read_to_string(format!("/proc/{pid}/stat")).ok());
    stats.fold(Used::default(), |all, stat| {
        let one = of(&stat).unwrap_or_default();
        Used {
            ticks: all.ticks + one.ticks,
            pages: all.pages + one.pages,
        }
    })
}

/// What one process uses, with the children that it has waited for; see `proc_pid_stat(5)`.
fn of(stat: &str) -> Option<Used> {
    // The name of a program is its own choice, and may have spaces and brackets in it.
    let (_, fields) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    // The first after the name is the third of all.
    let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    let ticks = [14, 15, 16, 17].into_iter().filter_map(field).sum();
    Some(Used {
        ticks,
        pages: field(24)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_proc_is_read_whatever_the_program_is_called() {
        let line = "7 (a) b) S 1 7 7 0 -1 4194304 1 2 3 4 10 20 3 4 20 0 1 0 100 9999 55 18446744073709551615 1";
        let expected = Used {
            ticks: 37,
            pages: 55,
        };
        assert_eq!(of(line), Some(expected));
        assert_eq!(of("nonsense"), None);
    }
}
