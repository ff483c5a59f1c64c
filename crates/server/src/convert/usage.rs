//! What sandboxes use, in both languages.

use api::node::{NodeUsage, UsageSample};
use api::sandbox::{UsagePoint, UsageView};
use model::limits;
use service::{SandboxRow, SandboxSeen, UsageSpan};

use super::from_wire;
use crate::e2b::measure::Said;
use crate::error::Error;

/// What a node has seen; each moment has its age in place of a time.
pub(crate) fn seen(usage: NodeUsage) -> Result<Vec<SandboxSeen>, Error> {
    let one = |one: api::node::SandboxUsed| {
        let id = one.sandbox_id.parse();
        Ok(SandboxSeen {
            id: id.map_err(|error| from_wire::bad_id("sandboxes", &error))?,
            points: one.samples.iter().map(aged).collect(),
        })
    };
    usage.sandboxes.into_iter().map(one).collect()
}

fn aged(sample: &UsageSample) -> service::UsagePoint {
    service::UsagePoint {
        at_ms: sample.age_ms,
        cpu_us: sample.cpu_us,
        memory_bytes: sample.memory_bytes,
        cache_bytes: sample.cache_bytes,
        disk_bytes: sample.disk_bytes,
    }
}

/// What a guest says of this moment.
pub(crate) fn now(said: &Said, at_ms: u64) -> service::UsagePoint {
    service::UsagePoint {
        at_ms,
        cpu_us: said.cpu_used_us,
        memory_bytes: said.mem_used,
        cache_bytes: said.mem_cache,
        disk_bytes: said.disk_used,
    }
}

/// The most that a sandbox may use: thousandths of a processor, memory, storage.
pub(crate) fn most(row: &SandboxRow) -> (u32, u64, u64) {
    let asked = &row.spec.limits;
    let memory = asked.memory_bytes.unwrap_or(limits::MEMORY_DEFAULT_BYTES);
    (
        asked.cpu_millis.unwrap_or(limits::CPU_DEFAULT_MILLIS),
        memory,
        asked.disk_bytes.unwrap_or_else(|| disk(row, memory)),
    )
}

/// The storage of a sandbox for which nobody asked any: what its node says is in force; before it has, what
/// it will be, which is a part of the memory.
fn disk(row: &SandboxRow, memory: u64) -> u64 {
    let mut clauses = row.enforcement.iter();
    let clause = clauses.find(|clause| clause.clause == "disk");
    let value = clause.and_then(|clause| clause.value.as_deref());
    let bytes = value.and_then(|value| value.strip_suffix(" bytes")?.parse().ok());
    bytes.unwrap_or_else(|| limits::DISK_DEFAULT_BYTES.min(memory / 2))
}

/// For whoever asked. What a guest and a node say is not believed beyond the limits of the sandbox.
pub(crate) fn view(row: &SandboxRow, spans: &[UsageSpan]) -> UsageView {
    let (cpu_millis_max, memory_bytes_max, disk_bytes_max) = most(row);
    let point = |span: &UsageSpan| UsagePoint {
        at_ms: span.end.at_ms,
        cpu_us: span.end.cpu_us,
        cpu_millis: span.cpu_millis.map(|millis| millis.min(cpu_millis_max)),
        memory_bytes: span.end.memory_bytes.min(memory_bytes_max),
        cache_bytes: span.end.cache_bytes.min(memory_bytes_max),
        disk_bytes: span.end.disk_bytes.min(disk_bytes_max),
    };
    UsageView {
        cpu_millis_max,
        memory_bytes_max,
        disk_bytes_max,
        points: spans.iter().map(point).collect(),
    }
}
