//! The languages of contexts: which interpreter, how it starts, and how it is told what to run. Pure.

use super::super::failure::Failure;
use serde_json::json;
use std::collections::BTreeMap;

/// What a context speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Language {
    Python,
    Javascript,
    Typescript,
    Bash,
}

/// A program of ours reads its length, itself, and then one line for each execution. A shell is there
/// because Node cannot move its standard input out of the way of what it runs.
const NODE_START: &str =
    "exec node --expose-internals --no-warnings -e \"$0\" \"$1\" 3<&0 </dev/null";
const NODE_LOAD: &str = "{const fs=require('fs'),h=Buffer.alloc(8);fs.readSync(3,h);\
    const b=Buffer.alloc(+h);for(let n=0;n<b.length;)n+=fs.readSync(3,b,n,b.length-n);\
    new Function('require','language',b.toString())(require,process.argv[1])}";
const PYTHON_LOAD: &str = "import os\nn=int(os.read(0,8));b=b''\n\
    while len(b)<n:b+=os.read(0,n-len(b))\nexec(compile(b,'<context>','exec'),{'__name__':'context'})";

/// A shell at a terminal is what it takes itself for, because only that one drops what it does on SIGINT
/// and goes on with the next line. The first line makes it silent, and lets it say that it is ready.
const BASH_BEGIN: &str = "PS1= PS2= PROMPT_COMMAND=; set +H +m +o history; unset HISTFILE; \
    __cofferdam_exit() { return \"$1\"; }; printf '\"ready\"\\n' >&0\n";

impl Language {
    /// The language that a client means.
    ///
    /// # Errors
    /// For one that is not here, with those that are.
    pub(super) fn named(name: &str) -> Result<Language, Failure> {
        match name.trim().to_ascii_lowercase().as_str() {
            "" | "python" | "python3" => Ok(Language::Python),
            "javascript" | "js" => Ok(Language::Javascript),
            "typescript" | "ts" => Ok(Language::Typescript),
            "bash" => Ok(Language::Bash),
            _ => {
                let cut: String = name.chars().take(40).collect();
                let why = "a context speaks python, javascript, typescript or bash";
                Err(Failure::invalid(format!(
                    "there is no language '{cut}' here; {why}"
                )))
            }
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Language::Python => "python",
            Language::Javascript => "javascript",
            Language::Typescript => "typescript",
            Language::Bash => "bash",
        }
    }

    /// The interpreter.
    pub(super) fn program(self) -> &'static str {
        match self {
            Language::Python => "python3",
            Language::Javascript | Language::Typescript => "node",
            Language::Bash => "bash",
        }
    }

    pub(super) fn argv(self) -> Vec<String> {
        let argv: &[&str] = match self {
            Language::Python => &["python3", "-c", PYTHON_LOAD],
            Language::Javascript | Language::Typescript => {
                &["/bin/sh", "-c", NODE_START, NODE_LOAD, self.name()]
            }
            Language::Bash => &["bash", "--noprofile", "--norc", "--noediting", "-i"],
        };
        argv.iter().map(|word| (*word).to_owned()).collect()
    }

    /// What it is sent once.
    pub(super) fn begin(self) -> Vec<u8> {
        let program = match self {
            Language::Python => [include_str!("kernel.py"), include_str!("charts.py")].concat(),
            Language::Javascript | Language::Typescript => include_str!("kernel.cjs").to_owned(),
            Language::Bash => return BASH_BEGIN.into(),
        };
        [format!("{:08}", program.len()), program].concat().into()
    }

    /// What it is sent for each execution; `exit` is the code of the last one.
    pub(super) fn request(self, code: &str, env: &BTreeMap<String, String>, exit: i32) -> Vec<u8> {
        match self {
            Language::Python | Language::Javascript | Language::Typescript => {
                let mut line = json!({"code": code, "env": env}).to_string();
                line.push('\n');
                line.into()
            }
            Language::Bash => bash(code, env, exit).into(),
        }
    }

    /// Checks what a client wants to run.
    ///
    /// # Errors
    /// For code and variables that the language cannot have.
    pub(super) fn check(self, code: &str, env: &BTreeMap<String, String>) -> Result<(), Failure> {
        if self == Language::Bash && code.contains('\0') {
            return Err(Failure::invalid("code for bash has no zero bytes"));
        }
        for (name, value) in env {
            if !is_name(name) || value.contains('\0') {
                let cut: String = name.chars().take(40).collect();
                return Err(Failure::invalid(format!("'{cut}' cannot be a variable")));
            }
        }
        Ok(())
    }
}

/// Whether every language can have a variable of this name.
fn is_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    let first = bytes
        .next()
        .is_some_and(|first| first.is_ascii_alphabetic() || first == b'_');
    first && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// Lines for a shell. Each is a command of its own: what an interrupt drops is the one that runs, and
/// those after it still restore the variables and tell the end.
fn bash(code: &str, env: &BTreeMap<String, String>, exit: i32) -> String {
    let before = env.iter().map(|(name, value)| {
        let value = quoted(value);
        format!(
            "__cofferdam_had_{name}=${{{name}+x}} __cofferdam_was_{name}=${{{name}-}}; \
             export {name}={value}\n"
        )
    });
    let after = env.keys().map(|name| {
        format!(
            "if [ \"$__cofferdam_had_{name}\" ]; then export {name}=\"$__cofferdam_was_{name}\"; \
             else unset {name}; fi; unset __cofferdam_had_{name} __cofferdam_was_{name}\n"
        )
    });
    let code = quoted(code);
    let run = format!("__cofferdam_exit {exit}\neval {code} </dev/null\n__cofferdam_code=$?\n");
    let end = "printf '{\"end\":{\"exit\":%d}}\\n' \"$__cofferdam_code\" >&0\n";
    before
        .chain([run])
        .chain(after)
        .chain([end.to_owned()])
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn languages_have_the_names_that_clients_use_and_those_that_are_not_here_are_refused() {
        for (name, language) in [
            ("", Language::Python),
            (" Python ", Language::Python),
            ("js", Language::Javascript),
            ("ts", Language::Typescript),
            ("bash", Language::Bash),
        ] {
            assert_eq!(Language::named(name), Ok(language), "{name}");
        }
        let refused = Language::named("r").unwrap_err();
        assert!(refused.message.contains("there is no language 'r'"));
    }

    #[test]
    fn variables_have_names_that_no_shell_takes_for_anything_else() {
        let check = |name: &str, value: &str| {
            let env = BTreeMap::from([(name.to_owned(), value.to_owned())]);
            Language::Bash.check("", &env).is_ok()
        };
        assert!(check("A_1", "x'y"));
        for name in ["", "1A", "A=B", "A;reboot", "A B", "A\0"] {
            assert!(!check(name, "x"), "{name}");
        }
        assert!(!check("A", "\0"));
        assert!(Language::Bash.check("a\0b", &BTreeMap::new()).is_err());
    }

    #[test]
    fn a_shell_is_told_code_as_one_word() {
        let text = bash("echo 'a\nb'", &BTreeMap::new(), 3);
        assert!(
            text.starts_with("__cofferdam_exit 3\neval 'echo '\\''a\nb'\\''' </dev/null\n"),
            "{text}"
        );
    }
}
