//! As root: becoming whoever was asked for, and the command.

use crate::options::{Shell, Wanted};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};

/// Where root's commands are looked for, whatever the caller's path says.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Variables of the caller that every command gets: the terminal, the language, and how to reach the
/// network and packages, which in a sandbox is by its proxy alone.
const KEPT: [&str; 36] = [
    "ALL_PROXY",
    "COLORTERM",
    "CURL_CA_BUNDLE",
    "FTP_PROXY",
    "GIT_SSL_CAINFO",
    "HTTPS_PROXY",
    "HTTP_PROXY",
    "LANG",
    "LANGUAGE",
    "NODE_EXTRA_CA_CERTS",
    "NO_PROXY",
    "NPM_CONFIG_REGISTRY",
    "PDM_PYPI_URL",
    "PIP_DISABLE_PIP_VERSION_CHECK",
    "PIP_INDEX_URL",
    "PIP_TRUSTED_HOST",
    "REQUESTS_CA_BUNDLE",
    "SSL_CERT_DIR",
    "SSL_CERT_FILE",
    "SUDO_GID",
    "SUDO_UID",
    "TERM",
    "TZ",
    "UV_DEFAULT_INDEX",
    "UV_INDEX_URL",
    "UV_INSECURE_HOST",
    "YARN_NPM_REGISTRY_SERVER",
    "YARN_UNSAFE_HTTP_WHITELIST",
    "all_proxy",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "npm_config_audit",
    "npm_config_fund",
    "npm_config_registry",
    "npm_config_update_notifier",
];

/// Lines of `/etc/passwd` and `/etc/group` that are looked at: root inside can make them as long as he likes.
const FILE_MAX: u64 = 1 << 20;

/// A user of the sandbox, by a line of `passwd(5)`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct User {
    name: String,
    uid: u32,
    gid: u32,
    home: String,
    shell: String,
}

/// Returns only when it could not.
pub(crate) fn run(wanted: &Wanted) -> Result<ExitCode, String> {
    let name = wanted.user.as_deref().unwrap_or("root");
    let user = find(&read("/etc/passwd"), name)?;
    let (program, arg0, args) = command_line(wanted, &user);
    let mut command = prepare(&program);
    command
        .args(args)
        .env_clear()
        .envs(environment(wanted, &user));
    command.arg0(arg0);
    if wanted.shell == Shell::Login {
        command.current_dir(&user.home);
    }
    if user.uid != 0 {
        become_user(&user, &groups_of(&read("/etc/group"), &user))?;
    }
    let error = command.exec();
    if error.kind() == std::io::ErrorKind::NotFound {
        return Err(format!("{program}: command not found"));
    }
    Err(format!("{program}: {error}"))
}

#[expect(
    clippy::disallowed_methods,
    reason = "it becomes the command; the environment is cleared and the streams are the caller's"
)]
fn prepare(program: &str) -> Command {
    Command::new(program)
}

fn read(path: &str) -> String {
    use std::io::Read as _;
    let mut text = Vec::new();
    if let Ok(file) = std::fs::File::open(path) {
        // What was read before an error is what there is.
        drop(file.take(FILE_MAX).read_to_end(&mut text));
    }
    String::from_utf8_lossy(&text).into_owned()
}

/// The user of this name, or `#` and number.
fn find(passwd: &str, name: &str) -> Result<User, String> {
    let number = name.strip_prefix('#').and_then(|n| n.parse::<u32>().ok());
    let parse = |line: &str| {
        let fields: Vec<&str> = line.split(':').collect();
        let [name, _, uid, gid, _, home, shell] = fields.as_slice() else {
            return None;
        };
        Some(User {
            name: (*name).to_owned(),
            uid: uid.parse().ok()?,
            gid: gid.parse().ok()?,
            home: (*home).to_owned(),
            shell: match *shell {
                "" => "/bin/sh".to_owned(),
                shell => shell.to_owned(),
            },
        })
    };
    let mut users = passwd.lines().filter_map(parse);
    let found = users.find(|user| user.name == name || Some(user.uid) == number);
    found.ok_or_else(|| format!("unknown user {name}"))
}

/// The groups that `group(5)` says he is in.
fn groups_of(group: &str, user: &User) -> Vec<u32> {
    let parse = |line: &str| {
        let fields: Vec<&str> = line.split(':').collect();
        let [_, _, gid, members] = fields.as_slice() else {
            return None;
        };
        let gid: u32 = gid.parse().ok()?;
        members
            .split(',')
            .any(|name| name == user.name)
            .then_some(gid)
    };
    let mut groups = vec![user.gid];
    groups.extend(
        group
            .lines()
            .filter_map(parse)
            .filter(|gid| *gid != user.gid)
            .take(31),
    );
    groups
}

/// The program, what it is told that it is, and its arguments.
fn command_line(wanted: &Wanted, user: &User) -> (String, String, Vec<String>) {
    let shell = match wanted.shell {
        Shell::None => None,
        Shell::Login => Some(user.shell.clone()),
        Shell::Own => {
            let own = std::env::var("SHELL")
                .ok()
                .filter(|shell| !shell.is_empty());
            Some(own.unwrap_or_else(|| user.shell.clone()))
        }
    };
    let Some(shell) = shell else {
        let (program, args) = wanted.command.split_first().unzip();
        let program: String = program.cloned().unwrap_or_default();
        return (program.clone(), program, args.unwrap_or_default().to_vec());
    };
    let base = shell.rsplit('/').next().unwrap_or_default();
    let arg0 = match wanted.shell {
        Shell::Login => format!("-{base}"),
        Shell::None | Shell::Own => base.to_owned(),
    };
    let mut args = Vec::new();
    if !wanted.command.is_empty() {
        let words: Vec<String> = wanted.command.iter().map(|word| quote(word)).collect();
        args = vec!["-c".to_owned(), words.join(" ")];
    }
    (shell, arg0, args)
}

/// A word that a shell reads as it is. A dollar is left to it, as `sudo(8)` does.
fn quote(word: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "_-$".contains(c);
    let mut quoted = String::new();
    for c in word.chars() {
        if !plain(c) {
            quoted.push('\\');
        }
        quoted.push(c);
    }
    if quoted.is_empty() {
        quoted.push_str("''");
    }
    quoted
}

fn environment(wanted: &Wanted, user: &User) -> Vec<(String, String)> {
    let kept = |name: &str| {
        wanted.keep_env
            || KEPT.contains(&name)
            || name.starts_with("LC_")
            || wanted.keep.iter().any(|one| one == name)
    };
    let own = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    let mut env: Vec<(String, String)> = own.filter(|(name, _)| kept(name)).collect();
    let mut set = |name: &str, value: &str| {
        env.retain(|(other, _)| other != name);
        env.push((name.to_owned(), value.to_owned()));
    };
    let keeps_home = wanted.keep_env && !wanted.set_home && wanted.shell != Shell::Login;
    if !keeps_home || std::env::var_os("HOME").is_none() {
        set("HOME", &user.home);
    }
    for (name, value) in [
        ("USER", user.name.as_str()),
        ("LOGNAME", &user.name),
        ("SHELL", &user.shell),
        ("PATH", PATH),
        ("SUDO_COMMAND", &wanted.command.join(" ")),
    ] {
        set(name, value);
    }
    let caller = std::env::var("SUDO_UID").unwrap_or_else(|_| "0".to_owned());
    let caller = find(&read("/etc/passwd"), &format!("#{caller}"));
    set(
        "SUDO_USER",
        &caller.map_or_else(|_| "root".to_owned(), |caller| caller.name),
    );
    for (name, value) in &wanted.env {
        set(name, value);
    }
    env
}

#[expect(unsafe_code, reason = "raw identity calls")]
fn become_user(user: &User, groups: &[u32]) -> Result<(), String> {
    let failed = |what: &str| format!("{what}: {}", std::io::Error::last_os_error());
    // SAFETY: the list is as long as is said and outlives the call.
    // JUSTIFICATION: this process has one thread; there is no safe way to leave an identity.
    if unsafe { libc::setgroups(groups.len(), groups.as_ptr()) } != 0 {
        return Err(failed("setgroups"));
    }
    // SAFETY: integers only.
    if unsafe { libc::setresgid(user.gid, user.gid, user.gid) } != 0 {
        return Err(failed("setgid"));
    }
    // SAFETY: integers only.
    if unsafe { libc::setresuid(user.uid, user.uid, user.uid) } != 0 {
        return Err(failed("setuid"));
    }
    if rustix::process::geteuid().as_raw() == user.uid {
        Ok(())
    } else {
        Err("the user was not reached".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/bash\nbroken\nbob:x:1001:1002::/home/bob:\n";

    #[test]
    fn a_user_is_found_by_name_and_by_number_and_a_broken_line_is_passed_over() {
        let bob = find(PASSWD, "bob").unwrap();
        assert_eq!((bob.uid, bob.gid, &*bob.shell), (1001, 1002, "/bin/sh"));
        assert_eq!(find(PASSWD, "#1001"), Ok(bob.clone()));
        assert!(find(PASSWD, "broken").is_err() && find(PASSWD, "#7").is_err());
        let groups = "sudo:x:27:alice,bob\nbob:x:1002:\nother:x:5:bobby\n";
        assert_eq!(groups_of(groups, &bob), [1002, 27]);
    }

    #[test]
    fn words_reach_a_shell_as_they_are() {
        assert_eq!(quote("a b;c"), "a\\ b\\;c");
        assert_eq!(quote(""), "''");
        assert_eq!(quote("$HOME"), "$HOME");
    }
}
