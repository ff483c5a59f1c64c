//! Programs that start commands: shells with `-c`, and those that run what follows them. Which of their words is the
//! command depends on their options, as their manuals have them: `bash(1)`, `env(1)`, `timeout(1)`, `xargs(1)`, `sudo(8)`,
//! `busybox(1)`.

use super::shell::{Word, is_assignment};

/// Shells whose `-c` is read.
const SHELLS: [&str; 8] = ["sh", "bash", "dash", "ash", "hush", "toysh", "zsh", "ksh"];

/// Options of shells that stand alone, and those that take the next word. Of any other nobody here knows which.
const SHELL_ALONE: [&str; 8] = [
    "login",
    "posix",
    "norc",
    "noprofile",
    "restricted",
    "verbose",
    "debugger",
    "noediting",
];
const SHELL_TAKES: [&str; 2] = ["rcfile", "init-file"];

/// A program that starts the command that follows it, and what stands between: else an option's value would be taken
/// for the command.
struct Carrier {
    name: &'static str,
    /// Letters of options that take the next word, where nothing stands behind them in their own.
    short: &'static str,
    /// The same for long ones, where they have no `=`.
    long: &'static [&'static str],
    /// Words of its own before the command.
    words: usize,
}

const fn carrier(name: &'static str) -> Carrier {
    Carrier {
        name,
        short: "",
        long: &[],
        words: 0,
    }
}

const ENV: Carrier = Carrier {
    short: "uCSaP",
    long: &["unset", "chdir", "split-string", "argv0"],
    ..carrier("env")
};

const CARRIERS: [Carrier; 15] = [
    ENV,
    Carrier {
        short: "a",
        ..carrier("exec")
    },
    carrier("command"),
    carrier("builtin"),
    // Many programs in one file: the word behind its name says which.
    carrier("busybox"),
    carrier("toybox"),
    carrier("nohup"),
    Carrier {
        short: "n",
        long: &["adjustment"],
        ..carrier("nice")
    },
    Carrier {
        short: "fo",
        long: &["format", "output"],
        ..carrier("time")
    },
    Carrier {
        short: "sk",
        long: &["signal", "kill-after"],
        words: 1,
        ..carrier("timeout")
    },
    Carrier {
        short: "ioe",
        long: &["input", "output", "error"],
        ..carrier("stdbuf")
    },
    carrier("setsid"),
    Carrier {
        short: "adEILnPs",
        long: &[
            "arg-file",
            "delimiter",
            "max-args",
            "max-procs",
            "max-chars",
            "process-slot-var",
        ],
        ..carrier("xargs")
    },
    Carrier {
        short: "CDghpRrTtUu",
        long: &[
            "user",
            "group",
            "prompt",
            "close-from",
            "host",
            "role",
            "type",
            "command-timeout",
            "other-user",
            "chroot",
            "chdir",
        ],
        ..carrier("sudo")
    },
    Carrier {
        short: "uCa",
        ..carrier("doas")
    },
];

/// What a program is given to read as commands.
pub(super) enum Script {
    /// Nothing.
    None,
    /// This.
    Text(String),
    /// This, as the first words of a command that goes on with others.
    Split { text: String, rest: Vec<Word> },
    /// What is not known before it runs.
    Open,
    /// Something, but what cannot be said.
    Hidden,
}

pub(super) fn script_of(words: &[Word]) -> Script {
    let Some((first, rest)) = words.split_first() else {
        return Script::None;
    };
    let name = base(&first.text);
    if name == "eval" {
        let is_end = rest.first().is_some_and(|word| word.text == "--");
        return known(rest.get(usize::from(is_end)..).unwrap_or_default());
    }
    if name == "env" {
        return split_of(rest);
    }
    match SHELLS.contains(&name) {
        true => shell_script(rest),
        false => Script::None,
    }
}

fn known(words: &[Word]) -> Script {
    if words.iter().any(|word| word.is_open) {
        return Script::Open;
    }
    let texts: Vec<&str> = words.iter().map(|word| word.text.as_str()).collect();
    Script::Text(texts.join(" "))
}

/// What a shell reads by its `-c`, which says only that the first word behind all options is what is read.
fn shell_script(rest: &[Word]) -> Script {
    let (mut at, mut is_asked) = (0, false);
    let has_c = |words: &[Word]| {
        let is_c = |word: &Word| word.text.starts_with('-') && word.text.contains('c');
        words.iter().any(|word| is_c(word) || word.is_open)
    };
    while let Some(word) = rest.get(at) {
        let text = word.text.as_str();
        if !text.starts_with(['-', '+']) {
            let later = rest.get(at + 1..).unwrap_or_default();
            // It may become an option, and then a `-c` behind it is the shell's.
            if word.is_open && !is_asked && later.iter().any(is_short_c) {
                return Script::Hidden;
            }
            break;
        }
        at += 1;
        if text == "-" || text == "--" {
            break;
        }
        if word.is_open {
            return Script::Hidden;
        }
        if let Some(long) = text.strip_prefix("--") {
            if SHELL_TAKES.contains(&long) {
                at += 1;
            } else if !SHELL_ALONE.contains(&long) && has_c(rest.get(at..).unwrap_or_default()) {
                return Script::Hidden;
            }
            continue;
        }
        is_asked |= text.starts_with('-') && text.contains('c');
        at += text.bytes().filter(|b| matches!(b, b'o' | b'O')).count();
    }
    match rest.get(at) {
        Some(text) if is_asked => known(std::slice::from_ref(text)),
        None if is_asked => Script::Hidden,
        Some(_) | None => Script::None,
    }
}

/// Whether a word is like `-c`, alone or among others.
fn is_short_c(word: &Word) -> bool {
    let short = word.text.strip_prefix('-');
    short.is_some_and(|short| !short.starts_with('-') && short.contains('c'))
}

/// The text of `env -S`, with what follows it: only among its own options, because others have an `-S` too.
fn split_of(rest: &[Word]) -> Script {
    let mut at = 0;
    while let Some(word) = rest.get(at) {
        let text = word.text.as_str();
        let Some(option) = text.strip_prefix('-').filter(|option| *option != "-") else {
            match is_assignment(text) {
                true => at += 1,
                false => return Script::None,
            }
            continue;
        };
        let Some(given) = split_given(option) else {
            at += 1 + usize::from(ENV.takes_next(option));
            continue;
        };
        let next = rest.get(at + 1);
        let is_open = word.is_open || given.is_empty() && next.is_some_and(|next| next.is_open);
        let (text, from) = match (given.is_empty(), next) {
            (false, _) => (given.to_owned(), at + 1),
            (true, Some(next)) => (next.text.clone(), at + 2),
            (true, None) => return Script::None,
        };
        let rest = rest.get(from..).unwrap_or_default().to_vec();
        return match is_open {
            true => Script::Hidden,
            false => Script::Split { text, rest },
        };
    }
    Script::None
}

/// What an option of `env` says with its `S`, without the first `-`; nothing where the next word does.
fn split_given(option: &str) -> Option<&str> {
    if let Some(long) = option.strip_prefix('-') {
        let (name, given) = long.split_once('=').unwrap_or((long, ""));
        let is_it = !name.is_empty() && "split-string".starts_with(name);
        return is_it.then_some(given);
    }
    let (before, given) = option.split_once('S')?;
    // A letter before it may take what follows for its value.
    let is_value = before.contains(|letter: char| ENV.short.contains(letter));
    (!is_value).then_some(given)
}

/// The command that another one starts: none, or one.
pub(super) fn carried(words: &[Word]) -> Vec<Vec<Word>> {
    let Some((first, rest)) = words.split_first() else {
        return Vec::new();
    };
    let name = base(&first.text);
    let Some(of) = CARRIERS.iter().find(|carrier| carrier.name == name) else {
        return Vec::new();
    };
    let from = of.options(rest) + of.words;
    let rest = rest.get(from..).unwrap_or_default();
    if rest.is_empty() {
        return Vec::new();
    }
    vec![rest.to_vec()]
}

impl Carrier {
    /// How many words in front are its own.
    fn options(&self, rest: &[Word]) -> usize {
        let mut at = 0;
        while let Some(word) = rest.get(at) {
            let text = word.text.as_str();
            at += match text.strip_prefix('-') {
                None if is_assignment(text) => 1,
                None => return at,
                Some("-") => return at + 1,
                Some(option) => 1 + usize::from(self.takes_next(option)),
            };
        }
        at
    }

    /// Whether an option, without its first `-`, takes the next word.
    fn takes_next(&self, option: &str) -> bool {
        if let Some(long) = option.strip_prefix('-') {
            // A beginning of a long option is that option, as the C library reads them.
            return self.long.iter().any(|known| known.starts_with(long));
        }
        let takes = option.find(|letter: char| self.short.contains(letter));
        takes.is_some_and(|at| at + 1 == option.len())
    }
}

pub(super) fn base(program: &str) -> &str {
    program.rsplit('/').next().unwrap_or(program)
}
