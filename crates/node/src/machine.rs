//! What this node says of its machine: what there is, what is left of it, and whether sandboxes can be made.

use crate::Node;
use crate::job::{Broken, chain};
use api::fleet::{NodeDriver, NodeHost, NodeReserved};
use api::job::LimitsAsked;
use model::limits;
use model::place::{Placement, Reserved, Wish};
use std::sync::{Mutex, PoisonError};

/// Sandboxes in a row that could not be made, after which the driver is said not to work: one or two may be
/// chance.
const FAILURES: u32 = 3;
/// Of what a driver failed with.
const WHY_BYTES_MAX: usize = 256;

/// Whether the driver works.
#[derive(Debug, Default)]
pub(crate) struct Health(Mutex<(u32, String)>);

impl Health {
    fn with<T>(&self, act: impl FnOnce(&mut (u32, String)) -> T) -> T {
        // Each change under the lock leaves the pair whole.
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A sandbox stands.
    pub(crate) fn works(&self) {
        self.with(|(failures, _)| *failures = 0);
    }

    /// What came of one. What was asked for beside the node's own root may be at fault, and must not close the node for
    /// others.
    pub(crate) fn note<T>(&self, made: &Result<T, Broken>, is_plain: bool) {
        match made {
            Ok(_) => self.works(),
            Err(error) if is_plain => self.failed(&chain(error)),
            Err(_) => {}
        }
    }

    /// A sandbox for which nobody asked for anything that others have not could not be made.
    pub(crate) fn failed(&self, why: &str) {
        let end = why.floor_char_boundary(WHY_BYTES_MAX);
        self.with(|(failures, last)| {
            *failures = failures.saturating_add(1);
            last.clear();
            last.push_str(why.get(..end).unwrap_or_default());
        });
    }

    /// What it failed with, if it does not work.
    pub(crate) fn unhealthy(&self) -> Option<String> {
        self.with(|(failures, why)| (*failures >= FAILURES).then(|| why.clone()))
    }
}

/// What limits name, as it is counted.
pub(crate) fn reserved(asked: LimitsAsked, on_disk: bool) -> Reserved {
    let asked = crate::convert::limits(asked);
    let mut reserved = Reserved::default();
    if let Some(wish) = Wish::of(&Placement::default(), &asked, on_disk) {
        reserved.add(&wish);
    }
    reserved
}

/// What the limits of all that is here name.
pub(crate) fn reserved_by_all(node: &Node) -> NodeReserved {
    let mut sum = NodeReserved::default();
    let mut add = |one: Reserved| {
        sum.memory_bytes = sum.memory_bytes.saturating_add(one.memory_bytes);
        sum.disk_bytes = sum.disk_bytes.saturating_add(one.disk_bytes);
    };
    node.jobs().values().for_each(|job| add(job.reserved));
    crate::sandbox::reserved(node).into_iter().for_each(add);
    sum
}

/// Why it takes nothing new, if it does not.
pub(crate) fn refuses(node: &Node) -> Option<String> {
    // A job that fills the rest of the disk would take the records of all others with it.
    let free = disk(node).1;
    (free < limits::FREE_DISK_MIN_BYTES)
        .then(|| format!("disk_full: {free} bytes are free, less than 1 GiB"))
}

/// Bytes of the disk, and those of them that are free. What cannot be told is free.
fn disk(node: &Node) -> (u64, u64) {
    let told = rustix::fs::statvfs(&node.inner.config.dir);
    told.map_or((0, u64::MAX), |told| {
        let bytes = |blocks: u64| blocks.saturating_mul(told.f_frsize);
        (bytes(told.f_blocks), bytes(told.f_bavail))
    })
}

/// The machine, as it is now. Files of proc(5) that cannot be read count as 0.
pub(crate) fn host(node: &Node) -> NodeHost {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let (disk_bytes, disk_free_bytes) = disk(node);
    let why = node.inner.health.unhealthy();
    let uname = rustix::system::uname();
    NodeHost {
        kernel: uname.release().to_string_lossy().into_owned(),
        cpus: node.inner.host.cpus,
        load_milli: load_milli(&read("/proc/loadavg")),
        memory_bytes: node.inner.host.memory_bytes,
        memory_free_bytes: memory_free(&read("/proc/meminfo")),
        disk_bytes,
        disk_free_bytes: disk_free_bytes.min(disk_bytes),
        reserved: reserved_by_all(node),
        drivers: vec![NodeDriver {
            name: node.inner.driver.name().to_owned(),
            healthy: why.is_none(),
            why,
        }],
        refuses: refuses(node),
    }
}

/// The first number of `/proc/loadavg`, in thousandths.
fn load_milli(text: &str) -> u64 {
    let mut parts = text.split(['.', ' ']);
    let mut number = || parts.next().and_then(|part| part.parse::<u64>().ok());
    let (whole, hundredths) = (number().unwrap_or(0), number().unwrap_or(0));
    whole
        .saturating_mul(1000)
        .saturating_add(hundredths.min(99) * 10)
}

/// `MemAvailable` of `/proc/meminfo`, in bytes.
fn memory_free(text: &str) -> u64 {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
    kib.unwrap_or(0).saturating_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_proc_says_is_read_and_what_it_does_not_say_is_nothing() {
        assert_eq!(load_milli("1.25 0.60 0.11 2/345 6789\n"), 1250);
        assert_eq!(load_milli(""), 0);
        let text = "MemTotal:       24684112 kB\nMemAvailable:   23619584 kB\n";
        assert_eq!(memory_free(text), 23_619_584 * 1024);
        assert_eq!(memory_free("MemAvailable: x kB"), 0);
    }

    #[test]
    fn a_driver_works_until_it_fails_three_times_and_again_after_one_success() {
        let health = Health::default();
        for _ in 0..2 {
            health.failed("no");
        }
        assert_eq!(health.unhealthy(), None);
        health.failed(&"ö".repeat(1000));
        assert_eq!(health.unhealthy().map(|why| why.len()), Some(256));
        health.works();
        assert_eq!(health.unhealthy(), None);
    }
}
