//! The filter of system calls, asked by a real program on the real kernel.

use crate::probe;
use crate::world::World;
use libc::c_long;

const OK: i32 = 0;
const DENIED: i32 = libc::EPERM;
/// What a kernel says that does not have this kind of socket.
const NO_FAMILY: i32 = libc::EAFNOSUPPORT;
const UNKNOWN: i32 = libc::ENOSYS;

fn flag(flag: libc::c_int) -> u64 {
    u64::from(flag.unsigned_abs())
}

/// A call, its arguments, and the error that it must give.
type Case = (&'static str, c_long, Vec<u64>, i32);

/// One number after another, as the probe reads them.
fn written((_, number, arguments, _): &Case) -> String {
    let numbers = std::iter::once(number.unsigned_abs()).chain(arguments.iter().copied());
    let numbers: Vec<String> = numbers.map(|n| n.to_string()).collect();
    numbers.join(",")
}

async fn check(world: &World, cases: &[Case]) {
    let calls: Vec<String> = cases.iter().map(written).collect();
    let mut args = vec!["call"];
    args.extend(calls.iter().map(String::as_str));
    let answers = probe::ask(world, &args).await;
    assert_eq!(answers.len(), cases.len());
    let wrong = cases
        .iter()
        .zip(&answers)
        .filter(|(case, answer)| **answer != case.3.to_string());
    let wrong: Vec<_> = wrong.map(|(case, got)| (case.0, case.3, got)).collect();
    assert!(wrong.is_empty(), "call, expected, got: {wrong:?}");
}

/// Attack: A namespace of its own, in which it would be root, is made or entered.
#[tokio::test]
async fn no_namespace_can_be_made_or_entered() {
    let world = world!();
    let spaces = [
        ("user", libc::CLONE_NEWUSER),
        ("mount", libc::CLONE_NEWNS),
        ("pid", libc::CLONE_NEWPID),
        ("net", libc::CLONE_NEWNET),
        ("ipc", libc::CLONE_NEWIPC),
        ("uts", libc::CLONE_NEWUTS),
        ("cgroup", libc::CLONE_NEWCGROUP),
    ];
    let mut cases: Vec<Case> = Vec::new();
    for (name, space) in spaces {
        cases.push((name, libc::SYS_unshare, vec![flag(space)], DENIED));
        cases.push((
            name,
            libc::SYS_clone,
            vec![flag(space | libc::SIGCHLD)],
            DENIED,
        ));
    }
    cases.push(("time", libc::SYS_unshare, vec![0x80], DENIED));
    cases.push(("setns", libc::SYS_setns, vec![0, 0], DENIED));
    // Its flags are in memory, where no filter sees them, so libraries must fall back to clone.
    cases.push(("clone3", libc::SYS_clone3, vec![0, 0], UNKNOWN));
    cases.push(("clone", libc::SYS_clone, vec![flag(libc::SIGCHLD)], OK));
    check(&world, &cases).await;
}

/// Attack: Something is mounted, unmounted or moved, over what hides the host.
#[tokio::test]
async fn mounts_cannot_be_changed() {
    let world = world!();
    let calls = [
        ("mount", libc::SYS_mount),
        ("umount2", libc::SYS_umount2),
        ("pivot_root", libc::SYS_pivot_root),
        ("chroot", libc::SYS_chroot),
        ("move_mount", libc::SYS_move_mount),
        ("open_tree", libc::SYS_open_tree),
        ("mount_setattr", libc::SYS_mount_setattr),
        ("fsopen", libc::SYS_fsopen),
        ("fsconfig", libc::SYS_fsconfig),
        ("fsmount", libc::SYS_fsmount),
        ("fspick", libc::SYS_fspick),
        ("statmount", 457),
        ("listmount", 458),
        ("open_tree_attr", 467),
    ];
    check(
        &world,
        &calls.map(|(name, number)| (name, number, vec![], DENIED)),
    )
    .await;
}

/// Attack: Large parts of the kernel are called that few programs need: ptrace, keys, BPF, io_uring, userfaultfd and
/// their like.
#[tokio::test]
async fn calls_into_the_large_parts_of_the_kernel_are_closed() {
    let world = world!();
    let calls = [
        ("ptrace", libc::SYS_ptrace),
        ("process_vm_readv", libc::SYS_process_vm_readv),
        ("process_vm_writev", libc::SYS_process_vm_writev),
        ("process_madvise", libc::SYS_process_madvise),
        ("pidfd_getfd", libc::SYS_pidfd_getfd),
        ("kcmp", libc::SYS_kcmp),
        ("keyctl", libc::SYS_keyctl),
        ("add_key", libc::SYS_add_key),
        ("request_key", libc::SYS_request_key),
        ("bpf", libc::SYS_bpf),
        ("perf_event_open", libc::SYS_perf_event_open),
        ("io_uring_setup", libc::SYS_io_uring_setup),
        ("io_uring_enter", libc::SYS_io_uring_enter),
        ("io_uring_register", libc::SYS_io_uring_register),
        ("userfaultfd", libc::SYS_userfaultfd),
        ("fanotify_init", libc::SYS_fanotify_init),
        ("open_by_handle_at", libc::SYS_open_by_handle_at),
        ("name_to_handle_at", libc::SYS_name_to_handle_at),
        ("init_module", libc::SYS_init_module),
        ("finit_module", libc::SYS_finit_module),
        ("delete_module", libc::SYS_delete_module),
        ("kexec_load", libc::SYS_kexec_load),
        ("kexec_file_load", libc::SYS_kexec_file_load),
        ("reboot", libc::SYS_reboot),
        ("swapon", libc::SYS_swapon),
        ("acct", libc::SYS_acct),
        ("quotactl", libc::SYS_quotactl),
        ("syslog", libc::SYS_syslog),
        ("settimeofday", libc::SYS_settimeofday),
        ("clock_settime", libc::SYS_clock_settime),
        ("adjtimex", libc::SYS_adjtimex),
        ("sethostname", libc::SYS_sethostname),
        ("mbind", libc::SYS_mbind),
        ("move_pages", libc::SYS_move_pages),
    ];
    check(
        &world,
        &calls.map(|(name, number)| (name, number, vec![], DENIED)),
    )
    .await;
}

/// Attack: The kernel is called by numbers of x32 and of the future, and the hardware by its ports.
#[cfg(target_arch = "x86_64")]
#[tokio::test]
async fn other_ways_into_the_kernel_are_closed() {
    let world = world!();
    const X32: c_long = 0x4000_0000;
    check(
        &world,
        &[
            ("iopl", libc::SYS_iopl, vec![3], DENIED),
            ("ioperm", libc::SYS_ioperm, vec![], DENIED),
            ("modify_ldt", libc::SYS_modify_ldt, vec![], DENIED),
            ("getpid", libc::SYS_getpid, vec![], OK),
            ("getpid of x32", X32 | libc::SYS_getpid, vec![], UNKNOWN),
            ("ptrace of x32", X32 | 521, vec![], UNKNOWN),
            ("a call of the future", 600, vec![], UNKNOWN),
        ],
    )
    .await;
}

/// Attack: The filter of system calls is passed by with those of another architecture.
///
/// A filter that looks at numbers only would take those of the 32-bit calls for others.
#[cfg(target_arch = "x86_64")]
#[tokio::test]
async fn a_call_of_another_architecture_kills_the_process() {
    let world = world!();
    let killed = 1000 + libc::SIGSYS;
    assert_eq!(probe::ask(&world, &["old"]).await, [killed.to_string()]);
}

/// Attack: Sockets are made of families other than Unix, IPv4, IPv6 and routing netlink.
#[tokio::test]
async fn only_sockets_of_known_families_are_made() {
    let world = world!();
    let open = [
        ("unix", 1, 0),
        ("inet", 2, 0),
        ("inet6", 10, 0),
        ("route", 16, 0),
    ];
    let closed = [
        ("packet", 17, 0),
        ("alg", 38, 0),
        ("vsock", 40, 0),
        ("xdp", 44, 0),
        ("bluetooth", 31, 0),
        ("can", 29, 0),
        ("key", 15, 0),
        ("tipc", 30, 0),
        ("netlink of audit", 16, 9),
        ("netlink of netfilter", 16, 12),
        ("netlink of devices", 16, 15),
    ];
    let (stream, raw) = (flag(libc::SOCK_STREAM), flag(libc::SOCK_RAW));
    let mut cases: Vec<Case> = Vec::new();
    for (name, family, protocol) in open {
        let kind = if name == "route" { raw } else { stream };
        cases.push((name, libc::SYS_socket, vec![family, kind, protocol], OK));
    }
    for (name, family, protocol) in closed {
        cases.push((
            name,
            libc::SYS_socket,
            vec![family, raw, protocol],
            NO_FAMILY,
        ));
    }
    // A raw socket needs a capability.
    cases.push(("raw", libc::SYS_socket, vec![2, raw, 1], DENIED));
    check(&world, &cases).await;
}

/// A pair is made by the family's own code too, before that says that it makes none.
#[tokio::test]
async fn only_unix_sockets_are_made_in_pairs() {
    let world = world!();
    let stream = flag(libc::SOCK_STREAM);
    let families = [
        ("inet", 2),
        ("netlink", 16),
        ("alg", 38),
        ("vsock", 40),
        ("packet", 17),
    ];
    let pair = |(name, family)| {
        let arguments = vec![family, stream, 0, probe::SCRATCH];
        (name, libc::SYS_socketpair, arguments, DENIED)
    };
    check(&world, &families.map(pair)).await;
}

/// Asking for any other makes the kernel load a module for it, whoever asks.
#[tokio::test]
async fn only_ordinary_protocols_of_the_internet_are_asked_for() {
    let world = world!();
    let (stream, datagram) = (flag(libc::SOCK_STREAM), flag(libc::SOCK_DGRAM));
    let packets = flag(libc::SOCK_SEQPACKET);
    let mut cases: Vec<Case> = Vec::new();
    for family in [2, 10] {
        for (name, kind, protocol, error) in [
            ("tcp", stream, 6, OK),
            ("udp", datagram, 17, OK),
            ("sctp", packets, 132, NO_FAMILY),
            ("dccp", 6, 33, NO_FAMILY),
            ("udplite", datagram, 136, NO_FAMILY),
            ("l2tp", datagram, 115, NO_FAMILY),
        ] {
            cases.push((name, libc::SYS_socket, vec![family, kind, protocol], error));
        }
    }
    check(&world, &cases).await;
}

/// Attack: Contexts of asynchronous I/O, of which all users of a machine have a number together, are used up.
///
/// There are so many asynchronous requests for all of a machine, see `fs.aio-max-nr` in `proc(5)`.
#[tokio::test]
async fn what_all_of_the_machine_shares_cannot_be_used_up() {
    let world = world!();
    let setup = (
        "io_setup",
        libc::SYS_io_setup,
        vec![1, probe::SCRATCH],
        UNKNOWN,
    );
    check(&world, &[setup]).await;
}

/// Attack: Keys are typed into a terminal by TIOCSTI, also with bits that only the kernel ignores; and other calls
/// that are harmless but for an argument.
#[tokio::test]
async fn calls_with_a_dangerous_argument_are_closed() {
    const TIOCSTI: u64 = 0x5412;
    const TIOCLINUX: u64 = 0x541c;
    let world = world!();
    let nofile = flag(libc::RLIMIT_NOFILE.cast_signed());
    let denied = |name, number, arguments: &[u64]| (name, number, arguments.to_vec(), DENIED);
    let open = |name, number, arguments: &[u64]| (name, number, arguments.to_vec(), OK);
    let cases = [
        denied("TIOCSTI", libc::SYS_ioctl, &[0, TIOCSTI]),
        // The kernel looks at the low half only, and so must the filter.
        denied("TIOCSTI", libc::SYS_ioctl, &[0, TIOCSTI | 1 << 32]),
        denied("TIOCLINUX", libc::SYS_ioctl, &[0, TIOCLINUX]),
        denied("PR_SCHED_CORE", libc::SYS_prctl, &[62, 1]),
        denied("limits of the guest", libc::SYS_prlimit64, &[1, nofile]),
        open("limits", libc::SYS_prlimit64, &[0, nofile]),
        denied("nice guest", libc::SYS_setpriority, &[0, 1, 19]),
        denied("nice user", libc::SYS_setpriority, &[2, 0, 19]),
        open("nice", libc::SYS_setpriority, &[0, 0, 19]),
        denied("affinity of the guest", libc::SYS_sched_setaffinity, &[1]),
        denied("scheduler of the guest", libc::SYS_sched_setattr, &[1]),
        denied("io of the guest", libc::SYS_ioprio_set, &[1, 1, 0]),
        denied("io of a user", libc::SYS_ioprio_set, &[3, 0, 0]),
        denied("personality", libc::SYS_personality, &[0x20_0000]),
        open("personality", libc::SYS_personality, &[0xffff_ffff]),
        denied("mknodat", libc::SYS_mknodat, &[0, 0, 0o020_666, 259]),
        denied("mknodat", libc::SYS_mknodat, &[0, 0, 0o060_666, 2048]),
    ];
    check(&world, &cases).await;
}
