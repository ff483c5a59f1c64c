//! What this node says of its machine: what there is, what is left of it, and whether sandboxes can be made.

use crate::Node;
use crate::job::{Broken, chain};
use api::fleet::{NodeBusy, NodeDriver, NodeHost, NodePressure, NodeReserved};
use api::job::LimitsAsked;
use api::node::HostMoment;
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

/// A file of proc(5), or nothing where it cannot be read.
fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// How busy the machine is. Three small files, which the kernel writes out of numbers that it has.
fn busy(node: &Node, loadavg: &str) -> NodeBusy {
    let [_, load_5_milli, load_15_milli] = loads(loadavg);
    let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    NodeBusy {
        load_5_milli,
        load_15_milli,
        threads: threads(loadavg),
        jobs: count(node.jobs().len()),
        sandboxes: count(crate::sandbox::reserved(node).len()),
        spares: count(crate::spare::count(node)),
        pressure: pressure(|what| read(&format!("/proc/pressure/{what}"))),
    }
}

/// How much is waited; `None` on a kernel that does not count it, or is told not to.
fn pressure(read: impl Fn(&str) -> String) -> Option<NodePressure> {
    let one = |what: &str| waited_milli(&read(what));
    Some(NodePressure {
        cpu_milli: one("cpu")?,
        memory_milli: one("memory")?,
        io_milli: one("io")?,
    })
}

/// The machine, as it is now. Files of proc(5) that cannot be read count as 0.
pub(crate) fn host(node: &Node) -> NodeHost {
    let loadavg = read("/proc/loadavg");
    let (disk_bytes, disk_free_bytes) = disk(node);
    let why = node.inner.health.unhealthy();
    let uname = rustix::system::uname();
    NodeHost {
        kernel: uname.release().to_string_lossy().into_owned(),
        cpus: node.inner.host.cpus,
        load_milli: loads(&loadavg)[0],
        memory_bytes: node.inner.host.memory_bytes,
        memory_free_bytes: memory_free(&read("/proc/meminfo")),
        disk_bytes,
        disk_free_bytes: disk_free_bytes.min(disk_bytes),
        reserved: reserved_by_all(node),
        busy: Some(busy(node, &loadavg)),
        leftovers: *node.leftovers(),
        drivers: vec![NodeDriver {
            name: node.inner.driver.name().to_owned(),
            healthy: why.is_none(),
            why,
        }],
        refuses: refuses(node),
    }
}

/// The machine at this moment, with so many sandboxes that live on. `None` where one of its files cannot be read: a
/// number that is not there must not look like a change.
pub(crate) fn moment(sandboxes: usize) -> Option<HostMoment> {
    moment_of(&read("/proc/loadavg"), &read("/proc/meminfo"), sandboxes)
}

fn moment_of(loadavg: &str, meminfo: &str, sandboxes: usize) -> Option<HostMoment> {
    let is_number = |text: &str| text.parse::<u64>().is_ok();
    let (whole, hundredths) = loadavg.split(' ').next()?.split_once('.')?;
    if !is_number(whole) || !is_number(hundredths) {
        return None;
    }
    Some(HostMoment {
        load_milli: loads(loadavg)[0],
        memory_available_bytes: memory_available(meminfo)?,
        sandboxes: u32::try_from(sandboxes).unwrap_or(u32::MAX),
    })
}

/// The loads of `/proc/loadavg` over one, five and fifteen minutes, in thousandths.
fn loads(text: &str) -> [u64; 3] {
    let mut numbers = text.split(' ').map(milli);
    std::array::from_fn(|_| numbers.next().unwrap_or(0))
}

/// Threads of the machine, by `/proc/loadavg`: those that run, a slash, and all.
fn threads(text: &str) -> u64 {
    let of = text.split(' ').nth(3).and_then(|of| of.split_once('/'));
    of.and_then(|(_, all)| all.parse().ok()).unwrap_or(0)
}

/// In how much of the last ten seconds something waited, by a file of `/proc/pressure`, in thousandths.
fn waited_milli(text: &str) -> Option<u32> {
    let percent = text.strip_prefix("some avg10=")?.split(' ').next()?;
    u32::try_from(milli(percent) / 100).ok()
}

/// A number with two digits behind its point, in thousandths.
fn milli(number: &str) -> u64 {
    let mut parts = number.split('.');
    let mut part = || parts.next().and_then(|part| part.parse::<u64>().ok());
    let (whole, hundredths) = (part().unwrap_or(0), part().unwrap_or(0));
    whole
        .saturating_mul(1000)
        .saturating_add(hundredths.min(99) * 10)
}

/// `MemAvailable` of `/proc/meminfo`, in bytes; 0 where it is not there.
fn memory_free(text: &str) -> u64 {
    memory_available(text).unwrap_or(0)
}

fn memory_available(text: &str) -> Option<u64> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib: u64 = line?.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(kib.saturating_mul(1024))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_proc_says_is_read_and_what_it_does_not_say_is_nothing() {
        let text = "1.25 0.60 0.11 2/345 6789\n";
        assert_eq!((loads(text), threads(text)), ([1250, 600, 110], 345));
        assert_eq!((loads(""), threads("1.25 0.60")), ([0, 0, 0], 0));
        let text = "MemTotal:       24684112 kB\nMemAvailable:   23619584 kB\n";
        assert_eq!(memory_free(text), 23_619_584 * 1024);
        assert_eq!(memory_free("MemAvailable: x kB"), 0);
    }

    #[test]
    fn a_moment_has_all_of_its_numbers_or_is_none() {
        let (loadavg, meminfo) = ("1.25 0.60 0.11 2/345 6789\n", "MemAvailable:  2048 kB\n");
        let expect = HostMoment {
            load_milli: 1250,
            memory_available_bytes: 2 * 1024 * 1024,
            sandboxes: 3,
        };
        assert_eq!(moment_of(loadavg, meminfo, 3), Some(expect));
        for loadavg in ["", "x", "1", "1.x 0.60", "nan 0.60", "-1.00 0.60"] {
            assert_eq!(moment_of(loadavg, meminfo, 3), None, "{loadavg}");
        }
        for meminfo in ["", "MemTotal: 1 kB\n", "MemAvailable: x kB\n"] {
            assert_eq!(moment_of(loadavg, meminfo, 3), None, "{meminfo}");
        }
    }

    #[test]
    fn what_is_waited_for_is_said_where_the_kernel_counts_it() {
        let text = |share: &str| {
            format!(
                "some avg10={share} avg60=0.10 avg300=0.00 total=12\nfull avg10=9.99 avg60=0.00\n"
            )
        };
        let read = |what: &str| match what {
            "cpu" => text("1.25"),
            "memory" => text("0.00"),
            _ => text("100.00"),
        };
        let expect = NodePressure {
            cpu_milli: 12,
            memory_milli: 0,
            io_milli: 1000,
        };
        assert_eq!(pressure(read), Some(expect));
        assert_eq!(pressure(|_| String::new()), None);
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
