//! What this machine can enforce, read once. The probe only looks; plans are made from what it found.

use rustix::fs::{AtFlags, CWD};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Something in a directory of a root file system, as the tree of a sandbox shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// A directory.
    Directory,
    /// A file.
    File,
    /// A link, and what it says.
    Link(String),
}

/// Where control groups are made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cgroups {
    /// One hierarchy for each controller: the directory below which each sandbox gets a group.
    V1 {
        /// By controller: `memory`, `pids`, `cpu`.
        controllers: BTreeMap<String, PathBuf>,
    },
    /// The unified hierarchy.
    V2 {
        /// The directory below which each sandbox gets a group.
        base: PathBuf,
        /// Controllers that may be used there.
        controllers: Vec<String>,
    },
    /// None that we may write, and why.
    None {
        /// For a person.
        why: String,
    },
}

/// How this process may map ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ids {
    /// It is root and maps any.
    Root,
    /// It is an ordinary user with a range of subordinate ids and the tools to use them.
    Subordinate {
        /// First user id of the range.
        uid: u32,
        /// First group id of the range.
        gid: u32,
        /// How many of both.
        count: u32,
    },
    /// It is an ordinary user and maps only itself.
    Single,
}

/// The machine as a plan sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// The effective user id of this process.
    pub uid: u32,
    /// The effective group id of this process.
    pub gid: u32,
    /// How ids are mapped.
    pub ids: Ids,
    /// Where limits on memory, processes and processor time are set.
    pub cgroups: Cgroups,
    /// Landlock's ABI, 0 where there is none.
    pub landlock_abi: u32,
    /// Why user namespaces cannot be made, where they cannot.
    pub no_user_namespaces: Option<String>,
    /// Memory of the machine in bytes.
    pub memory_bytes: u64,
    /// Processors that this process may use.
    pub cpus: u32,
    /// Hard limit of open files, which nobody here can raise.
    pub open_files_max: u64,
    /// Why no sandbox can have a root that can be written, where none can.
    pub no_writable_root: Option<String>,
    /// Why no sandbox can have a TUN device, where none can: its programs must know the proxy then.
    pub no_tun: Option<String>,
    /// Why no volume can be kept here, where none can.
    pub no_volumes: Option<String>,
    /// The host's own file system, of which a sandbox may see the programs.
    pub root: Root,
    /// Which device files exist, see [`DEVICES`].
    pub devices: Vec<String>,
}

/// A root file system, as far as a plan needs to know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Root {
    /// The directory on the host.
    pub path: PathBuf,
    /// It is the host's own, of which only what is listed is shown.
    pub is_host: bool,
    /// What is at its top, of what a sandbox sees.
    pub top: BTreeMap<String, Entry>,
    /// What is below its `/etc`, of what a sandbox sees.
    pub etc: BTreeMap<String, Entry>,
    /// What of its `/etc` a sandbox sees beside that where it can change its own copy of it.
    pub etc_more: BTreeMap<String, Entry>,
    /// Directories below its `/var` that say which packages are installed.
    pub var: Vec<String>,
    /// Users of its own that no person is, as lines of `passwd(5)`: its packages say that files are theirs.
    pub users: Vec<String>,
    /// Groups of that kind, without their members, as lines of `group(5)`.
    pub groups: Vec<String>,
    /// Nothing is mounted below those of its directories that a sandbox sees.
    pub is_one_file_system: bool,
    /// It has a `python3` and nothing by the name of `python`, which scripts of agents ask for.
    pub lacks_python: bool,
    /// An operator has given it a name; then all of it is shown, where overlays can be had.
    pub given: Option<crate::root::Given>,
}

/// The most entries of a directory that are looked at; a root with more at its top is none.
const ENTRIES_MAX: usize = 1024;

/// What a sandbox brings itself, so it is not taken from a root.
const OWN: [&str; 9] = [
    "dev", "etc", "home", "proc", "root", "run", "sys", "tmp", "var",
];

impl Root {
    /// The host's own.
    pub fn host() -> Root {
        let path = PathBuf::from("/");
        let top = pick(&path, &TOP);
        let etc = pick(Path::new("/etc"), &ETC);
        Root {
            is_host: true,
            etc_more: pick(Path::new("/etc"), &ETC_MORE),
            ..Root::of(path, top, etc)
        }
    }

    fn of(path: PathBuf, top: BTreeMap<String, Entry>, etc: BTreeMap<String, Entry>) -> Root {
        // Each part: one that is a link leads out of the root.
        let directory = |name: &&&str| {
            let parts = ["var", "var/lib"].into_iter().map(|part| path.join(part));
            let mut all = parts.chain([path.join("var").join(name)]);
            all.all(|path| entry(&path) == Some(Entry::Directory))
        };
        let var = VAR.iter().filter(directory).map(|name| (*name).to_owned());
        let var: Vec<String> = var.collect();
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let shown = top.keys().map(|name| path.join(name));
        let shown: Vec<PathBuf> = shown
            .chain(var.iter().map(|name| path.join("var").join(name)))
            .collect();
        let has = |program: &str| entry(&path.join("usr").join(program)).is_some();
        Root {
            is_one_file_system: !mounted_below(&mounts, &shown),
            lacks_python: has("bin/python3") && !has("bin/python") && !has("local/bin/python"),
            users: system_lines(&path, "etc/passwd", 7),
            groups: system_lines(&path, "etc/group", 4),
            path,
            is_host: false,
            top,
            etc,
            etc_more: BTreeMap::new(),
            var,
            given: None,
        }
    }

    /// One in a directory.
    ///
    /// # Errors
    /// Those of reading the directory; `InvalidData` for one with too many entries.
    pub fn read(path: &Path) -> std::io::Result<Root> {
        let path = std::fs::canonicalize(path)?;
        // Not a root file system that somebody prepared, but the host with all that is people's own.
        if path == Path::new("/") {
            return Ok(Root::host());
        }
        let mut top = entries(&path)?;
        top.retain(|name, _| !OWN.contains(&name.as_str()));
        let etc = path.join("etc");
        // Through a link, another's would be shown.
        let etc = match entry(&etc) {
            Some(Entry::Directory) => entries(&etc)?,
            _ => BTreeMap::new(),
        };
        Ok(Root::of(path, top, etc))
    }
}

/// Users or groups that are taken over from a root, and the longest line of one. A distribution has some
/// forty.
const SYSTEM_MAX: usize = 100;
const SYSTEM_LINE_MAX: usize = 100;
/// What is read of a file of users; people's lines, of which a company has thousands, are passed over.
const USERS_BYTES_MAX: u64 = 16 << 20;

/// The first id of a person, in every distribution that we know of (`login.defs(5)`).
const PEOPLE: u32 = 1000;

/// Lines of so many fields whose id, the third, is no person's and not root's.
fn system_lines(root: &Path, file: &str, fields: usize) -> Vec<String> {
    let text = crate::root::read_plain(root, file, USERS_BYTES_MAX).unwrap_or_default();
    let keep = |line: &str| -> Option<String> {
        let mut parts: Vec<&str> = line.split(':').collect();
        let id: u32 = parts.get(2)?.parse().ok()?;
        let usual = parts.len() == fields && line.len() <= SYSTEM_LINE_MAX;
        // A password or its place is not taken over, nor who is in a group.
        *parts.get_mut(1)? = "x";
        if fields == 4 {
            *parts.get_mut(3)? = "";
        }
        (usual && (1..PEOPLE).contains(&id)).then(|| parts.join(":"))
    };
    text.lines().filter_map(keep).take(SYSTEM_MAX).collect()
}

/// Whether something is mounted below one of these directories, by the text of `mountinfo`
/// (`proc_pid_mountinfo(5)`).
pub(crate) fn mounted_below(mounts: &str, directories: &[PathBuf]) -> bool {
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(4));
    // A blank in a name is written as three digits, as are three other bytes.
    let mut points = points.map(|point| point.replace("\\040", " ").replace("\\134", "\\"));
    points.any(|point| {
        let point = Path::new(&point);
        directories
            .iter()
            .any(|dir| point != dir && point.starts_with(dir))
    })
}

fn pick(directory: &Path, names: &[&str]) -> BTreeMap<String, Entry> {
    let found = |name: &&str| Some(((*name).to_owned(), entry(&directory.join(name))?));
    names.iter().filter_map(found).collect()
}

fn entries(directory: &Path) -> std::io::Result<BTreeMap<String, Entry>> {
    let mut found = BTreeMap::new();
    for each in std::fs::read_dir(directory)? {
        let each = each?;
        // A name that is no text, or starts with a dot, is nothing that a program looks for here.
        let Ok(name) = each.file_name().into_string() else {
            continue;
        };
        if let (false, Some(entry)) = (name.starts_with('.'), entry(&each.path())) {
            found.insert(name, entry);
        }
        if found.len() > ENTRIES_MAX {
            return Err(std::io::Error::from(std::io::ErrorKind::InvalidData));
        }
    }
    Ok(found)
}

/// Directories at the top that hold programs, libraries and their data, and no person's files. Of Nix only
/// the store: its daemon listens beside it, and a read-only mount is no obstacle to a connection.
pub const TOP: [&str; 9] = [
    "bin",
    "lib",
    "lib32",
    "lib64",
    "libx32",
    "opt",
    "sbin",
    "usr",
    "nix/store",
];

/// Files and directories below `/etc` without which programs do not start or do not find their parts.
/// None of them holds a secret: keys below `ssl/private` keep their owner, whom no sandbox maps.
pub const ETC: [&str; 19] = [
    "alternatives",
    "ca-certificates",
    "ca-certificates.conf",
    "fonts",
    "java",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "localtime",
    "locale.alias",
    "mime.types",
    "perl",
    "python3",
    "python3.10",
    "python3.11",
    "python3.12",
    "python3.13",
    "python3.14",
    "ssl",
];

/// What else of the host's `/etc` is copied for a sandbox that can change it: what package managers, shells
/// and tools for users look for. Nothing of it that not everybody may read; of `apt` not where its
/// passwords belong.
pub const ETC_MORE: [&str; 36] = [
    "adduser.conf",
    "apt/apt.conf.d",
    "apt/keyrings",
    "apt/preferences.d",
    "apt/sources.list",
    "apt/sources.list.d",
    "apt/trusted.gpg.d",
    "bash.bashrc",
    "debconf.conf",
    "debian_version",
    "default/locale",
    "default/useradd",
    "deluser.conf",
    "dpkg",
    "fedora-release",
    "gai.conf",
    "host.conf",
    "inputrc",
    "issue",
    "locale.gen",
    "login.defs",
    "networks",
    "os-release",
    "pacman.conf",
    "pam.conf",
    "pam.d",
    "protocols",
    "redhat-release",
    "rpc",
    "rpm",
    "services",
    "shells",
    "skel",
    "terminfo",
    "timezone",
    "ucf.conf",
];

/// Where package managers keep what is installed, below `/var`.
pub const VAR: [&str; 3] = ["lib/dpkg", "lib/pacman", "lib/rpm"];

/// Device files that a sandbox has. None of them leads to hardware.
pub const DEVICES: [&str; 5] = ["null", "zero", "full", "random", "urandom"];

impl Host {
    /// Looks at the machine. Never fails: what cannot be read is not there.
    pub fn probe() -> Host {
        let mut host = Host::probe_for_jobs();
        if host.ids == Ids::Root && host.no_user_namespaces.is_none() {
            host.no_writable_root = crate::linux::no_writable_root();
            host.no_volumes = crate::linux::no_volumes();
        }
        host
    }

    /// The same without a trial whether a root can be written, which takes some milliseconds and matters only
    /// to sandboxes that live on.
    pub fn probe_for_jobs() -> Host {
        let (uid, gid) = (
            rustix::process::geteuid().as_raw(),
            rustix::process::getegid().as_raw(),
        );
        Host {
            uid,
            gid,
            ids: ids(uid),
            cgroups: crate::cgroup::find(uid),
            landlock_abi: landlock_abi(),
            no_user_namespaces: no_user_namespaces(uid),
            memory_bytes: memory_bytes(),
            cpus: std::thread::available_parallelism()
                .map_or(1, |n| u32::try_from(n.get()).unwrap_or(1)),
            open_files_max: rustix::process::getrlimit(rustix::process::Resource::Nofile)
                .maximum
                .unwrap_or(1 << 20),
            no_writable_root: Some("nobody has tried whether one can be made".to_owned()),
            no_tun: no_tun(),
            no_volumes: Some("the node is not root, and only root mounts a file system".to_owned()),
            root: Root::host(),
            devices: existing("/dev", &DEVICES),
        }
    }
}

/// What is at `path`, links not followed.
fn entry(path: &Path) -> Option<Entry> {
    let meta = std::fs::symlink_metadata(path).ok()?;
    if meta.is_symlink() {
        let to = std::fs::read_link(path).ok()?;
        return to.into_os_string().into_string().ok().map(Entry::Link);
    }
    let file = meta.is_file().then_some(Entry::File);
    if meta.is_dir() {
        Some(Entry::Directory)
    } else {
        file
    }
}

fn existing(directory: &str, names: &[&str]) -> Vec<String> {
    let there = |name: &&&str| {
        rustix::fs::statat(CWD, format!("{directory}/{name}"), AtFlags::empty()).is_ok()
    };
    names
        .iter()
        .filter(there)
        .map(|name| (*name).to_owned())
        .collect()
}

fn memory_bytes() -> u64 {
    let info = rustix::system::sysinfo();
    u64::from(info.mem_unit) * info.totalram
}

fn landlock_abi() -> u32 {
    crate::sys::landlock_abi()
}

impl Host {
    /// How a sandbox has its network here, with a way out or without. Whoever brings lines to the outside adds
    /// to this.
    pub fn network(&self, way_out: bool) -> String {
        let namespace = "network namespace";
        match (way_out, &self.no_tun) {
            (false, _) => namespace.to_owned(),
            (true, None) => format!("{namespace}, TUN device, DNS inside"),
            (true, Some(why)) => {
                format!("{namespace}, only for programs that know a proxy ({why})")
            }
        }
    }
}

/// The device file of TUN devices. It must be one that this process may open: the launcher, which opens it anew
/// in each sandbox, is no other user. That it opens says that the kernel has the driver, too.
pub const TUN: &str = "/dev/net/tun";

fn no_tun() -> Option<String> {
    let opened = std::fs::OpenOptions::new().read(true).write(true).open(TUN);
    opened.err().map(|error| format!("{TUN}: {error}"))
}

/// Root needs no permission; others are refused by the settings that distributions have for it.
fn no_user_namespaces(uid: u32) -> Option<String> {
    let read = |path: &str| {
        std::fs::read_to_string(path)
            .ok()
            .map(|text| text.trim().to_owned())
    };
    if read("/proc/sys/user/max_user_namespaces").as_deref() == Some("0") {
        return Some("the sysctl user.max_user_namespaces is 0".to_owned());
    }
    if uid == 0 {
        return None;
    }
    if read("/proc/sys/kernel/unprivileged_userns_clone").as_deref() == Some("0") {
        return Some("the sysctl kernel.unprivileged_userns_clone is 0".to_owned());
    }
    let restricted = "/proc/sys/kernel/apparmor_restrict_unprivileged_userns";
    if read(restricted).as_deref() == Some("1") {
        let why = "AppArmor restricts user namespaces of ordinary users (the sysctl \
                   kernel.apparmor_restrict_unprivileged_userns is 1)";
        return Some(why.to_owned());
    }
    None
}

fn ids(uid: u32) -> Ids {
    if uid == 0 {
        return Ids::Root;
    }
    let tools = ["newuidmap", "newgidmap"]
        .iter()
        .all(|tool| find_program(tool).is_some());
    let name = user_name(uid).unwrap_or_default();
    let range = |file: &str| subordinate(&std::fs::read_to_string(file).ok()?, &name, uid);
    match (tools, range("/etc/subuid"), range("/etc/subgid")) {
        (true, Some((first_uid, n)), Some((first_gid, m))) if n.min(m) >= IDS_NEEDED => {
            Ids::Subordinate {
                uid: first_uid,
                gid: first_gid,
                count: n.min(m),
            }
        }
        _ => Ids::Single,
    }
}

/// Root and the user of a sandbox, and everything below, so that archives unpack as they were.
pub const IDS_NEEDED: u32 = 65536;

/// The first range of a user in the text of `/etc/subuid` or `/etc/subgid` (see `subuid(5)`).
fn subordinate(text: &str, name: &str, uid: u32) -> Option<(u32, u32)> {
    text.lines().find_map(|line| {
        let mut parts = line.trim().split(':');
        let owner = parts.next()?;
        let ours = (owner == name && !name.is_empty()) || owner.parse() == Ok(uid);
        let range = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        ours.then_some(range)
    })
}

fn user_name(uid: u32) -> Option<String> {
    let text = std::fs::read_to_string("/etc/passwd").ok()?;
    text.lines().find_map(|line| {
        let mut parts = line.split(':');
        let name = parts.next()?;
        (parts.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    })
}

/// A program of the system, wherever distributions put those that are not for everyday use.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let dirs = ["/usr/bin", "/bin", "/usr/sbin", "/sbin", "/usr/local/bin"];
    dirs.iter()
        .map(|dir| Path::new(dir).join(name))
        .find(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subordinate_range_is_found_by_name_and_by_number() {
        let text = "alice:100000:65536\n1001:200000:65536\nbroken\n";
        assert_eq!(subordinate(text, "alice", 1000), Some((100_000, 65536)));
        assert_eq!(subordinate(text, "bob", 1001), Some((200_000, 65536)));
        assert_eq!(subordinate(text, "", 7), None);
    }

    #[test]
    fn of_users_and_groups_only_those_of_the_system_are_taken_over() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("group");
        let text = "root:x:0:\nbin:x:2:alice,bob\nalice:x:1000:\nbad\nlong:x:3:more:than:four\n";
        std::fs::write(&file, text).unwrap();
        assert_eq!(system_lines(dir.path(), "group", 4), ["bin:x:2:"]);
        assert!(system_lines(dir.path(), "none", 4).is_empty());
    }

    #[test]
    fn what_is_mounted_below_a_directory_is_seen_and_what_is_mounted_at_it_is_not() {
        let mounts = "22 1 8:1 / / rw - ext4 /dev/a rw\n23 22 8:2 / /usr rw - ext4 /dev/b rw\n\
                      24 22 8:3 / /us\\040r/x rw - ext4 /dev/c rw\n";
        let below = |dir: &str| mounted_below(mounts, &[PathBuf::from(dir)]);
        assert!(!below("/usr") && !below("/opt") && !below("/u"));
        assert!(below("/us r") && below("/"));
    }

    #[test]
    fn only_the_store_of_nix_is_shown_because_its_daemon_listens_beside_it() {
        let nix: Vec<_> = TOP.iter().filter(|name| name.starts_with("nix")).collect();
        assert_eq!(nix, [&"nix/store"]);
    }

    #[test]
    fn the_probe_sees_this_machine() {
        let host = Host::probe();
        assert!(host.cpus > 0 && host.memory_bytes > 1 << 20);
        assert!(host.root.top.contains_key("usr"));
        assert!(host.devices.contains(&"null".to_owned()));
    }
}
