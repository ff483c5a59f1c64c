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
    let mut wanted = Wanted::default();
    let (mut validate, mut forget) = (false, false);
    let mut rest = args.iter();
    let mut first = None;
    while let Some(arg) = rest.next() {
        if arg == "--" {
            break;
        }
        if let Some(long) = arg.strip_prefix("--") {
            let (name, value) = long
                .split_once('=')
                .map_or((long, None), |(n, v)| (n, Some(v)));
            match (name, value) {
                ("user", Some(user)) => wanted.user = Some(user.to_owned()),
                ("preserve-env", Some(list)) => {
                    wanted.keep.extend(list.split(',').map(str::to_owned));
                }
                ("user", None) => wanted.user = Some(needed("--user", rest.next())?),
                ("preserve-env", None) => wanted.keep_env = true,
                ("non-interactive", None) => {}
                ("set-home", None) => wanted.set_home = true,
                ("login", None) => wanted.shell = Shell::Login,
                ("shell", None) => wanted.shell = Shell::Own,
                ("validate", None) => validate = true,
                ("reset-timestamp" | "remove-timestamp", None) => forget = true,
                ("help", None) => return Ok(Options::Tell(USAGE.to_owned())),
                ("version", None) => return Ok(Options::Tell(version())),
                _ => return Err(unknown(arg)),
            }
            continue;
        }
        let Some(letters) = arg.strip_prefix('-').filter(|letters| !letters.is_empty()) else {
            first = Some(arg);
            break;
        };
        for (at, letter) in letters.char_indices() {
            match letter {
                'u' => {
                    let joined = letters.get(at + 1..).filter(|user| !user.is_empty());
                    wanted.user = Some(match joined {
                        Some(user) => user.to_owned(),
                        None => needed("-u", rest.next())?,
                    });
                    break;
                }
                'E' => wanted.keep_env = true,
                'H' => wanted.set_home = true,
                'n' => {}
                'i' => wanted.shell = Shell::Login,
                's' => wanted.shell = Shell::Own,
                'v' => validate = true,
                'k' | 'K' => forget = true,
                'h' => return Ok(Options::Tell(USAGE.to_owned())),
                'V' => return Ok(Options::Tell(version())),
                _ => return Err(unknown(&format!("-{letter}"))),
            }
        }
    }
    for arg in first.into_iter().chain(rest) {
        match arg.split_once('=') {
            Some((name, value)) if wanted.command.is_empty() && is_variable(name) => {
                wanted.env.push((name.to_owned(), value.to_owned()));
            }
            _ => wanted.command.push(arg.clone()),
        }
    }
    if wanted.command.is_empty() && wanted.shell == Shell::None {
        return if validate || forget {
            Ok(Options::Nothing)
        } else {
            Err(format!("there is no command\n{}", USAGE.trim_end()))
        };
    }
    Ok(Options::Run(wanted))
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
        match parse(&args).unwrap() {
            Options::Run(wanted) => wanted,
            other => panic!("{other:?}"),
        }
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
