//! The content of the volume of this sandbox, as E2B's clients of volumes ask for it. The doors pass such
//! requests on to no sandbox but the one that was made to serve a volume.
//!
//! What is in a volume was laid there by workloads that may still be at it. So every path is walked by the
//! kernel from the volume's top, which it cannot leave: a link leads where it would if the volume were the
//! whole world. Devices do not open there. All is done as the sandbox's root, who is nobody outside.

use super::Live;
use super::body::{self, Answer, Body};
use super::connect::{self, BODY_PATIENCE};
use super::download::Download;
use super::entry::time;
use super::failure::{Code, Failure};
use super::filesystem::{names, too_many};
use super::path;
use super::query;
use super::tree::{self, look};
use super::user::User;
use guest::message::VOLUME_DIR;
use hyper::body::Incoming;
use hyper::{Method, Request, StatusCode};
use rustix::fs::{self, AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Stat, Uid};
use rustix::io::Errno;
use serde::Deserialize;
use serde_json::{Value, json};
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};

/// What new files and directories get when nobody says: E2B's, and the workload's user.
const FILE_MODE: u32 = 0o666;
const DIRECTORY_MODE: u32 = 0o777;
const OWNER: u32 = 1000;
/// Levels of one listing, as in E2B.
const DEPTH_MAX: usize = 10;
/// Something on the machine was renamed or mounted while the kernel followed `..`, and it cannot tell whether
/// that led out (`openat2(2)`, `EAGAIN`). So often at once it is bad luck; more often it is somebody's doing.
const OPEN_TRIES: u32 = 64;
/// What a mode may say.
const PERMISSIONS: u32 = 0o777;

/// What is asked of something at a path.
#[derive(Debug, Default, Clone, Copy, Deserialize)]
#[serde(default)]
struct Owner {
    uid: Option<u32>,
    gid: Option<u32>,
    mode: Option<u32>,
}

/// A request's path and what else it says.
#[derive(Debug)]
struct Asked {
    /// Clean: absolute from the volume's top.
    path: String,
    owner: Owner,
    force: bool,
    depth: usize,
}

impl Asked {
    fn parse(query: Option<&str>) -> Result<Asked, Failure> {
        let text = |name: &str| query::value(query, name).filter(|text| !text.is_empty());
        let number = |name: &str| {
            let bad = |_| Failure::invalid(format!("{name} is no number"));
            text(name)
                .map(|text| text.parse::<u32>().map_err(bad))
                .transpose()
        };
        let none = || Failure::invalid("the request names no path");
        let depth = number("depth")?.unwrap_or(1).max(1) as usize;
        if depth > DEPTH_MAX {
            return Err(Failure::invalid(format!("depth must be 1 to {DEPTH_MAX}")));
        }
        Ok(Asked {
            path: path::resolve(&format!("/{}", text("path").ok_or_else(none)?), "/")?,
            owner: Owner {
                uid: number("uid")?,
                gid: number("gid")?,
                mode: number("mode")?,
            },
            force: text("force").is_some_and(|text| text.eq_ignore_ascii_case("true")),
            depth,
        })
    }
}

/// Answers a request for `what`: `path`, `dir` or `file`.
pub(super) async fn answer(live: &Live, what: &str, request: Request<Incoming>) -> Answer {
    let (head, mut body) = request.into_parts();
    let answered = async {
        let asked = Asked::parse(head.uri.query())?;
        let root = User::named("root", &live.serve)?;
        match (head.method, what) {
            (Method::GET, "path") => told(StatusCode::OK, root.act(|| stat(&asked.path))),
            (Method::PATCH, "path") => {
                let owner: Owner = connect::part(&mut body).await?;
                told(StatusCode::OK, root.act(|| change(&asked.path, owner)))
            }
            (Method::DELETE, "path") => {
                root.act(|| remove(&asked.path))?;
                Ok(body::empty(StatusCode::NO_CONTENT))
            }
            (Method::GET, "dir") => told(StatusCode::OK, root.act(|| list(&asked))),
            (Method::POST, "dir") => told(StatusCode::CREATED, root.act(|| make(&asked))),
            (Method::GET, "file") => root.act(|| read(&asked.path)),
            (Method::PUT, "file") => put(root, &asked, &mut body).await,
            _ => Err(Failure::new(Code::NotFound, "there is no such route")),
        }
    };
    let answered = answered.await;
    answered
        .map_err(lasting)
        .unwrap_or_else(|failure: Failure| {
            // What is left of an upload is taken beside the answer, as long as somebody sends it.
            tokio::task::spawn_local(async move { connect::swallow(&mut body).await });
            body::json(failure.code.status(), &failure.json())
        })
}

/// Too many entries and too deep a tree are so the next time, too. Whoever reads "too many requests" there, as
/// the status of it says, waits and asks again.
fn lasting(failure: Failure) -> Failure {
    if failure.code == Code::ResourceExhausted {
        Failure::new(Code::FailedPrecondition, failure.message)
    } else {
        failure
    }
}

fn told(status: StatusCode, value: Result<Value, Failure>) -> Result<Answer, Failure> {
    value.map(|value| body::json(status, &value))
}

/// What the kernel says about a path. What is in the way and is no directory is no directory that is
/// missing.
fn refused(path: &str) -> impl Fn(Errno) -> Failure {
    move |errno| match errno {
        Errno::NOTDIR | Errno::ISDIR => {
            let why = format!("{path}: something else is there");
            Failure::new(Code::AlreadyExists, why)
        }
        Errno::XDEV | Errno::LOOP => Failure::invalid(format!("{path} leads out of the volume")),
        _ => Failure::errno(path, errno),
    }
}

/// Opens what is at a clean path, links followed as if the volume were the whole world.
fn open(path: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
    let directory = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let top = fs::openat(fs::CWD, VOLUME_DIR, directory, Mode::empty())?;
    let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
    let open = || fs::openat2(&top, path, flags | OFlags::CLOEXEC, Mode::empty(), inside);
    let mut opened = open();
    for _ in 0..OPEN_TRIES {
        match opened {
            Err(Errno::AGAIN) => opened = open(),
            _ => break,
        }
    }
    opened
}

/// The directory that something is in, and its name there; none for the top.
fn place(path: &str) -> Result<Option<(OwnedFd, &str)>, Failure> {
    let Some((directory, name)) = path::split(path) else {
        return Ok(None);
    };
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    let directory = open(directory, flags).map_err(refused(path))?;
    Ok(Some((directory, name)))
}

/// The same for what cannot be done to the top.
fn place_below(path: &str) -> Result<(OwnedFd, &str), Failure> {
    let top = || Failure::new(Code::AlreadyExists, "that is the volume itself");
    place(path)?.ok_or_else(top)
}

fn entry(directory: impl AsFd, name: &str, path: &str, stat: &Stat) -> Value {
    let kind = tree::kind(stat);
    let mut entry = json!({
        "name": path::name(path),
        "type": match kind {
            FileType::RegularFile => "file",
            FileType::Directory => "directory",
            FileType::Symlink => "symlink",
            FileType::Fifo
            | FileType::Socket
            | FileType::CharacterDevice
            | FileType::BlockDevice
            | FileType::Unknown => "unknown",
        },
        "path": path,
        "size": stat.st_size,
        "mode": stat.st_mode & PERMISSIONS,
        "uid": stat.st_uid,
        "gid": stat.st_gid,
        "atime": time(stat.st_atime, stat.st_atime_nsec),
        "mtime": time(stat.st_mtime, stat.st_mtime_nsec),
        "ctime": time(stat.st_ctime, stat.st_ctime_nsec),
    });
    if kind == FileType::Symlink
        && let Ok(target) = fs::readlinkat(directory, name, Vec::new())
        && let Some(entry) = entry.as_object_mut()
    {
        entry.insert("target".to_owned(), target.to_string_lossy().into());
    }
    entry
}

fn stat(path: &str) -> Result<Value, Failure> {
    let Some((directory, name)) = place(path)? else {
        let top = open("/", OFlags::PATH | OFlags::DIRECTORY).map_err(refused(path))?;
        let stat = fs::fstat(&top).map_err(refused(path))?;
        return Ok(entry(&top, ".", path, &stat));
    };
    let stat = look(&directory, name).map_err(refused(path))?;
    Ok(entry(directory, name, path, &stat))
}

fn change(path: &str, owner: Owner) -> Result<Value, Failure> {
    match place(path)? {
        Some((directory, name)) => give(&directory, name, owner).map_err(refused(path))?,
        None => {
            let top = open("/", OFlags::PATH | OFlags::DIRECTORY).map_err(refused(path))?;
            give(&top, ".", owner).map_err(refused(path))?;
        }
    }
    stat(path)
}

/// Gives something to somebody. The mode last: a change of the owner takes bits away.
fn give(directory: &OwnedFd, name: &str, owner: Owner) -> Result<(), Errno> {
    // The highest id means "as it is" to the kernel.
    if owner.uid == Some(u32::MAX) || owner.gid == Some(u32::MAX) {
        return Err(Errno::INVAL);
    }
    let (uid, gid) = (owner.uid.map(Uid::from_raw), owner.gid.map(Gid::from_raw));
    if uid.is_some() || gid.is_some() {
        fs::chownat(directory, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
    }
    match owner.mode {
        Some(mode) if tree::kind(&look(directory, name)?) != FileType::Symlink => {
            let mode = Mode::from_raw_mode(mode & PERMISSIONS);
            fs::chmodat(directory, name, mode, AtFlags::empty())
        }
        // A link has no mode of its own.
        _ => Ok(()),
    }
}

fn remove(path: &str) -> Result<(), Failure> {
    let (directory, name) = place_below(path)?;
    look(&directory, name).map_err(refused(path))?;
    tree::remove_below(&directory, name, path)
}

fn list(asked: &Asked) -> Result<Value, Failure> {
    let path = &*asked.path;
    let missing = |_| Failure::new(Code::NotFound, format!("{path} is no directory"));
    let directory = open(path, OFlags::RDONLY | OFlags::DIRECTORY).map_err(missing)?;
    let mut entries = Vec::new();
    list_in(&directory, path, asked.depth, &mut entries)?;
    Ok(entries.into())
}

fn list_in(
    directory: &OwnedFd,
    path: &str,
    depth: usize,
    entries: &mut Vec<Value>,
) -> Result<(), Failure> {
    let found = names(directory, entries.len()).map_err(refused(path))?;
    for name in found.ok_or_else(|| too_many(path))? {
        // What went meanwhile is not told; what is no text has no name on this wire.
        let Some((text, stat)) = name
            .to_str()
            .ok()
            .and_then(|text| Some((text, look(directory, text).ok()?)))
        else {
            continue;
        };
        let below = format!("{}/{text}", path.trim_end_matches('/'));
        entries.push(entry(directory, text, &below, &stat));
        if depth > 1
            && tree::kind(&stat) == FileType::Directory
            && let Ok(inner) = tree::open_below(directory, &name)
        {
            list_in(&inner, &below, depth - 1, entries)?;
        }
    }
    Ok(())
}

/// Makes a directory, and with `force` those above it. One that is there stays as it is.
fn make(asked: &Asked) -> Result<Value, Failure> {
    let path = &*asked.path;
    if asked.force {
        make_above(asked)?;
    }
    let is_made = match place(path)? {
        None => false,
        Some((directory, name)) => {
            let mode = asked.owner.mode.unwrap_or(DIRECTORY_MODE);
            make_one(&directory, name, asked.owner, mode).map_err(refused(path))?
        }
    };
    let told = stat(path)?;
    let is_directory = told.get("type").is_some_and(|kind| kind == "directory");
    if is_made || (asked.force && is_directory) {
        return Ok(told);
    }
    let why = format!("{path} is there already");
    Err(Failure::new(Code::AlreadyExists, why))
}

/// Makes the directories above a path, each as a new one that nobody says more about.
fn make_above(asked: &Asked) -> Result<(), Failure> {
    for (end, _) in asked.path.match_indices('/').skip(1) {
        let so_far = asked.path.get(..end).unwrap_or_default();
        let (directory, name) = place_below(so_far)?;
        make_one(&directory, name, asked.owner, DIRECTORY_MODE).map_err(refused(so_far))?;
    }
    Ok(())
}

/// Whether it was not there before.
fn make_one(directory: &OwnedFd, name: &str, owner: Owner, mode: u32) -> Result<bool, Errno> {
    match fs::mkdirat(directory, name, Mode::from_raw_mode(0o700)) {
        Ok(()) => {}
        Err(Errno::EXIST) => return Ok(false),
        Err(errno) => return Err(errno),
    }
    give(directory, name, new_owner(owner, mode))?;
    Ok(true)
}

/// What something new gets.
fn new_owner(owner: Owner, mode: u32) -> Owner {
    Owner {
        uid: owner.uid.or(Some(OWNER)),
        gid: owner.gid.or(Some(OWNER)),
        mode: Some(mode),
    }
}

fn read(path: &str) -> Result<Answer, Failure> {
    let missing = || Failure::new(Code::NotFound, format!("{path} is no file"));
    // Never waits: a workload may have laid a pipe there.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = open(path, flags).map_err(|errno| match errno {
        Errno::ISDIR | Errno::NOTDIR | Errno::NXIO | Errno::ACCESS => missing(),
        _ => refused(path)(errno),
    })?;
    let stat = fs::fstat(&file).map_err(refused(path))?;
    if tree::kind(&stat) != FileType::RegularFile {
        return Err(missing());
    }
    let size = u64::try_from(stat.st_size).unwrap_or(0);
    let content = Body::File(Download::whole(file, size));
    Ok(body::of_type(
        StatusCode::OK,
        "application/octet-stream",
        content,
    ))
}

/// Writes a file. It gets its name when all of it is there, so that an upload that is cut short leaves
/// nothing, and nobody in another sandbox sees half of one.
async fn put(root: User, asked: &Asked, body: &mut Incoming) -> Result<Answer, Failure> {
    let path = &*asked.path;
    let (directory, name, file) = root.act(|| {
        if asked.force {
            make_above(asked)?;
        }
        let (directory, name) = place_below(path)?;
        check_free(&directory, name, asked)?;
        let flags = OFlags::WRONLY | OFlags::TMPFILE | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(0o600);
        let file = fs::openat(&directory, ".", flags, mode).map_err(refused(path))?;
        Ok::<_, Failure>((directory, name, file))
    })?;
    while let Some(bytes) = connect::next_bytes(body, BODY_PATIENCE).await? {
        let mut left = &*bytes;
        while !left.is_empty() {
            let n = rustix::io::write(&file, left).map_err(refused(path))?;
            left = left.get(n..).unwrap_or_default();
        }
    }
    let told = root.act(|| {
        let owner = new_owner(asked.owner, asked.owner.mode.unwrap_or(FILE_MODE));
        let (uid, gid) = (owner.uid.map(Uid::from_raw), owner.gid.map(Gid::from_raw));
        fs::fchown(&file, uid, gid).map_err(refused(path))?;
        let mode = Mode::from_raw_mode(owner.mode.unwrap_or(FILE_MODE) & PERMISSIONS);
        fs::fchmod(&file, mode).map_err(refused(path))?;
        name_it(&file, &directory, name, asked.force).map_err(refused(path))?;
        stat(path)
    });
    told.map(|told| body::json(StatusCode::CREATED, &told))
}

/// Before anything is sent for nothing. It is looked at again when the file gets its name.
fn check_free(directory: &OwnedFd, name: &str, asked: &Asked) -> Result<(), Failure> {
    let there = match look(directory, name) {
        Ok(stat) => tree::kind(&stat),
        Err(_) => return Ok(()),
    };
    if asked.force && there != FileType::Directory {
        return Ok(());
    }
    let why = format!("{} is there already", asked.path);
    Err(Failure::new(Code::AlreadyExists, why))
}

/// Gives a file without a name one, in place of what has it if `force` says so.
fn name_it(file: &OwnedFd, directory: &OwnedFd, name: &str, force: bool) -> Result<(), Errno> {
    let nameless = format!("/proc/self/fd/{}", file.as_raw_fd());
    let link = |name: &str| {
        fs::linkat(
            fs::CWD,
            &*nameless,
            directory,
            name,
            AtFlags::SYMLINK_FOLLOW,
        )
    };
    if !force {
        return link(name);
    }
    match link(name) {
        Err(Errno::EXIST) => {}
        linked => return linked,
    }
    // There is no way to name it over another. If we die between the two lines, it has this name.
    let beside = format!(".upload-{}", file.as_raw_fd());
    match fs::unlinkat(directory, &*beside, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(errno) => return Err(errno),
    }
    link(&beside)?;
    let renamed = fs::renameat(directory, &*beside, directory, name);
    if renamed.is_err() {
        // A directory came to be there meanwhile.
        let _ = fs::unlinkat(directory, &*beside, AtFlags::empty());
    }
    renamed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(query: &str) -> Result<Asked, Code> {
        Asked::parse(Some(query)).map_err(|failure| failure.code)
    }

    #[test]
    fn what_is_so_the_next_time_too_is_no_reason_to_wait() {
        for code in [Code::NoSpace, Code::NotFound, Code::FailedPrecondition] {
            assert_eq!(lasting(Failure::new(code, "x")), Failure::new(code, "x"));
        }
        let wide = lasting(too_many("/a"));
        assert_eq!(wide.code.status(), StatusCode::BAD_REQUEST);
        assert_eq!(wide.message, too_many("/a").message);
    }

    #[test]
    fn a_path_begins_at_the_top_of_the_volume_and_does_not_climb_out_of_it() {
        for (query, expected) in [
            ("path=a", "/a"),
            ("path=/", "/"),
            ("path=/a/./b//c/", "/a/b/c"),
            ("path=..%2F..%2Fetc%2Fpasswd", "/etc/passwd"),
            ("path=~root", "/~root"),
        ] {
            assert_eq!(asked(query).unwrap().path, expected, "{query}");
        }
        assert_eq!(asked("").unwrap_err(), Code::InvalidArgument);
        assert_eq!(asked("path=").unwrap_err(), Code::InvalidArgument);
        assert_eq!(asked("path=a%00b").unwrap_err(), Code::InvalidArgument);
    }

    #[test]
    fn what_is_no_number_or_too_deep_is_refused() {
        let one = asked("path=a&uid=7&gid=8&mode=420&force=True&depth=10").unwrap();
        assert_eq!((one.owner.uid, one.owner.gid), (Some(7), Some(8)));
        assert_eq!(
            (one.owner.mode, one.force, one.depth),
            (Some(0o644), true, 10)
        );
        assert!(!asked("path=a&force=false").unwrap().force);
        for query in ["uid=-1", "gid=x", "mode=4294967296", "depth=11"] {
            let query = format!("path=a&{query}");
            assert_eq!(asked(&query).unwrap_err(), Code::InvalidArgument, "{query}");
        }
    }
}
