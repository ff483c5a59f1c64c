//! The last lines of defence, applied by a process of the workload to itself between `fork` and
//! `exec`. The order matters and is the whole story; see [`apply`].

use guest::message::{Confine, LANDLOCK_ABI, Landlock};
use landlock::{
    ABI, Access, AccessFs, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreated, RulesetCreatedAttr, Scope,
};
use rustix::io::Errno;
use rustix::thread::{CapabilitySet, CapabilitySets};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

/// The line that failed, and why.
pub(crate) type Failed = (&'static str, i32);

/// Who a process of the workload is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Who {
    /// The user that its confinement names.
    User,
    /// The root of the sandbox's own user namespace, with what package tools need and nothing else.
    Root,
    /// Another user of the sandbox, with no more rights than the first.
    Other {
        /// Inside the sandbox, and not 0.
        uid: u32,
        /// Inside the sandbox.
        gid: u32,
    },
}

/// What the sandbox's root keeps, by the numbers of `capability.h`: the rights over other owners' files
/// and processes inside, and to become another user.
const ROOT_KEEPS: [(u64, CapabilitySet); 6] = [
    (0, CapabilitySet::CHOWN),
    (1, CapabilitySet::DAC_OVERRIDE),
    (3, CapabilitySet::FOWNER),
    (5, CapabilitySet::KILL),
    (6, CapabilitySet::SETGID),
    (7, CapabilitySet::SETUID),
];

impl Who {
    fn keeps(self) -> &'static [(u64, CapabilitySet)] {
        match self {
            Who::User | Who::Other { .. } => &[],
            Who::Root => &ROOT_KEEPS,
        }
    }
}

/// The rights that are asked for: those of [`LANDLOCK_ABI`]. What an older kernel does not know is left
/// out, and the node records the ABI that was in force.
const LANDLOCK: ABI = ABI::V6;
const _: () = assert!(LANDLOCK as u32 == LANDLOCK_ABI);

/// Builds the Landlock rules ahead of the fork: twelve system calls that the start of a command need
/// not wait for. Paths that the sandbox does not have are skipped: they cannot be reached either.
pub(crate) fn landlock_rules(rules: &Landlock) -> Result<RulesetCreated, landlock::RulesetError> {
    let read = AccessFs::from_read(LANDLOCK);
    let write = AccessFs::from_all(LANDLOCK);
    let device = AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::IoctlDev;
    let mut ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(LANDLOCK))?
        .scope(Scope::AbstractUnixSocket)?
        .scope(Scope::Signal)?
        .create()?;
    for (paths, access) in [
        (&rules.read, read),
        (&rules.write, write),
        (&rules.devices, device),
    ] {
        for path in paths {
            if let Ok(fd) = PathFd::new(path) {
                ruleset = ruleset.add_rule(PathBeneath::new(fd, access))?;
            }
        }
    }
    Ok(ruleset)
}

/// Confines the calling process for good. Nothing here can be undone by what it will exec.
///
/// Resource limits come the user changes, because raising a hard limit needs a capability that is gone
/// afterwards; `no_new_privs` before Landlock and seccomp, which ask for it; capabilities before
/// seccomp, whose list refuses the calls that drop them.
pub(crate) fn apply(
    confine: &Confine,
    who: Who,
    landlock: Option<RulesetCreated>,
) -> Result<(), Failed> {
    for (resource, limit) in &confine.rlimits {
        set_limit(*resource, *limit)?;
    }
    rustix::thread::set_no_new_privs(true).map_err(step("no_new_privs"))?;
    if let Some(rules) = landlock {
        rules
            .restrict_self()
            .map_err(|_| ("landlock", libc::EPERM))?;
    }
    drop_bounding_set(who)?;
    match who {
        Who::User => become_user(confine.uid, confine.gid)?,
        Who::Root => become_user(0, 0)?,
        Who::Other { uid, gid } => become_user(uid, gid)?,
    }
    // The kernel decides this anew where the user changes, by the sysctl `fs.suid_dumpable`. A process may
    // wait like this beside others of its user.
    let hidden = rustix::process::DumpableBehavior::NotDumpable;
    rustix::process::set_dumpable_behavior(hidden).map_err(step("dumpable"))?;
    drop_capabilities(who)?;
    install_seccomp(&confine.seccomp)
}

/// Puts the five ends of the pipes at 0 to 4: standard streams, the start and the status.
pub(crate) fn apply_fds(ends: [&OwnedFd; 5]) -> Result<(), Failed> {
    for (at, end) in (0..).zip(ends) {
        put_at(end.as_raw_fd(), at)?;
    }
    for fd in [3, 4] {
        set_cloexec(fd)?;
    }
    Ok(())
}

/// Makes descriptor `to` a copy of `from`. The guest's own descriptors below 5 are the listening
/// socket, a control group and three times `/dev/null`, none of which the child needs by that number.
#[expect(unsafe_code, reason = "placing descriptors by number")]
pub(crate) fn put_at(from: RawFd, to: RawFd) -> Result<(), Failed> {
    // SAFETY: integers only; the owner of `to` in this process is never dropped, because the process
    // execs or exits.
    match unsafe { libc::dup2(from, to) } {
        -1 => Err(("dup", errno())),
        _ => Ok(()),
    }
}

#[expect(unsafe_code, reason = "a descriptor known by number")]
fn set_cloexec(fd: RawFd) -> Result<(), Failed> {
    // SAFETY: integers only.
    match unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) } {
        -1 => Err(("cloexec", errno())),
        _ => Ok(()),
    }
}

fn step(name: &'static str) -> impl Fn(Errno) -> Failed {
    move |errno| (name, errno.raw_os_error())
}

/// Moves the calling process into the workload's control groups, first of all, so that nothing it does
/// is counted elsewhere. Writes "0", which means "me": the kernel then need not stop every fork on the machine, as it must
/// when one process moves another.
pub(crate) fn join_cgroups(cgroups: &[OwnedFd]) -> Result<(), Failed> {
    for group in cgroups {
        rustix::io::write(group, b"0").map_err(step("cgroup"))?;
    }
    Ok(())
}

/// The highest capability number any kernel has had is 40; asking for more ends at `EINVAL`.
const CAPABILITY_LAST: u64 = 63;

#[expect(unsafe_code, reason = "system calls without a safe wrapper")]
fn drop_bounding_set(who: Who) -> Result<(), Failed> {
    // SAFETY: `prctl` with integer arguments touches no memory of ours.
    // JUSTIFICATION: rustix takes a capability set per call and would refuse numbers it does not know.
    let prctl = |op: i32, arg: u64| unsafe { libc::prctl(op, arg, 0, 0, 0) };
    if prctl(
        libc::PR_CAP_AMBIENT,
        u64::from(libc::PR_CAP_AMBIENT_CLEAR_ALL.unsigned_abs()),
    ) != 0
    {
        return Err(("ambient", errno()));
    }
    let kept = |capability: u64| who.keeps().iter().any(|(number, _)| *number == capability);
    for capability in (0..=CAPABILITY_LAST).filter(|capability| !kept(*capability)) {
        if prctl(libc::PR_CAPBSET_DROP, capability) != 0 {
            return match errno() {
                libc::EINVAL => Ok(()),
                other => Err(("bounding", other)),
            };
        }
    }
    Ok(())
}

fn become_user(uid: u32, gid: u32) -> Result<(), Failed> {
    if crate::process::own_uid() == uid && uid != 0 {
        return Ok(()); // A map with one id: there is nobody else to become.
    }
    set_ids(uid, gid).map_err(|errno| ("setuid", errno))?;
    // `setresuid` on the wrong side of a map has failed silently before (CVE-2014-0476 is one of many):
    // read back what we are.
    if crate::process::own_uid() == uid && crate::process::own_gid() == gid {
        Ok(())
    } else {
        Err(("setuid", libc::EPERM))
    }
}

#[expect(unsafe_code, reason = "system calls without a safe wrapper")]
fn set_ids(uid: u32, gid: u32) -> Result<(), i32> {
    // SAFETY: a null list of length 0 is what setgroups(2) documents for "none".
    // JUSTIFICATION: raw calls change this thread only, and it is the only one.
    if unsafe { libc::syscall(libc::SYS_setgroups, 0, std::ptr::null::<u32>()) } != 0 {
        return Err(errno());
    }
    // SAFETY: integers only.
    if unsafe { libc::syscall(libc::SYS_setresgid, gid, gid, gid) } != 0 {
        return Err(errno());
    }
    // SAFETY: integers only.
    if unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) } != 0 {
        return Err(errno());
    }
    Ok(())
}

/// Leaves in the permitted and effective sets what may be kept, nothing in the inheritable one, and
/// reads them back. Under `no_new_privs` an `exec` as root gains nothing beyond them.
fn drop_capabilities(who: Who) -> Result<(), Failed> {
    let kept = who.keeps().iter().map(|(_, one)| *one);
    let kept = kept.fold(CapabilitySet::empty(), CapabilitySet::union);
    let sets = CapabilitySets {
        effective: kept,
        permitted: kept,
        inheritable: CapabilitySet::empty(),
    };
    rustix::thread::set_capabilities(None, sets).map_err(step("capset"))?;
    match rustix::thread::capabilities(None) {
        Ok(now) if now == sets => Ok(()),
        _ => Err(("capset", libc::EPERM)),
    }
}

#[expect(unsafe_code, reason = "system calls without a safe wrapper")]
fn set_limit(resource: u32, limit: u64) -> Result<(), Failed> {
    let both = libc::rlimit64 {
        rlim_cur: limit,
        rlim_max: limit,
    };
    // SAFETY: `both` outlives the call, and the kernel only reads it; the old value is not asked for.
    // JUSTIFICATION: the resource is a number from the plan, which no typed wrapper takes.
    let result = unsafe {
        libc::syscall(
            libc::SYS_prlimit64,
            0,
            resource,
            &raw const both,
            std::ptr::null::<u8>(),
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(("rlimit", errno()))
    }
}

#[expect(unsafe_code, reason = "system calls without a safe wrapper")]
fn install_seccomp(filter: &[u8]) -> Result<(), Failed> {
    const INSTRUCTION: usize = size_of::<libc::sock_filter>();
    if filter.is_empty() || !filter.len().is_multiple_of(INSTRUCTION) {
        return Err(("seccomp", libc::EINVAL));
    }
    let Ok(len) = u16::try_from(filter.len() / INSTRUCTION) else {
        return Err(("seccomp", libc::E2BIG));
    };
    // The kernel copies the program byte by byte, so the alignment of `filter` does not matter to it.
    let program = libc::sock_fprog {
        len,
        filter: filter.as_ptr().cast_mut().cast(),
    };
    // SAFETY: `program` points at `len` instructions that outlive the call; the kernel only reads.
    // JUSTIFICATION: seccomp(2) has no wrapper in rustix.
    let result = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            0,
            &raw const program,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(("seccomp", errno()))
    }
}

/// The error number of the last failed call.
pub(crate) fn errno() -> i32 {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(0)
}
