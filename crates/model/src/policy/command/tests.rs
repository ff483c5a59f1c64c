use super::*;

fn clause(forbid: &[&str], approve: &[&str], allow: Option<&[&str]>) -> CommandsClause {
    let texts = |list: &[&str]| list.iter().map(ToString::to_string).collect();
    CommandsClause {
        forbid: texts(forbid),
        approve: texts(approve),
        allow: allow.map(texts),
        ..CommandsClause::default()
    }
}

fn answer(clause: &CommandsClause, argv: &[&str]) -> Answer {
    let argv: Vec<String> = argv.iter().map(ToString::to_string).collect();
    clause.answer(&Found::of(&argv), &mut Steps::default()).0
}

#[test]
fn what_is_forbidden_is_found_behind_shells_carriers_and_operators() {
    use Answer as A;
    let rules = clause(&["sudo", "rm -rf /*", "mkfs*"], &["git push"], None);
    for (argv, expect) in [
        (&["ls"][..], A::Skip),
        (&["/usr/bin/sudo", "ls"], A::Forbidden),
        (&["bash", "-lc", "cd /tmp && sudo ls"], A::Forbidden),
        (&["sh", "-e", "-c", "echo $(sudo ls)"], A::Forbidden),
        (&["env", "A=1", "sh", "-c", "r'm' -rf /etc"], A::Forbidden),
        (&["sh", "-c", "eval 'sudo ls'"], A::Forbidden),
        (
            &["sh", "-c", "timeout 5s nice -n 3 mkfs.ext4 /dev/sda"],
            A::Forbidden,
        ),
        (&["sh", "-c", "find . | xargs sudo rm"], A::Forbidden),
        (&["git", "push", "origin"], A::NeedsApproval),
        (&["git", "pull"], A::Skip),
        (&["sh", "-c", "git push; sudo ls"], A::Forbidden),
        (&["echo", "sudo"], A::Skip),
        (&["sh", "-c", "cat <<X\nit's\nX"], A::Skip),
    ] {
        assert_eq!(answer(&rules, argv), expect, "{argv:?}");
    }
}

#[test]
fn a_list_lets_only_through_what_is_read_in_all_its_parts() {
    use Answer as A;
    let rules = clause(&[], &[], Some(&["python*", "ls", "git status", "env"]));
    for (argv, expect) in [
        (&["python3", "-c", "x"][..], A::Skip),
        (&["ls"], A::Skip),
        (&["sh", "-c", "ls | python3"], A::Skip),
        (&["sh", "-c", "ls; curl x"], A::Forbidden),
        (&["sh", "-c", "ls `curl x`"], A::Forbidden),
        (&["sh", "-c", "$X"], A::Forbidden),
        (&["sh", "-c", "l? x"], A::Forbidden),
        (&["sh", "-c", "eval $X"], A::Forbidden),
        (&["sh", "-c", "ls 'a"], A::Forbidden),
        (&["sh", "script.sh"], A::Forbidden),
        (&["env", "curl"], A::Forbidden),
        (&["env", "ls"], A::Skip),
        (&["git", "status", "-s"], A::Skip),
        (&["git"], A::Forbidden),
        (&["./ls"], A::Skip),
    ] {
        assert_eq!(answer(&rules, argv), expect, "{argv:?}");
    }
    let rules = CommandsClause {
        no_operators: true,
        ..CommandsClause::default()
    };
    for (script, expect) in [
        ("ls -l", A::Skip),
        ("ls 2>&1", A::Skip),
        ("ls > x", A::Forbidden),
        ("ls | wc", A::Forbidden),
        ("ls\nls", A::Forbidden),
        ("ls `ls`", A::Forbidden),
    ] {
        assert_eq!(answer(&rules, &["sh", "-c", script]), expect, "{script}");
    }
}

#[test]
fn a_star_stands_for_anything_and_costs_little() {
    for (pattern, text, expect) in [
        ("a*c", "abc", true),
        ("a*c", "ac", true),
        ("a*c", "acb", false),
        ("*", "", true),
        ("*a*b*", "xxaxxbxx", true),
        ("", "", true),
        ("a", "", false),
    ] {
        let mut steps = Steps::default();
        assert_eq!(
            is_like(pattern, text, &mut steps),
            expect,
            "{pattern} {text}"
        );
    }
    let mut steps = Steps::default();
    assert!(!is_like(
        &("a*".repeat(50) + "c"),
        &"a".repeat(20_000),
        &mut steps
    ));
    assert!(!steps.is_spent());
}

/// Attack: the command begins behind an option's value, which a reader of plain words takes for the command.
#[test]
fn options_that_take_a_value_hide_no_command() {
    use Answer as A;
    let rules = clause(&["sudo"], &[], None);
    let ten = ["env"; 10].into_iter().chain(["sudo", "ls"]);
    let ten: Vec<&str> = ten.collect();
    for (argv, expect) in [
        (
            &["bash", "-euo", "pipefail", "-c", "sudo ls"][..],
            A::Forbidden,
        ),
        (&["bash", "-o", "errexit", "-c", "sudo ls"], A::Forbidden),
        (&["bash", "+o", "errexit", "-c", "sudo ls"], A::Forbidden),
        (&["bash", "-O", "extglob", "-c", "sudo ls"], A::Forbidden),
        (&["bash", "--rcfile", "f", "-c", "sudo ls"], A::Forbidden),
        (&["bash", "--norc", "-c", "sudo ls"], A::Forbidden),
        (&["bash", "-c", "-e", "sudo ls"], A::Forbidden),
        (&["bash", "-c", "--", "sudo ls"], A::Forbidden),
        (&["bash", "-c", "-e"], A::Forbidden),
        (&["zsh", "--emulate", "sh", "-c", "sudo ls"], A::Forbidden),
        (&["bash", "-euo", "pipefail", "-c", "ls"], A::Skip),
        (&["bash", "script.sh", "-c", "sudo"], A::Skip),
        (&["bash", "--version"], A::Skip),
        (&["timeout", "-s", "KILL", "5", "sudo", "ls"], A::Forbidden),
        (
            &["timeout", "--signal", "KILL", "5", "sudo", "ls"],
            A::Forbidden,
        ),
        (
            &["timeout", "--sig", "KILL", "5", "sudo", "ls"],
            A::Forbidden,
        ),
        (
            &["timeout", "--signal=KILL", "5", "sudo", "ls"],
            A::Forbidden,
        ),
        (&["timeout", "-sKILL", "5", "sudo", "ls"], A::Forbidden),
        (&["timeout", "5", "ls", "sudo"], A::Skip),
        (&["nice", "-5", "sudo", "ls"], A::Forbidden),
        (&["env", "-u", "X", "sudo", "ls"], A::Forbidden),
        (&["env", "-C", "d", "A=1", "sudo", "ls"], A::Forbidden),
        (&["env", "-", "sudo", "ls"], A::Forbidden),
        (&["env", "-S", "sudo ls"], A::Forbidden),
        (&["env", "-Ssudo ls"], A::Forbidden),
        (&["env", "-iS", "-u X sudo", "ls"], A::Forbidden),
        (&["env", "--split-string=sudo ls"], A::Forbidden),
        (&["env", "sudo", "-S", "ls"], A::Forbidden),
        (&["sudo", "-H", "ls"], A::Forbidden),
        (&["env", "-S", "ls -l"], A::Skip),
        (&["xargs", "-I", "{}", "sudo", "{}"], A::Forbidden),
        (&["xargs", "-n1", "-P", "4", "sudo"], A::Forbidden),
        (&["stdbuf", "-o", "L", "sudo", "ls"], A::Forbidden),
        (&["sh", "-c", "coproc sudo ls"], A::Forbidden),
        (&["sh", "-c", "coproc N { sudo ls; }"], A::Forbidden),
        (&["sh", "-c", "function f { sudo ls; }; f"], A::Forbidden),
        (&ten, A::Forbidden),
        (&["env", "env", "ls"], A::Skip),
    ] {
        assert_eq!(answer(&rules, argv), expect, "{argv:?}");
    }
}

/// Attack: the command is written in a way that `env`, `eval` or a shell reads otherwise than a reader of plain words.
#[test]
fn what_programs_read_in_their_own_way_hides_no_command() {
    use Answer as A;
    let rules = clause(&["sudo"], &[], None);
    for (argv, expect) in [
        (&["env", "-S", r"sudo\_ls"][..], A::Forbidden),
        (&["env", "-S", r"sudo\tls"], A::Forbidden),
        (&["env", "-S", "${X} ls"], A::Forbidden),
        (&["bash", "-c", "env -S \"$X\" ls"], A::Forbidden),
        (&["bash", "-c", "eval -- sudo ls"], A::Forbidden),
        (&["bash", "-c", "eval -- ls"], A::Skip),
        (&["bash", "-c", "bash $X -c 'sudo ls'"], A::Forbidden),
        (
            &["bash", "-c", "bash -e \"$X\" -ec 'sudo ls'"],
            A::Forbidden,
        ),
        (&["bash", "-c", "bash $X.sh -x"], A::Skip),
        (&["bash", "-c", "bash \"$X\" --color \"$@\""], A::Skip),
        (&["bash", "-c", "bash -c \"$X\" -c"], A::Skip),
        (&["bash", "-c", "{fd}>/dev/null sudo ls"], A::Forbidden),
        (&["bash", "-c", "{a[0]}>/dev/null sudo ls"], A::Forbidden),
        (&["bash", "-c", "{fd}>/dev/null ls"], A::Skip),
    ] {
        assert_eq!(answer(&rules, argv), expect, "{argv:?}");
    }
}

/// Else one file that is many programs would run what is forbidden, and its own name is on no list.
#[test]
fn an_applet_is_the_program_of_its_name() {
    use Answer as A;
    let rules = clause(&["sudo", "rm"], &["git push"], None);
    let busybox = clause(&["busybox"], &[], None);
    let allows = clause(&[], &[], Some(&["busybox", "ls"]));
    for (rules, argv, expect) in [
        (
            &rules,
            &["busybox", "sh", "-c", "sudo ls"][..],
            A::Forbidden,
        ),
        (
            &rules,
            &["/bin/busybox", "ash", "-c", "sudo ls"],
            A::Forbidden,
        ),
        (&rules, &["busybox", "hush", "-c", "sudo ls"], A::Forbidden),
        (&rules, &["busybox", "rm", "-rf", "x"], A::Forbidden),
        (&rules, &["busybox", "/bin/rm", "x"], A::Forbidden),
        (&rules, &["busybox", "busybox", "rm", "x"], A::Forbidden),
        (&rules, &["busybox", "env", "-u", "X", "sudo"], A::Forbidden),
        (&rules, &["env", "busybox", "rm", "x"], A::Forbidden),
        (&rules, &["sh", "-c", "busybox rm x"], A::Forbidden),
        (&rules, &["toybox", "rm", "x"], A::Forbidden),
        (&rules, &["toybox", "toysh", "-c", "rm x"], A::Forbidden),
        (
            &rules,
            &["busybox", "sh", "-c", "git push"],
            A::NeedsApproval,
        ),
        (&rules, &["busybox", "ls", "rm"], A::Skip),
        (&rules, &["busybox", "--list"], A::Skip),
        (&rules, &["busybox"], A::Skip),
        (&busybox, &["busybox", "ls"], A::Forbidden),
        (&allows, &["busybox", "ls"], A::Skip),
        (&allows, &["busybox", "rm"], A::Forbidden),
        (&allows, &["busybox", "sh", "-c", "rm x"], A::Forbidden),
    ] {
        assert_eq!(answer(rules, argv), expect, "{argv:?}");
    }
}

/// Attack: a shell that is forbidden is started with `-c`, or by another one.
#[test]
fn a_shell_that_is_forbidden_is_so_whatever_it_is_given() {
    use Answer as A;
    let forbids = |what: &str| clause(&[what], &[], None);
    let approves = clause(&[], &["sh"], None);
    let allows = clause(&[], &[], Some(&["ls"]));
    for (rules, argv, expect) in [
        (&forbids("bash"), &["bash", "-c", "ls"][..], A::Forbidden),
        (&forbids("bash"), &["/bin/bash", "-c", "ls"], A::Forbidden),
        (&forbids("bash"), &["bash", "-c", "$X"], A::Forbidden),
        (&forbids("bash"), &["sh", "-c", "bash -c ls"], A::Forbidden),
        (&forbids("bash"), &["sh", "-c", "bash -c $X"], A::Forbidden),
        (&forbids("bash"), &["sh", "-c", "ls"], A::Skip),
        (&forbids("eval"), &["sh", "-c", "eval ls"], A::Forbidden),
        (&forbids("eval"), &["sh", "-c", "eval $X"], A::Forbidden),
        (&approves, &["sh", "-c", "ls"], A::NeedsApproval),
        (&approves, &["env", "sh", "-c", "ls"], A::NeedsApproval),
        (&approves, &["bash", "-c", "ls"], A::Skip),
        // What a list lets through is what the shell runs, not the shell.
        (&allows, &["sh", "-c", "ls"], A::Skip),
        (&allows, &["sh", "-c", "eval ls"], A::Skip),
        (&allows, &["sh", "-c", "curl x"], A::Forbidden),
    ] {
        assert_eq!(answer(rules, argv), expect, "{argv:?}");
    }
}

#[test]
fn the_shell_that_reads_a_start_command_is_nobody_s() {
    let rules = clause(&["sh"], &[], None);
    let of = |text: &str| rules.answer(&Found::of_script(text), &mut Steps::default());
    assert_eq!(of("ls -l; $X").0, Answer::Skip);
    assert_eq!(of("sh -c ls").0, Answer::Forbidden);
    assert_eq!(of("env sh").0, Answer::Forbidden);
    let allows = clause(&[], &[], Some(&["ls"]));
    let of = |text: &str| allows.answer(&Found::of_script(text), &mut Steps::default());
    assert_eq!(of("ls -l").0, Answer::Skip);
    assert_eq!(of("ls; curl x").0, Answer::Forbidden);
}

/// Attack: the longest command against the longest lists holds a thread of the server for seconds.
#[test]
fn the_longest_command_against_the_longest_lists_ends_within_a_moment() {
    let begun = std::time::Instant::now();
    let stars = |sign: &str| -> Vec<String> {
        let one = |n: usize| format!("{}{n}b", format!("{sign}*").repeat(200));
        (0..limits::POLICY_ENTRIES_MAX).map(one).collect()
    };
    let rules = CommandsClause {
        forbid: stars("a"),
        approve: stars("a"),
        allow: Some(stars("a")),
        ..CommandsClause::default()
    };
    let long = "a".repeat(limits::ARGV_BYTES_MAX);
    let many = "a;".repeat(limits::ARGV_BYTES_MAX / 2);
    for argv in [&[&*long][..], &["sh", "-c", &many]] {
        assert_eq!(answer(&rules, argv), Answer::Forbidden);
    }
    // What a person would write stays possible.
    let few: Vec<String> = (0..16).map(|n| format!("tool-{n} * --all")).collect();
    let rules = CommandsClause {
        forbid: few,
        ..CommandsClause::default()
    };
    assert_eq!(answer(&rules, &["sh", "-c", &many]), Answer::Skip);
    assert!(begun.elapsed() < std::time::Duration::from_secs(3));
}
