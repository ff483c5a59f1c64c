//! What a policy says to a command: forbidden, for a person to say yes to, or let through. The worst that is found
//! counts.

use super::carry::{Script, base, carried, script_of};
use super::shell::{self, Word};
use super::{Answer, CommandsClause};
use crate::limits;

/// How much may still be compared. Who asks and who writes patterns choose both sides of it.
#[derive(Debug)]
pub(super) struct Steps(u64);

impl Default for Steps {
    fn default() -> Steps {
        Steps(limits::COMMAND_STEPS_MAX)
    }
}

impl Steps {
    /// One step; false when there are no more.
    fn take(&mut self) -> bool {
        self.0 = self.0.saturating_sub(1);
        self.0 > 0
    }

    fn is_spent(&self) -> bool {
        self.0 == 0
    }
}

/// All commands that are found in one.
#[derive(Debug, Default)]
pub(super) struct Found {
    commands: Vec<Vec<Word>>,
    /// Shells, and `eval`, whose text is among these. A list lets them through by what they are given; who forbids a
    /// shell means it whatever it is given.
    shells: Vec<Vec<Word>>,
    operators: Vec<&'static str>,
    /// A part of it is not known before it runs, or has quotes without an end.
    is_unread: bool,
    /// A part of it may be a command that is not among these: it is nested too deep, or follows options that nobody
    /// here knows.
    is_hidden: bool,
}

impl CommandsClause {
    /// What becomes of a command, and why where it is not let through.
    pub(super) fn answer(&self, found: &Found, steps: &mut Steps) -> (Answer, String) {
        let (answer, why) = self.compared(found, steps);
        if steps.is_spent() {
            let why = "the command is too long to be compared with all patterns";
            return (Answer::Forbidden, why.to_owned());
        }
        (answer, why)
    }

    fn compared(&self, found: &Found, steps: &mut Steps) -> (Answer, String) {
        let mut hit = |pattern: &&String| {
            let wanted = words_of(pattern);
            let mut all = found.commands.iter().chain(&found.shells);
            all.any(|one| steps.is_spent() || matches(&wanted, one, steps))
        };
        if let Some(pattern) = self.forbid.iter().find(&mut hit) {
            return (Answer::Forbidden, format!("`{pattern}` is forbidden"));
        }
        // All of them: who was shown one of two has said yes to one.
        let met = self.approve.iter().filter(&mut hit);
        let met: Vec<String> = met.map(|pattern| format!("`{pattern}`")).collect();
        if found.is_hidden && !(self.forbid.is_empty() && self.approve.is_empty()) {
            let why = "which commands it has cannot be read";
            return (Answer::Forbidden, why.to_owned());
        }
        if let Some(why) = self.beyond(found, steps) {
            return (Answer::Forbidden, why);
        }
        if met.is_empty() {
            return (Answer::Skip, String::new());
        }
        let why = format!("a person has to say yes to {}", met.join(" and "));
        (Answer::NeedsApproval, why)
    }

    /// What lists let through must be known in all its parts.
    fn beyond(&self, found: &Found, steps: &mut Steps) -> Option<String> {
        if !self.no_operators && self.allow.is_none() {
            return None;
        }
        if found.is_unread || found.is_hidden {
            return Some("a part of the command cannot be read".to_owned());
        }
        if let Some(operator) = found.operators.first().filter(|_| self.no_operators) {
            return Some(format!(
                "commands may not be joined or redirected: `{operator}`"
            ));
        }
        let allow = self.allow.as_ref()?;
        let allow: Vec<Vec<&str>> = allow.iter().map(|pattern| words_of(pattern)).collect();
        let mut is_allowed = |one: &Vec<Word>| {
            let mut all = allow.iter();
            all.any(|wanted| steps.is_spent() || matches(wanted, one, steps))
        };
        let other = found.commands.iter().find(|one| !is_allowed(one))?;
        let named = other.first().map_or("", |word| word.text.as_str());
        let named: String = named.chars().take(64).collect();
        Some(format!(
            "`{named}` is not among the commands that are allowed"
        ))
    }
}

impl Found {
    /// The commands of a command: itself, what a shell would make of it, and what is carried by others.
    pub(super) fn of(argv: &[String]) -> Found {
        let words = argv.iter().map(|word| Word::plain(word)).collect();
        Found::default().with(vec![(words, 0)])
    }

    /// Those of a text that our own shell reads. That shell is nobody's command.
    pub(super) fn of_script(text: &str) -> Found {
        let mut found = Found::default();
        let commands = found.read(text).into_iter();
        let waiting = commands.map(|words| (words, 1)).collect();
        found.with(waiting)
    }

    /// These, each as deep as it is nested, and all that is within them.
    fn with(mut self, mut waiting: Vec<(Vec<Word>, u32)>) -> Found {
        while let Some((words, depth)) = waiting.pop() {
            if depth > limits::COMMAND_DEPTH_MAX {
                self.is_hidden = true;
                continue;
            }
            let inner = match script_of(&words) {
                Script::None => carried(&words),
                Script::Hidden => {
                    self.is_hidden = true;
                    Vec::new()
                }
                Script::Open => {
                    self.is_unread = true;
                    self.shells.push(words);
                    continue;
                }
                Script::Text(text) => {
                    let inner = self.read(&text);
                    waiting.extend(inner.into_iter().map(|words| (words, depth + 1)));
                    self.shells.push(words);
                    continue;
                }
                Script::Split { text, rest } => self.split(&text, rest),
            };
            waiting.extend(inner.into_iter().map(|words| (words, depth + 1)));
            self.commands.push(words);
        }
        self
    }

    fn read(&mut self, text: &str) -> Vec<Vec<Word>> {
        let script = shell::read(text);
        self.is_unread |= script.is_unread;
        self.is_hidden |= script.is_deep;
        self.operators.extend(script.operators);
        script.commands
    }

    /// What `env -S` makes of a text: words of its own, before those that follow. Its escapes and variables are not
    /// those of a shell: `\_` is a space.
    fn split(&mut self, text: &str, rest: Vec<Word>) -> Vec<Vec<Word>> {
        if text.contains(['\\', '$']) {
            self.is_hidden = true;
            return Vec::new();
        }
        let mut script = shell::read(text);
        let Some(mut words) = script.commands.pop().filter(|_| script.commands.is_empty()) else {
            self.is_hidden = true;
            return Vec::new();
        };
        self.is_unread |= script.is_unread;
        words.insert(0, Word::plain("env"));
        words.extend(rest);
        vec![words]
    }
}

/// The words of a pattern: found once, because looking for them costs as much as it is long, and is no step.
fn words_of(pattern: &str) -> Vec<&str> {
    pattern.split_whitespace().collect()
}

/// Whether a command begins with the words of a pattern. The program is compared without its directory, unless the
/// pattern has one. A program that is not known before it runs is none of them.
fn matches(pattern: &[&str], command: &[Word], steps: &mut Steps) -> bool {
    steps.take();
    let mut words = command.iter();
    for (index, wanted) in pattern.iter().enumerate() {
        let Some(word) = words.next() else {
            return false;
        };
        let text = match index {
            0 if word.is_open => return false,
            0 if !wanted.contains('/') => base(&word.text),
            _ => word.text.as_str(),
        };
        if !is_like(wanted, text, steps) {
            return false;
        }
    }
    true
}

/// Whether a text is as a pattern says, in which `*` stands for anything. Without steps it is not, which whoever counts
/// them must look at.
fn is_like(pattern: &str, text: &str, steps: &mut Steps) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut p, mut t) = (0, 0);
    // Where the last star is, and how much it stands for so far: one step back is enough.
    let mut star: Option<(usize, usize)> = None;
    while let Some(&byte) = text.get(t) {
        if !steps.take() {
            return false;
        }
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
mod tests;
