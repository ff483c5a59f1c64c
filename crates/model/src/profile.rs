//! Profiles: named recipes for sandboxes. Somebody writes what one says (`spec`, and `apply` for what follows), or
//! builds make it: E2B's clients call those templates, and what a build does is in this file.

mod apply;
mod spec;

pub use apply::Says;
pub(crate) use apply::check_secrets;
pub(crate) use spec::check_secret_rules;
pub use spec::{ProfileBase, ProfileSpec, ProfileUse, SecretRule, SecretWay};

use crate::limits;
use crate::spec::{AskedLimits, Findings, Invalid, check_limits};
use serde::{Deserialize, Serialize};

/// What a build is to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recipe {
    /// What it begins with.
    pub base: Base,
    /// What is done with that, one after the other.
    pub instructions: Vec<Instruction>,
    /// Nothing that an earlier build has done is used.
    pub fresh: bool,
    /// Started with every sandbox; that of the profile that it begins with when absent.
    pub start: Option<String>,
    /// Succeeds when what was started is ready; asked again and again until then.
    pub ready: Option<String>,
}

/// What a build begins with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Base {
    /// An image, by the name that a registry has for it.
    Image(String),
    /// A profile or a snapshot, by its id or its name.
    Profile(String),
}

/// One line of a recipe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instruction {
    /// What is done.
    pub what: What,
    /// It is done even if an earlier build has done it, and so is all after it.
    pub fresh: bool,
}

/// What one line of a recipe does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// A command of a shell.
    Run {
        /// What the shell reads.
        command: String,
        /// As whom; as the last [`What::User`] when absent.
        user: Option<String>,
    },
    /// Files that were sent come in.
    Copy {
        /// Which of those in the archive; a pattern stands for the directory that it begins with.
        source: String,
        /// Where to; a directory if it ends with `/`.
        target: String,
        /// Whose they become: `USER` or `USER:GROUP`.
        owner: Option<String>,
        /// Their permissions, in octal digits.
        mode: Option<String>,
        /// The archive, by the name that whoever sent it has given it.
        files: String,
    },
    /// Variables for all that follows and for every sandbox. A value may have others in it.
    Env(Vec<(String, String)>),
    /// Where all that follows is run, and commands of every sandbox that do not say.
    Workdir(String),
    /// The same for as whom.
    User(String),
}

impl What {
    /// The word for it, as people write it.
    pub fn word(&self) -> &'static str {
        match self {
            What::Run { .. } => "RUN",
            What::Copy { .. } => "COPY",
            What::Env(_) => "ENV",
            What::Workdir(_) => "WORKDIR",
            What::User(_) => "USER",
        }
    }

    /// All that it says, as one text for a person.
    pub fn line(&self) -> String {
        let rest = match self {
            What::Run {
                command,
                user: None,
            } => command.clone(),
            What::Run {
                command,
                user: Some(user),
            } => format!("{command} {user}"),
            What::Copy { source, target, .. } => format!("{source} {target}"),
            What::Env(pairs) => {
                let pairs = pairs.iter().map(|(name, value)| format!("{name} {value}"));
                pairs.collect::<Vec<_>>().join(" ")
            }
            What::Workdir(path) => path.clone(),
            What::User(name) => name.clone(),
        };
        format!("{} {rest}", self.word())
    }

    fn texts(&self) -> Vec<&str> {
        match self {
            What::Run { command, user } => {
                let user = user.as_deref();
                [command.as_str()].into_iter().chain(user).collect()
            }
            What::Copy {
                source,
                target,
                owner,
                mode,
                files,
            } => {
                let more = [owner.as_deref(), mode.as_deref()].into_iter().flatten();
                let all = [source.as_str(), target, files].into_iter();
                all.chain(more).collect()
            }
            What::Env(pairs) => {
                let texts = pairs.iter().flat_map(|(name, value)| [name, value]);
                texts.map(String::as_str).collect()
            }
            What::Workdir(text) | What::User(text) => vec![text],
        }
    }
}

/// The names of bases that are there from the start, as in the spec of a sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BuiltIn {
    /// What E2B's clients call it.
    pub template: &'static str,
    /// What it is in the spec of a sandbox.
    pub profile: &'static str,
}

/// The base that is there from the start and that an image stands for; `None` for every other image. This is
/// the one place that knows images. Pure.
pub fn built_in(image: &str) -> Option<BuiltIn> {
    let hosts = ["docker.io/", "index.docker.io/", "registry-1.docker.io/"];
    let bare = hosts.iter().find_map(|host| image.strip_prefix(host));
    let bare = bare.unwrap_or(image);
    match bare.strip_suffix(":latest").unwrap_or(bare) {
        "base" | "e2bdev/base" | "base:default" => Some(BuiltIn {
            template: "base",
            profile: "default",
        }),
        "code-interpreter-v1" | "e2bdev/code-interpreter" | "code-interpreter-v1:default" => {
            Some(BuiltIn {
                template: "code-interpreter-v1",
                profile: crate::spec::CODE_INTERPRETER,
            })
        }
        _ => None,
    }
}

impl Recipe {
    /// Checks everything that can be said without carrying it out.
    ///
    /// # Errors
    /// All that is wrong, not only the first.
    pub fn validate(&self) -> Result<(), Vec<Invalid>> {
        let mut found = Findings::default();
        found.count("steps", self.instructions.len(), limits::RECIPE_STEPS_MAX);
        let base = match &self.base {
            Base::Image(text) => ("fromImage", text),
            Base::Profile(text) => ("fromTemplate", text),
        };
        check_text(
            base.0,
            base.1,
            limits::SNAPSHOT_NAME_BYTES_MAX * 4,
            &mut found,
        );
        for (number, one) in (1..).zip(&self.instructions) {
            check_instruction(number, &one.what, &mut found);
        }
        for (field, text) in [("startCmd", &self.start), ("readyCmd", &self.ready)] {
            if let Some(text) = text {
                check_text(field, text, limits::START_BYTES_MAX, &mut found);
            }
        }
        let texts = self.instructions.iter().flat_map(|one| one.what.texts());
        if texts.map(str::len).sum::<usize>() > limits::RECIPE_BYTES_MAX {
            let most = limits::RECIPE_BYTES_MAX;
            found.add(
                "steps",
                "too_long",
                format!("all steps have at most {most} bytes"),
            );
        }
        found.verdict()
    }
}

fn check_text(field: &str, text: &str, most: usize, found: &mut Findings) {
    if text.is_empty() {
        found.add(field, "invalid_argument", "must not be empty");
    } else if text.len() > most {
        found.add(field, "too_long", format!("has at most {most} bytes"));
    } else if text.contains('\0') {
        found.add(field, "nul_byte", "must not contain NUL");
    }
}

fn check_instruction(number: usize, what: &What, found: &mut Findings) {
    let field = format!("steps.{number}");
    let texts = what.texts();
    if texts.iter().map(|text| text.len()).sum::<usize>() > limits::RECIPE_STEP_BYTES_MAX {
        let most = limits::RECIPE_STEP_BYTES_MAX;
        found.add(
            &field,
            "too_long",
            format!("a step has at most {most} bytes"),
        );
    }
    if texts.iter().any(|text| text.contains('\0')) {
        found.add(&field, "nul_byte", "a step must not contain NUL");
    }
    match what {
        What::Run { command, .. } if command.is_empty() => {
            found.add(&field, "invalid_argument", "RUN needs a command");
        }
        What::Copy { source, target, .. } if source.is_empty() || target.is_empty() => {
            found.add(
                &field,
                "invalid_argument",
                "COPY needs a source and a target",
            );
        }
        What::Copy { files, .. } if !is_files_name(files) => {
            let message = "COPY needs the hash of its files, 64 hexadecimal digits";
            found.add(&field, "invalid_argument", message);
        }
        What::Copy {
            mode: Some(mode), ..
        } if !is_mode(mode) => {
            found.add(
                &field,
                "invalid_argument",
                "a mode is up to four octal digits",
            );
        }
        What::Copy {
            owner: Some(owner), ..
        } if !is_owner(owner) => {
            found.add(&field, "invalid_argument", "an owner is USER or USER:GROUP");
        }
        What::Env(pairs) => {
            found.count(&field, pairs.len(), limits::ENV_MAX);
            if !pairs.iter().all(|(name, _)| is_variable(name)) {
                let message = "a variable is named by letters, digits and `_`";
                found.add(&field, "env_name", message);
            }
        }
        What::Workdir(text) | What::User(text) if text.is_empty() => {
            found.add(&field, "invalid_argument", "WORKDIR and USER need a name");
        }
        What::Run { .. } | What::Copy { .. } | What::Workdir(_) | What::User(_) => {}
    }
}

/// Whether files that somebody sends can have this name: a SHA-256 of whatever the client took it of.
pub fn is_files_name(text: &str) -> bool {
    let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    text.len() == 64 && text.bytes().all(hex)
}

fn is_mode(text: &str) -> bool {
    (1..=4).contains(&text.len()) && text.bytes().all(|b| (b'0'..=b'7').contains(&b))
}

fn is_owner(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"_.-".contains(&b);
    let word = |word: &str| !word.is_empty() && word.len() <= 32 && word.bytes().all(plain);
    text.split(':').count() <= 2 && !text.starts_with('-') && text.split(':').all(word)
}

/// What a shell takes for the name of a variable.
fn is_variable(name: &str) -> bool {
    let first = name.bytes().next();
    first.is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && name.len() <= limits::NAME_BYTES_MAX
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// Checks what sandboxes of a profile are to have.
///
/// # Errors
/// All that is wrong, not only the first.
pub fn check_asked(asked: &AskedLimits) -> Result<(), Vec<Invalid>> {
    let mut found = Findings::default();
    check_limits(asked, &mut found);
    found.verdict()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recipe(what: What) -> Recipe {
        Recipe {
            base: Base::Image("base".to_owned()),
            instructions: vec![Instruction { what, fresh: false }],
            fresh: false,
            start: None,
            ready: None,
        }
    }

    fn copy(owner: Option<&str>, mode: Option<&str>, files: &str) -> What {
        What::Copy {
            source: "a".to_owned(),
            target: "b".to_owned(),
            owner: owner.map(str::to_owned),
            mode: mode.map(str::to_owned),
            files: files.to_owned(),
        }
    }

    fn run(command: &str) -> What {
        What::Run {
            command: command.to_owned(),
            user: None,
        }
    }

    #[test]
    fn only_images_that_are_there_are_taken() {
        for image in [
            "base",
            "e2bdev/base",
            "e2bdev/base:latest",
            "docker.io/e2bdev/base:latest",
        ] {
            assert_eq!(built_in(image).map(|base| base.template), Some("base"));
        }
        let code = built_in("e2bdev/code-interpreter:latest").unwrap();
        assert_eq!(code.profile, crate::spec::CODE_INTERPRETER);
        for image in [
            "",
            "ubuntu:22.04",
            "e2bdev/base:v1",
            "evil.example/base",
            "base/../base",
            "Base",
        ] {
            assert_eq!(built_in(image), None, "{image}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_recipe_is_said_with_its_place() {
        let hash = "a".repeat(64);
        let codes = |recipe: Recipe| -> Vec<(String, &str)> {
            let found = recipe.validate().err().unwrap_or_default();
            found.into_iter().map(|one| (one.field, one.code)).collect()
        };
        for fine in [
            run("true"),
            copy(None, None, &hash),
            copy(Some("user:www-data"), Some("0755"), &hash),
            What::Env(vec![("A_1".to_owned(), String::new())]),
            What::User("; exit 1".to_owned()),
        ] {
            assert_eq!(codes(recipe(fine)), []);
        }
        for (what, code) in [
            (run(""), "invalid_argument"),
            (run("a\0"), "nul_byte"),
            (
                run(&"a".repeat(limits::RECIPE_STEP_BYTES_MAX + 1)),
                "too_long",
            ),
            (copy(None, None, "../x"), "invalid_argument"),
            (copy(Some("$(id)"), None, &hash), "invalid_argument"),
            (copy(Some("-x"), None, &hash), "invalid_argument"),
            (copy(None, Some("u+x"), &hash), "invalid_argument"),
            (
                What::Env(vec![("A B".to_owned(), String::new())]),
                "env_name",
            ),
            (What::Workdir(String::new()), "invalid_argument"),
        ] {
            assert_eq!(
                codes(recipe(what.clone())),
                [("steps.1".to_owned(), code)],
                "{what:?}"
            );
        }
        let many = Recipe {
            instructions: vec![
                Instruction {
                    what: run("true"),
                    fresh: false
                };
                limits::RECIPE_STEPS_MAX + 1
            ],
            start: Some(String::new()),
            ..recipe(run("true"))
        };
        let found = codes(many);
        assert_eq!(
            found.iter().map(|(_, code)| *code).collect::<Vec<_>>(),
            ["too_many", "invalid_argument"]
        );
    }

    #[test]
    fn a_line_reads_as_people_write_it() {
        assert_eq!(run("ls -l").line(), "RUN ls -l");
        let env = What::Env(vec![("A".to_owned(), "Hello, World!".to_owned())]);
        assert_eq!(env.line(), "ENV A Hello, World!");
        assert_eq!(copy(None, None, "x").line(), "COPY a b");
    }
}
