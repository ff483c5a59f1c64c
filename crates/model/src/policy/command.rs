//! What a policy says to a command: forbidden, for a person to say yes to, or let through. The worst that is found
//! counts.

use super::shell::{self, Word, is_assignment};
use super::{Answer, CommandsClause};
use crate::limits;

/// Shells whose `-c` is read.
const SHELLS: [&str; 6] = ["sh", "bash", "dash", "ash", "zsh", "ksh"];
/// Programs that start the command that follows them.
const CARRIERS: [&str; 13] = [
    "env", "exec", "command", "builtin", "nohup", "nice", "time", "timeout", "stdbuf", "setsid",
    "xargs", "sudo", "doas",
];

/// All commands that are found in one.
#[derive(Debug, Default)]
struct Found {
    commands: Vec<Vec<Word>>,
    operators: Vec<&'static str>,
    is_unread: bool,
}

impl CommandsClause {
    /// What becomes of a command, and why where it is not let through.
    pub(super) fn answer(&self, argv: &[String]) -> (Answer, String) {
        let found = find(argv);
        let hit = |pattern: &&String| found.commands.iter().any(|one| matches(pattern, one));
        if let Some(pattern) = self.forbid.iter().find(hit) {
            return (Answer::Forbidden, format!("`{pattern}` is forbidden"));
        }
        if let Some(why) = self.beyond(&found) {
            return (Answer::Forbidden, why);
        }
        // All of them: who was shown one of two has said yes to one.
        let met = self.approve.iter().filter(hit);
        let met: Vec<String> = met.map(|pattern| format!("`{pattern}`")).collect();
        if met.is_empty() {
            return (Answer::Skip, String::new());
        }
        let why = format!("a person has to say yes to {}", met.join(" and "));
        (Answer::NeedsApproval, why)
    }

    /// What lists let through must be known in all its parts.
    fn beyond(&self, found: &Found) -> Option<String> {
        if !self.no_operators && self.allow.is_none() {
            return None;
        }
        if found.is_unread {
            return Some("a part of the command cannot be read".to_owned());
        }
        if let Some(operator) = found.operators.first().filter(|_| self.no_operators) {
            return Some(format!(
                "commands may not be joined or redirected: `{operator}`"
            ));
        }
        let allow = self.allow.as_ref()?;
        let is_allowed = |one: &&Vec<Word>| allow.iter().any(|pattern| matches(pattern, one));
        let other = found.commands.iter().find(|one| !is_allowed(one))?;
        let named = other.first().map_or("", |word| word.text.as_str());
        let named: String = named.chars().take(64).collect();
        Some(format!(
            "`{named}` is not among the commands that are allowed"
        ))
    }
}

/// The commands of a command: itself, what a shell would make of it, and what is carried by others.
fn find(argv: &[String]) -> Found {
    let mut found = Found::default();
    let words = argv.iter().map(|word| Word::plain(word)).collect();
    let mut waiting: Vec<(Vec<Word>, u32)> = vec![(words, 0)];
    while let Some((words, depth)) = waiting.pop() {
        if depth > limits::COMMAND_DEPTH_MAX {
            found.is_unread = true;
            continue;
        }
        if let Some(text) = script_of(&words) {
            let Some(text) = text else {
                found.is_unread = true;
                continue;
            };
            let script = shell::read(&text);
            found.is_unread |= script.is_unread;
            found.operators.extend(script.operators);
            let inner = script.commands.into_iter();
            waiting.extend(inner.map(|words| (words, depth + 1)));
            continue;
        }
        if let Some(rest) = carried(&words) {
            waiting.push((rest, depth + 1));
        }
        found.commands.push(words);
    }
    found
}

/// What a shell is given to read; `Some(None)` where that is not known before it runs.
fn script_of(words: &[Word]) -> Option<Option<String>> {
    let (first, rest) = words.split_first()?;
    let name = base(&first.text);
    let known = |words: &[Word]| {
        let is_open = words.iter().any(|word| word.is_open);
        let texts: Vec<&str> = words.iter().map(|word| word.text.as_str()).collect();
        (!is_open).then(|| texts.join(" "))
    };
    if name == "eval" {
        return Some(known(rest));
    }
    if !SHELLS.contains(&name) {
        return None;
    }
    let is_c = |word: &Word| {
        let options = word.text.strip_prefix('-').unwrap_or_default();
        !options.starts_with('-') && options.contains('c')
    };
    let at = rest.iter().position(is_c)?;
    // A script in front of it would make it an argument of that.
    let is_option = |word: &Word| word.text.starts_with(['-', '+']);
    if !rest.iter().take(at).all(is_option) {
        return None;
    }
    rest.get(at + 1)
        .map(|text| known(std::slice::from_ref(text)))
}

/// The command that another one starts.
fn carried(words: &[Word]) -> Option<Vec<Word>> {
    let (first, rest) = words.split_first()?;
    if !CARRIERS.contains(&base(&first.text)) {
        return None;
    }
    let is_its_own = |word: &&Word| {
        let is_number = word.text.starts_with(|first: char| first.is_ascii_digit());
        word.text.starts_with('-') || is_assignment(&word.text) || is_number
    };
    let rest: Vec<Word> = rest.iter().skip_while(is_its_own).cloned().collect();
    (!rest.is_empty()).then_some(rest)
}

fn base(program: &str) -> &str {
    program.rsplit('/').next().unwrap_or(program)
}

/// Whether a command begins with the words of a pattern. The program is compared without its directory, unless the
/// pattern has one. A program that is not known before it runs is none of them.
fn matches(pattern: &str, command: &[Word]) -> bool {
    let mut words = command.iter();
    for (index, wanted) in pattern.split_whitespace().enumerate() {
        let Some(word) = words.next() else {
            return false;
        };
        let text = match index {
            0 if word.is_open => return false,
            0 if !wanted.contains('/') => base(&word.text),
            _ => word.text.as_str(),
        };
        if !is_like(wanted, text) {
            return false;
        }
    }
    true
}

/// Whether a text is as a pattern says, in which `*` stands for anything.
fn is_like(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut p, mut t) = (0, 0);
    // Where the last star is, and how much it stands for so far: one step back is enough.
    let mut star: Option<(usize, usize)> = None;
    while let Some(&byte) = text.get(t) {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(&wanted) if wanted == byte => (p, t) = (p + 1, t + 1),
            _ => match star {
                Some((at, from)) => {
                    star = Some((at, from + 1));
                    (p, t) = (at + 1, from + 1);
                }
                None => return false,
            },
        }
    }
    pattern.iter().skip(p).all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
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
        clause.answer(&argv).0
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
            assert_eq!(is_like(pattern, text), expect, "{pattern} {text}");
        }
        assert!(!is_like(&("a*".repeat(50) + "c"), &"a".repeat(20_000)));
    }
}
