//! Reads what a POSIX shell would be given (POSIX.1-2024, Shell Command Language, 2.2 to 2.6), as far as a guard rail
//! needs it: which simple commands are in it, and which operators join them. Not a grammar: what is in substitutions
//! and in documents is read as commands too, and what cannot be read is said to be so.
//!
//! The text is a stranger's. So there is no recursion, and each character is looked at a few times at most: once for
//! each of the [`limits::COMMAND_DEPTH_MAX`] texts that it may be within.

use crate::limits;
use std::collections::BTreeSet;

/// What a shell would run.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Script {
    /// Simple commands, those of substitutions among them.
    pub(super) commands: Vec<Vec<Word>>,
    /// What joins, substitutes and redirects them, as it is written.
    pub(super) operators: BTreeSet<&'static str>,
    /// Some of it could not be read.
    pub(super) is_unread: bool,
    /// Some of it is nested too deep to be read, so commands may be in it that are not among these.
    pub(super) is_deep: bool,
}

/// A word of a command, without its quotes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Word {
    /// The text.
    pub(super) text: String,
    /// A shell would put something else in place of a part of it.
    pub(super) is_open: bool,
}

impl Word {
    pub(super) fn plain(text: &str) -> Word {
        Word {
            text: text.to_owned(),
            is_open: false,
        }
    }
}

/// Words that begin or end a compound command, behind which a simple one may stand.
const RESERVED: [&str; 12] = [
    "!", "{", "}", "if", "then", "elif", "else", "fi", "do", "done", "while", "until",
];

/// Words behind which a name may stand before the command.
const NAMED: [&str; 2] = ["coproc", "function"];

/// Reads a script.
pub(super) fn read(text: &str) -> Script {
    let mut script = Script::default();
    let mut waiting = vec![(text.trim().to_owned(), 0)];
    while let Some((text, depth)) = waiting.pop() {
        if depth > limits::COMMAND_DEPTH_MAX {
            (script.is_unread, script.is_deep) = (true, true);
            continue;
        }
        let inner = Reader::new(&text, &mut script).read();
        waiting.extend(inner.into_iter().map(|text| (text, depth + 1)));
    }
    script
}

struct Reader<'r> {
    text: Vec<char>,
    at: usize,
    script: &'r mut Script,
    words: Vec<Word>,
    word: Option<Word>,
    /// The next word is where something is redirected to, and no part of the command.
    is_target: bool,
    /// What is in substitutions.
    inner: Vec<String>,
}

impl<'r> Reader<'r> {
    fn new(text: &str, script: &'r mut Script) -> Reader<'r> {
        Reader {
            text: text.chars().collect(),
            at: 0,
            script,
            words: Vec::new(),
            word: None,
            is_target: false,
            inner: Vec::new(),
        }
    }

    fn read(mut self) -> Vec<String> {
        while let Some(next) = self.take() {
            match next {
                ' ' | '\t' | '\r' => self.end_word(),
                '\n' => self.end_command("newline"),
                ';' => self.end_command(";"),
                '(' | ')' => self.end_command("("),
                '|' if self.takes('|') => self.end_command("||"),
                '|' => {
                    self.takes('&');
                    self.end_command("|");
                }
                '&' if self.takes('&') => self.end_command("&&"),
                '&' if self.peek() == Some('>') => {}
                '&' => self.end_command("&"),
                '<' | '>' => self.redirect(next),
                '#' if self.word.is_none() => self.skip_to('\n'),
                '\\' => self.escaped(),
                '\'' => self.single(),
                '"' => self.double(),
                '`' => self.back_ticks(),
                '$' => self.dollar(),
                '*' | '?' | '[' | '~' | '{' | '}' => self.open(next),
                plain => self.word().text.push(plain),
            }
        }
        self.end_simple();
        self.inner
    }

    fn peek(&self) -> Option<char> {
        self.text.get(self.at).copied()
    }

    fn take(&mut self) -> Option<char> {
        let next = self.peek()?;
        self.at += 1;
        Some(next)
    }

    fn takes(&mut self, wanted: char) -> bool {
        let is_next = self.peek() == Some(wanted);
        self.at += usize::from(is_next);
        is_next
    }

    fn word(&mut self) -> &mut Word {
        self.word.get_or_insert_default()
    }

    fn open(&mut self, sign: char) {
        let word = self.word();
        word.text.push(sign);
        word.is_open = true;
    }

    fn skip_to(&mut self, end: char) {
        while self.peek().is_some_and(|next| next != end) {
            self.at += 1;
        }
    }

    fn end_word(&mut self) {
        let Some(word) = self.word.take() else {
            return;
        };
        if !std::mem::take(&mut self.is_target) {
            self.words.push(word);
        }
    }

    fn end_command(&mut self, operator: &'static str) {
        self.script.operators.insert(operator);
        self.end_simple();
    }

    fn end_simple(&mut self) {
        self.end_word();
        self.is_target = false;
        let words = std::mem::take(&mut self.words).into_iter();
        let is_before = |word: &Word| RESERVED.contains(&&*word.text) || is_assignment(&word.text);
        let mut command: Vec<Word> = words.skip_while(is_before).collect();
        // `coproc NAME { ...` and `function NAME { ...`: what is behind the brace is run.
        let is_named = command
            .first()
            .is_some_and(|word| NAMED.contains(&&*word.text));
        let is_brace = |word: &Word| word.is_open && word.text == "{";
        if let Some(at) = command.iter().position(is_brace).filter(|_| is_named) {
            command.drain(..=at);
        } else if is_named {
            command.remove(0);
        }
        if !command.is_empty() {
            self.script.commands.push(command);
        }
    }

    fn escaped(&mut self) {
        match self.take() {
            Some('\n') => {}
            Some(plain) => self.word().text.push(plain),
            None => self.script.is_unread = true,
        }
    }

    fn single(&mut self) {
        self.word();
        loop {
            match self.take() {
                Some('\'') => return,
                Some(plain) => self.word().text.push(plain),
                None => {
                    self.script.is_unread = true;
                    return;
                }
            }
        }
    }

    fn double(&mut self) {
        self.word();
        loop {
            match self.take() {
                Some('"') => return,
                Some('\\') => match self.take() {
                    Some('\n') | None => {}
                    Some(sign @ ('$' | '`' | '"' | '\\')) => self.word().text.push(sign),
                    Some(plain) => self.word().text.extend(['\\', plain]),
                },
                Some('`') => self.back_ticks(),
                Some('$') => self.dollar(),
                Some(plain) => self.word().text.push(plain),
                None => {
                    self.script.is_unread = true;
                    return;
                }
            }
        }
    }

    /// `$NAME`, `${...}`, `$(...)`, and `$'...'`, whose escapes are not read.
    fn dollar(&mut self) {
        self.open('$');
        if self.takes('(') {
            self.substitution("$(");
        }
    }

    /// Up to the parenthesis that ends it, through quotes and what is nested in it.
    fn substitution(&mut self, operator: &'static str) {
        self.script.operators.insert(operator);
        self.word().is_open = true;
        let (from, mut ends) = (self.at, vec![')']);
        while let Some(end) = ends.last().copied() {
            let Some(next) = self.take() else { break };
            match next {
                '\\' => self.at += 1,
                '\'' if end == ')' => {
                    self.skip_to('\'');
                    self.at += 1;
                }
                '"' if end == '"' => drop(ends.pop()),
                '"' => ends.push('"'),
                ')' if end == ')' => drop(ends.pop()),
                '(' if end == ')' || self.text.get(self.at.wrapping_sub(2)) == Some(&'$') => {
                    ends.push(')');
                }
                _ => {}
            }
        }
        self.script.is_unread |= !ends.is_empty();
        let to = self.at.min(self.text.len());
        self.at = to;
        let to = to.saturating_sub(usize::from(ends.is_empty()));
        let inner = self.text.get(from..to).unwrap_or_default();
        self.inner.push(inner.iter().collect());
    }

    fn back_ticks(&mut self) {
        self.script.operators.insert("`");
        self.word().is_open = true;
        let mut inner = String::new();
        loop {
            match self.take() {
                Some('`') => break,
                Some('\\') => inner.extend(self.take()),
                Some(plain) => inner.push(plain),
                None => {
                    self.script.is_unread = true;
                    break;
                }
            }
        }
        self.inner.push(inner);
    }

    fn redirect(&mut self, sign: char) {
        if self.takes('(') {
            return self.substitution(if sign == '<' { "<(" } else { ">(" });
        }
        let is_number = |word: &Word| word.text.bytes().all(|b| b.is_ascii_digit());
        if self.word.as_ref().is_some_and(is_number) {
            self.word = None;
        }
        // `{name}>file` keeps a descriptor in a variable, also one of an array. To a shell that does not know this it
        // is a word like any other, so what lists let through has none.
        let is_variable =
            |word: &Word| word.is_open && word.text.starts_with('{') && word.text.ends_with('}');
        if self.word.as_ref().is_some_and(is_variable) {
            self.word = None;
            self.script.is_unread = true;
        }
        self.end_word();
        self.is_target = true;
        let mut operator = if sign == '<' { "<" } else { ">" };
        while let Some(next @ ('<' | '>' | '|' | '-')) = self.peek() {
            self.at += 1;
            if next == '<' {
                operator = "<<";
            }
        }
        // `2>&1` copies a descriptor and writes to no file.
        let copies = self.takes('&')
            && self
                .peek()
                .is_some_and(|next| next.is_ascii_digit() || next == '-');
        if !copies {
            self.script.operators.insert(operator);
        }
    }
}

/// `NAME=VALUE` in front of a command.
pub(super) fn is_assignment(word: &str) -> bool {
    let Some((name, _)) = word.split_once('=') else {
        return false;
    };
    let name = name.strip_suffix('+').unwrap_or(name);
    let first = |b: &u8| b.is_ascii_alphabetic() || *b == b'_';
    name.as_bytes().first().is_some_and(first)
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn told(text: &str) -> String {
        let script = read(text);
        let command = |words: &Vec<Word>| {
            let word = |word: &Word| match word.is_open {
                true => format!("{}?", word.text),
                false => word.text.clone(),
            };
            words.iter().map(word).collect::<Vec<_>>().join(" ")
        };
        let commands: Vec<String> = script.commands.iter().map(command).collect();
        let operators: Vec<&str> = script.operators.iter().copied().collect();
        let unread = if script.is_unread { " unread" } else { "" };
        format!("{} [{}]{unread}", commands.join(" ; "), operators.join(" "))
    }

    #[test]
    fn a_script_is_read_as_a_shell_reads_it() {
        for (text, expect) in [
            ("ls -l /tmp", "ls -l /tmp []"),
            ("A=1 B+=2 env", "env []"),
            (r#"echo 'a b' "c d" e\ f"#, "echo a b c d e f []"),
            ("a && b || c; d | e &", "a ; b ; c ; d ; e [& && ; | ||]"),
            ("a\nb\n", "a ; b [newline]"),
            ("a 2>&1", "a []"),
            ("a 2>/dev/null >>log <in", "a [< >]"),
            ("a &>log", "a [>]"),
            ("cat <<X\nrm -rf /\nX", "cat ; rm -rf / ; X [<< newline]"),
            ("echo $(rm -rf /)", "echo $? ; rm -rf / [$(]"),
            ("echo \"$(echo \")\"; b)\"", "echo $? ; echo ) ; b [$( ;]"),
            ("echo `b`", "echo ? ; b [`]"),
            ("diff <(a) >(b)", "diff ? ? ; b ; a [<( >(]"),
            ("(a; b)", "a ; b [( ;]"),
            ("if a; then sudo b; fi", "a ; sudo b [;]"),
            ("$X -rf /", "$X? -rf / []"),
            ("r'm' -rf /", "rm -rf / []"),
            ("{rm,-rf,/}", "{rm,-rf,/}? []"),
            ("a # b; c", "a []"),
            ("{fd}>x a", "a [>] unread"),
            ("{fd[1]}<x a", "a [<] unread"),
            ("{a} >x b", "{a}? b [>]"),
            ("echo 'a", "echo a [] unread"),
            ("echo $(a", "echo $? ; a [$(] unread"),
        ] {
            assert_eq!(told(text), expect, "{text}");
        }
    }

    #[test]
    fn what_is_nested_too_deep_is_not_read_and_breaks_nothing() {
        let deep = |times: usize| "$(".repeat(times) + "a" + &")".repeat(times);
        assert!(!read(&deep(8)).is_unread);
        assert!(read(&deep(9)).is_unread);
        assert!(read(&deep(20_000)).is_unread);
        assert!(read(&"(".repeat(50_000)).commands.is_empty());
        assert!(read(&"`".repeat(50_001)).is_unread);
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_harm(text in "[ a-c'\"\\\\$(){}`<>|&;\n#*=0-9-]{0,60}") {
            let script = read(&text);
            let letters: usize = script.commands.iter().flatten().map(|word| word.text.len()).sum();
            prop_assert!(letters <= text.len() * 10);
        }
    }
}
