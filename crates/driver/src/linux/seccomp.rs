//! Compiles the rules of `rules/workload.seccomp` to a filter program.
//!
//! The program is a binary search over ranges of call numbers, not a chain of comparisons: the kernel
//! runs a new filter once for every call number when it is installed, to find those that it can
//! always allow, so the depth of the search is paid some five hundred times in each sandbox.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::LazyLock;
use syscalls::Sysno;

/// The rules of every workload.
const WORKLOAD: &str = include_str!("../../rules/workload.seccomp");

const RET_ALLOW: u32 = 0x7fff_0000;
const RET_ERRNO: u32 = 0x0005_0000;
const RET_KILL_PROCESS: u32 = 0x8000_0000;
const EPERM: u32 = 1;
const ENOSYS: u32 = 38;
const EAFNOSUPPORT: u32 = 97;

/// `AUDIT_ARCH_*` of the machine, from `linux/audit.h`.
#[cfg(target_arch = "x86_64")]
const ARCH: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCH: u32 = 0xc000_00b7;

// Operations of classic BPF, from `linux/bpf_common.h`.
const LOAD: u16 = 0x20;
const JUMP: u16 = 0x05;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_GREATER_OR_EQUAL: u16 = 0x35;
const AND: u16 = 0x54;
const RETURN: u16 = 0x06;

// Offsets into `struct seccomp_data`: the number, the architecture, the arguments, of each of which the
// low half is first on the machines that there are rules for.
const NUMBER_AT: u32 = 0;
const ARCH_AT: u32 = 4;
const ARGUMENTS_AT: u32 = 16;
const ARGUMENT_BYTES: u32 = 8;

/// What is wrong with a rules file, and on which line.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("rule on line {line}: {what}")]
pub struct BadRule {
    line: usize,
    what: String,
}

/// A condition on one half of an argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Condition {
    /// Where the half is.
    at: u32,
    mask: u32,
    value: u32,
    equal: bool,
}

/// What happens to a call.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Verdict {
    Allow,
    Deny,
    Unknown,
    /// Allowed when all conditions of any alternative hold, else failing with this error.
    When(Vec<Vec<Condition>>, u32),
}

/// One instruction, as `struct sock_filter`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Instruction {
    code: u16,
    when_true: u8,
    when_false: u8,
    value: u32,
}

fn op(code: u16, value: u32) -> Instruction {
    Instruction {
        code,
        when_true: 0,
        when_false: 0,
        value,
    }
}

/// The filter of every workload, as bytes of `struct sock_filter[]`. Compiled once in a process: the
/// rules are part of the program.
///
/// # Errors
/// [`BadRule`] when the rules that were compiled in are broken, which a test rules out.
pub fn workload() -> Result<&'static [u8], &'static BadRule> {
    static FILTER: LazyLock<Result<Vec<u8>, BadRule>> =
        LazyLock::new(|| Ok(encode(&compile(&parse(WORKLOAD)?))));
    FILTER.as_deref()
}

/// Reads rules into a table by call number. Names that this architecture does not have are skipped.
fn parse(text: &str) -> Result<BTreeMap<u32, Verdict>, BadRule> {
    let mut table = BTreeMap::new();
    let mut allow = None;
    for (index, line) in text.lines().enumerate() {
        let bad = |what: &str| BadRule {
            line: index + 1,
            what: what.to_owned(),
        };
        let (rule, comment) = line.split_once('#').unwrap_or((line, ""));
        let rule = rule.trim();
        match rule {
            "" => continue,
            "[allow]" => allow = Some(true),
            "[deny]" => allow = Some(false),
            _ => {
                if comment.trim().is_empty() {
                    return Err(bad("a rule needs a reason"));
                }
                let (name, conditions) = rule.split_once(' ').unwrap_or((rule, ""));
                let conditions = parse_conditions(conditions).ok_or_else(|| bad("condition"))?;
                let allow = allow.ok_or_else(|| bad("a rule outside of [allow] and [deny]"))?;
                let Ok(number) = Sysno::from_str(name) else {
                    continue;
                };
                let number = u32::try_from(number.id()).map_err(|_| bad("number"))?;
                add(&mut table, number, allow, conditions).map_err(bad)?;
            }
        }
    }
    Ok(table)
}

fn add(
    table: &mut BTreeMap<u32, Verdict>,
    number: u32,
    allow: bool,
    conditions: Vec<Condition>,
) -> Result<(), &'static str> {
    let verdict = match (allow, conditions.is_empty()) {
        (true, true) => Verdict::Allow,
        (true, false) => Verdict::When(vec![conditions], otherwise(number)),
        (false, true) => Verdict::Deny,
        (false, false) => return Err("a denied call takes no conditions"),
    };
    match (table.get_mut(&number), verdict) {
        (None, verdict) => {
            table.insert(number, verdict);
            Ok(())
        }
        (Some(Verdict::When(alternatives, _)), Verdict::When(more, _)) => {
            alternatives.extend(more);
            Ok(())
        }
        (Some(_), _) => Err("a second rule for this call contradicts the first"),
    }
}

/// What a call fails with whose conditions do not hold. A socket of a family that is closed looks as on a
/// kernel without it: tools for users end at a refusal of the audit's, and go on where there is none.
fn otherwise(number: u32) -> u32 {
    if i64::from(number) == libc::SYS_socket {
        EAFNOSUPPORT
    } else {
        EPERM
    }
}

fn parse_conditions(text: &str) -> Option<Vec<Condition>> {
    let parts = text
        .split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty());
    let parsed: Option<Vec<Vec<Condition>>> = parts.map(parse_condition).collect();
    Some(parsed?.concat())
}

fn parse_condition(text: &str) -> Option<Vec<Condition>> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let (argument, mask, relation, value) = match *words.as_slice() {
        [argument, relation, value] => (argument, u32::MAX, relation, value),
        [argument, "&", mask, relation, value] => (argument, number(mask)?, relation, value),
        _ => return None,
    };
    let equal = match relation {
        "==" => true,
        "!=" => false,
        _ => return None,
    };
    let argument = number(argument.strip_prefix('a')?).filter(|n| *n < 6)?;
    let at = ARGUMENTS_AT + ARGUMENT_BYTES * argument;
    let low = |value| Condition {
        at,
        mask,
        value,
        equal,
    };
    if value != "null" {
        return Some(vec![low(number(value)?)]);
    }
    // A pointer is all of its bits: one whose low half is zero is easily had.
    let high = Condition {
        at: at + ARGUMENT_BYTES / 2,
        ..low(0)
    };
    (equal && mask == u32::MAX).then(|| vec![low(0), high])
}

fn number(text: &str) -> Option<u32> {
    match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

/// Neighbouring numbers with one verdict, from `first` on; the next range begins where it ends.
#[derive(Debug)]
struct Range<'t> {
    first: u32,
    verdict: &'t Verdict,
}

fn ranges(table: &BTreeMap<u32, Verdict>) -> Vec<Range<'_>> {
    let mut ranges: Vec<Range<'_>> = vec![Range {
        first: 0,
        verdict: &Verdict::Unknown,
    }];
    let mut push = |first: u32, verdict| match ranges.last_mut() {
        Some(last) if last.verdict == verdict => {}
        Some(last) if last.first == first => last.verdict = verdict,
        _ => ranges.push(Range { first, verdict }),
    };
    for (number, verdict) in table {
        push(*number, verdict);
        if !table.contains_key(&(number + 1)) {
            push(number + 1, &Verdict::Unknown);
        }
    }
    ranges
}

fn compile(table: &BTreeMap<u32, Verdict>) -> Vec<Instruction> {
    let mut program = vec![
        op(LOAD, ARCH_AT),
        Instruction {
            code: JUMP_EQUAL,
            when_true: 1,
            when_false: 0,
            value: ARCH,
        },
        op(RETURN, RET_KILL_PROCESS),
        op(LOAD, NUMBER_AT),
    ];
    program.extend(search(&ranges(table)));
    program
}

/// A search tree over the ranges. Conditional jumps reach 255 instructions only, so a branch is always
/// a short jump over a long one.
fn search(ranges: &[Range<'_>]) -> Vec<Instruction> {
    if let [only] = ranges {
        return leaf(only.verdict);
    }
    let (low, high) = ranges.split_at(ranges.len() / 2);
    let (left, right) = (search(low), search(high));
    let middle = high.first().map_or(0, |range| range.first);
    let skip = u32::try_from(left.len()).unwrap_or(u32::MAX);
    let branch = Instruction {
        code: JUMP_GREATER_OR_EQUAL,
        when_true: 0,
        when_false: 1,
        value: middle,
    };
    [vec![branch, op(JUMP, skip)], left, right].concat()
}

fn leaf(verdict: &Verdict) -> Vec<Instruction> {
    match verdict {
        Verdict::Allow => vec![op(RETURN, RET_ALLOW)],
        Verdict::Deny => vec![op(RETURN, RET_ERRNO | EPERM)],
        Verdict::Unknown => vec![op(RETURN, RET_ERRNO | ENOSYS)],
        Verdict::When(alternatives, error) => {
            let mut program: Vec<Instruction> =
                alternatives.iter().flat_map(|c| all_of(c)).collect();
            program.push(op(RETURN, RET_ERRNO | *error));
            program
        }
    }
}

/// Allows when every condition holds, and falls through otherwise.
fn all_of(conditions: &[Condition]) -> Vec<Instruction> {
    let mut program = vec![op(RETURN, RET_ALLOW)];
    for condition in conditions.iter().rev() {
        let over = u8::try_from(program.len()).unwrap_or(u8::MAX);
        let (when_true, when_false) = if condition.equal {
            (0, over)
        } else {
            (over, 0)
        };
        let test = Instruction {
            code: JUMP_EQUAL,
            when_true,
            when_false,
            value: condition.value,
        };
        let load = op(LOAD, condition.at);
        let mask = (condition.mask != u32::MAX).then(|| op(AND, condition.mask));
        let head = [Some(load), mask, Some(test)].into_iter().flatten();
        program = head.chain(program).collect();
    }
    program
}

fn encode(program: &[Instruction]) -> Vec<u8> {
    let bytes = |i: &Instruction| {
        let [code_low, code_high] = i.code.to_ne_bytes();
        let [a, b, c, d] = i.value.to_ne_bytes();
        [code_low, code_high, i.when_true, i.when_false, a, b, c, d]
    };
    program.iter().flat_map(bytes).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Runs a program as the kernel does, on one call.
    fn run(program: &[Instruction], arch: u32, number: u32, arguments: [u64; 6]) -> u32 {
        let (mut at, mut acc) = (0usize, 0u32);
        loop {
            let i = program[at];
            at += 1;
            match i.code {
                LOAD if i.value == NUMBER_AT => acc = number,
                LOAD if i.value == ARCH_AT => acc = arch,
                LOAD => {
                    let at = i.value - ARGUMENTS_AT;
                    let argument = arguments[(at / ARGUMENT_BYTES) as usize];
                    let half = argument >> (8 * (at % ARGUMENT_BYTES)) & u64::from(u32::MAX);
                    acc = u32::try_from(half).unwrap();
                }
                AND => acc &= i.value,
                JUMP => at += i.value as usize,
                JUMP_EQUAL => {
                    at += if acc == i.value {
                        i.when_true
                    } else {
                        i.when_false
                    } as usize
                }
                JUMP_GREATER_OR_EQUAL => {
                    at += if acc >= i.value {
                        i.when_true
                    } else {
                        i.when_false
                    } as usize;
                }
                RETURN => return i.value,
                other => panic!("instruction {other}"),
            }
        }
    }

    fn judge(number: u32, arguments: [u64; 6]) -> u32 {
        run(&compile(&parse(WORKLOAD).unwrap()), ARCH, number, arguments)
    }

    fn nr(name: &str) -> u32 {
        Sysno::from_str(name).unwrap().id().cast_unsigned()
    }

    const NONE: [u64; 6] = [0; 6];

    #[test]
    fn every_call_gets_the_verdict_of_its_rule() {
        let table = parse(WORKLOAD).unwrap();
        let program = compile(&table);
        for number in 0..600 {
            let got = run(&program, ARCH, number, NONE);
            match table.get(&number) {
                Some(Verdict::Allow) => assert_eq!(got, RET_ALLOW, "{number}"),
                Some(Verdict::Deny) => assert_eq!(got, RET_ERRNO | EPERM, "{number}"),
                Some(Verdict::When(..)) => assert_ne!(got, RET_ERRNO | ENOSYS, "{number}"),
                Some(Verdict::Unknown) | None => assert_eq!(got, RET_ERRNO | ENOSYS, "{number}"),
            }
        }
    }

    #[test]
    fn the_dangerous_calls_are_closed() {
        for name in [
            "mount",
            "ptrace",
            "keyctl",
            "bpf",
            "perf_event_open",
            "io_uring_setup",
            "unshare",
            "setns",
        ] {
            assert_eq!(judge(nr(name), NONE), RET_ERRNO | EPERM, "{name}");
        }
        assert_eq!(judge(nr("clone3"), NONE), RET_ERRNO | ENOSYS);
    }

    #[test]
    fn clone_may_not_make_a_namespace() {
        let flags = |flags| [flags, 0, 0, 0, 0, 0];
        assert_eq!(judge(nr("clone"), flags(0x003d_0f00)), RET_ALLOW); // What pthread_create asks for.
        assert_eq!(judge(nr("clone"), flags(17)), RET_ALLOW);
        for flag in [
            0x1000_0000,
            0x0002_0000,
            0x2000_0000,
            0x4000_0000,
            0x0800_0000,
            0x0400_0000,
            0x0200_0000,
            0x80,
        ] {
            assert_eq!(
                judge(nr("clone"), flags(flag | 17)),
                RET_ERRNO | EPERM,
                "{flag:x}"
            );
        }
    }

    #[test]
    fn the_guest_is_out_of_reach_of_calls_that_name_a_process() {
        assert_eq!(
            judge(nr("prlimit64"), [1, 7, 0, 0, 0, 0]),
            RET_ERRNO | EPERM
        );
        assert_eq!(judge(nr("prlimit64"), [0, 7, 0, 0, 0, 0]), RET_ALLOW);
        assert_eq!(
            judge(nr("setpriority"), [0, 1, 19, 0, 0, 0]),
            RET_ERRNO | EPERM
        );
        assert_eq!(
            judge(nr("setpriority"), [2, 0, 19, 0, 0, 0]),
            RET_ERRNO | EPERM
        );
        assert_eq!(judge(nr("setpriority"), [0, 0, 19, 0, 0, 0]), RET_ALLOW);
        assert_eq!(
            judge(nr("sched_setaffinity"), [1, 0, 0, 0, 0, 0]),
            RET_ERRNO | EPERM
        );
    }

    #[test]
    fn sockets_and_devices_are_judged_by_their_kind() {
        let closed = RET_ERRNO | EAFNOSUPPORT;
        assert_eq!(judge(nr("socket"), [17, 3, 0, 0, 0, 0]), closed); // packet
        assert_eq!(judge(nr("socket"), [16, 3, 9, 0, 0, 0]), closed); // audit netlink
        assert_eq!(judge(nr("socket"), [16, 3, 0, 0, 0, 0]), RET_ALLOW);
        assert_eq!(judge(nr("socket"), [38, 3, 0, 0, 0, 0]), closed); // AF_ALG
        assert_eq!(
            judge(nr("mknod"), [0, 0o020_666, 0, 0, 0, 0]),
            RET_ERRNO | EPERM
        );
        assert_eq!(judge(nr("mknod"), [0, 0o010_666, 0, 0, 0, 0]), RET_ALLOW);
        assert_eq!(
            judge(nr("ioctl"), [0, 0x5412, 0, 0, 0, 0]),
            RET_ERRNO | EPERM
        );
        assert_eq!(judge(nr("ioctl"), [0, 0x5413, 0, 0, 0, 0]), RET_ALLOW);
    }

    #[test]
    fn the_limit_of_core_dumps_can_be_asked_for_and_not_changed() {
        let asked = |new: u64| judge(nr("prlimit64"), [0, 4, new, 0x7fff_0000, 0, 0]);
        assert_eq!(asked(0), RET_ALLOW);
        // The second is a pointer of which a filter that looks at one half sees nothing.
        for pointer in [0x7fff_0000, 1 << 32, 1] {
            assert_eq!(asked(pointer), RET_ERRNO | EPERM, "{pointer:x}");
        }
        assert_eq!(
            judge(nr("setrlimit"), [4, 0, 0, 0, 0, 0]),
            RET_ERRNO | EPERM
        );
        assert_eq!(judge(nr("prlimit64"), [0, 7, 1, 0, 0, 0]), RET_ALLOW);
    }

    #[test]
    fn numbers_of_the_x32_abi_and_of_other_machines_are_refused() {
        assert_eq!(judge(0x4000_0000 | nr("read"), NONE), RET_ERRNO | ENOSYS);
        let program = compile(&parse(WORKLOAD).unwrap());
        assert_eq!(run(&program, 0x4000_0003, 0, NONE), RET_KILL_PROCESS);
    }

    #[test]
    fn a_rule_without_a_reason_or_with_a_contradiction_is_refused() {
        assert!(parse("[allow]\nread\n").is_err());
        assert!(parse("read # why\n").is_err());
        assert!(parse("[allow]\nread # why\n[deny]\nread # why\n").is_err());
        assert!(parse("[allow]\nread b1 == 2 # why\n").is_err());
        assert!(parse("[deny]\nread a1 == 2 # why\n").is_err());
    }

    #[test]
    fn every_name_in_the_rules_is_a_call_that_the_table_knows() {
        // These came after the table that we name calls with, or belong to another architecture.
        let newer = ["open_tree_attr"];
        for line in WORKLOAD.lines() {
            let name = line.split(['#', ' ']).next().unwrap_or_default();
            if !name.is_empty() && !name.starts_with('[') && !newer.contains(&name) {
                assert!(Sysno::from_str(name).is_ok(), "{name}");
            }
        }
    }

    #[test]
    fn the_program_is_small_and_shallow() {
        let program = compile(&parse(WORKLOAD).unwrap());
        assert!(program.len() < 512, "{}", program.len());
    }

    proptest! {
        #[test]
        fn every_number_ends_in_a_verdict(number: u32, arguments: [u64; 6]) {
            let got = judge(number, arguments);
            prop_assert!([RET_ALLOW, RET_ERRNO | EPERM, RET_ERRNO | ENOSYS].contains(&got));
        }
    }
}
