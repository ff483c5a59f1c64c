//! What people type after `sudo`. Pure.

/// The options that are known, for people.
const USAGE: &str = "usage: sudo [-EHnk] [-u user] [VAR=value] [-i | -s] [command [argument]...]\n\
    sudo -v | -k | -V | -h\n\
    Inside a sandbox: no passwords, no rules, no groups, no other hosts.\n";

/// What a command line means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Options {
    /// Print this.
    Tell(String),
    /// There is nothing to do: a password is never asked for, so none is remembered.
    Nothing,
    /// Run a command.
    Run(Wanted),
}

/// A command, and how.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Wanted {
    /// As whom; root where nobody is named.
    pub(crate) user: Option<String>,
    /// All of the environment is kept.
    pub(crate) keep_env: bool,
    /// These variables of it are kept.
    pub(crate) keep: Vec<String>,
    /// `HOME` is the target's, even where the environment is kept.
    pub(crate) set_home: bool,
    /// The shell that it runs in.
    pub(crate) shell: Shell,
    /// Variables that are set.
    pub(crate) env: Vec<(String, String)>,
    /// The command with its arguments; none where a shell is wanted.
    pub(crate) command: Vec<String>,
}

/// Whether the command is given to a shell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Shell {
    /// It is not.
    #[default]
    None,
    /// To the caller's.
    Own,
    /// To the target's, as at a login.
    Login,
}

/// Reads a command line, without the program's own name.
pub(crate) fn parse(args: &[String]) -> Result<Options, String> {
    let mut reading = Reading::default();
    let mut rest = args.iter();
    let mut first = None;
    while let Some(arg) = rest.next() {
        if arg == "--" {
            break;
        }
        if let Some(long) = arg.strip_prefix("--") {
            reading.long(long, &mut rest)?;
        } else if let Some(letters) = arg.strip_prefix('-').filter(|letters| !letters.is_empty()) {
            reading.letters(letters, &mut rest)?;
        } else {
            first = Some(arg);
            break;
        }
        if let Some(text) = reading.tell.take() {
            return Ok(Options::Tell(text));
        }
    }
    let Reading { mut wanted, .. } = reading;
    for arg in first.into_iter().chain(rest) {
        match arg.split_once('=') {
            Some((name, value)) if wanted.command.is_empty() && is_variable(name) => {
                wanted.env.push((name.to_owned(), value.to_owned()));
            }
            _ => wanted.command.push(arg.clone()),
        }
    }
    match (wanted.command.is_empty(), wanted.shell, reading.nothing) {
        (true, Shell::None, true) => Ok(Options::Nothing),
        (true, Shell::None, false) => Err(format!("there is no command\n{}", USAGE.trim_end())),
        _ => Ok(Options::Run(wanted)),
    }
}

/// What was read so far.
#[derive(Debug, Default)]
struct Reading {
    wanted: Wanted,
    /// An option was there that does something without a command.
    nothing: bool,
    tell: Option<String>,
}

impl Reading {
    fn long(&mut self, long: &str, rest: &mut std::slice::Iter<'_, String>) -> Result<(), String> {
        let (name, value) = match long.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (long, None),
        };
        match (name, value) {
            ("user", Some(user)) => self.wanted.user = Some(user.to_owned()),
            ("preserve-env", Some(list)) => {
                let names = list.split(',').map(str::to_owned);
                self.wanted.keep.extend(names);
            }
            ("user", None) => self.wanted.user = Some(needed("--user", rest.next())?),
            ("preserve-env", None) => self.wanted.keep_env = true,
            ("non-interactive", None) => {}
            ("set-home", None) => self.wanted.set_home = true,
            ("login", None) => self.wanted.shell = Shell::Login,
            ("shell", None) => self.wanted.shell = Shell::Own,
            ("validate" | "reset-timestamp" | "remove-timestamp", None) => self.nothing = true,
            ("help", None) => self.tell = Some(USAGE.to_owned()),
            ("version", None) => self.tell = Some(version()),
            _ => return Err(unknown(&format!("--{long}"))),
        }
        Ok(())
    }

    fn letters(
        &mut self,
        letters: &str,
        rest: &mut std::slice::Iter<'_, String>,
    ) -> Result<(), String> {
        for (at, letter) in letters.char_indices() {
            match letter {
                'u' => {
                    let joined = letters.get(at + 1..).filter(|user| !user.is_empty());
                    self.wanted.user = Some(match joined {
                        Some(user) => user.to_owned(),
                        None => needed("-u", rest.next())?,
                    });
                    break;
                }
                'E' => self.wanted.keep_env = true,
                'H' => self.wanted.set_home = true,
                'n' => {}
                'i' => self.wanted.shell = Shell::Login,
                's' => self.wanted.shell = Shell::Own,
                'v' | 'k' | 'K' => self.nothing = true,
                'h' => self.tell = Some(USAGE.to_owned()),
                'V' => self.tell = Some(version()),
                _ => return Err(unknown(&format!("-{letter}"))),
            }
        }
        Ok(())
    }
}

fn needed(option: &str, value: Option<&String>) -> Result<String, String> {
    value
        .cloned()
        .ok_or_else(|| format!("{option} needs a user"))
}

fn unknown(option: &str) -> String {
    format!(
        "{option} is no option of the sudo of a sandbox\n{}",
        USAGE.trim_end()
    )
}

fn version() -> String {
    format!(
        "sudo of a Cofferdam sandbox {}\n",
        env!("CARGO_PKG_VERSION")
    )
}

fn is_variable(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes
        .next()
        .is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(line: &str) -> Wanted {
        let args: Vec<String> = line.split(' ').map(str::to_owned).collect();
        let Options::Run(wanted) = parse(&args).unwrap() else {
            panic!("{line} runs nothing")
        };
        wanted
    }

    #[test]
    fn what_people_type_means_what_they_mean() {
        let plain = run("apt-get install -y x");
        assert_eq!(plain.command, ["apt-get", "install", "-y", "x"]);
        let set = run("-nE DEBIAN_FRONTEND=noninteractive apt-get a=b");
        assert!(set.keep_env);
        assert_eq!(
            set.env,
            [("DEBIAN_FRONTEND".to_owned(), "noninteractive".to_owned())]
        );
        assert_eq!(set.command, ["apt-get", "a=b"]);
        for line in [
            "-u bob id",
            "-ubob id",
            "-Hu bob id",
            "--user=bob id",
            "--user bob -- id",
        ] {
            assert_eq!(run(line).user.as_deref(), Some("bob"), "{line}");
            assert_eq!(run(line).command, ["id"], "{line}");
        }
        assert_eq!(run("-i").shell, Shell::Login);
        assert_eq!(run("-s ls").shell, Shell::Own);
        assert_eq!(run("--preserve-env=A,B id").keep, ["A", "B"]);
        assert_eq!(run("-- -x").command, ["-x"]);
    }

    #[test]
    fn what_asks_for_nothing_does_nothing_and_what_is_unknown_is_said() {
        let parse = |line: &str| parse(&[line.to_owned()]);
        for line in ["-v", "-k", "-kn", "--validate"] {
            assert_eq!(parse(line), Ok(Options::Nothing), "{line}");
        }
        for line in ["-S", "-l", "-g", "--group=x", "-b", "-", "-u", "--stdin"] {
            let refused = parse(line);
            assert!(refused.is_err() || line == "-", "{line}: {refused:?}");
        }
        assert!(super::parse(&[]).is_err());
    }
}
