//! Watches on directories: the kernel's events in the words of envd, as a stream or to be fetched.

use super::body::Body;
use super::connect::{self, BODY_PATIENCE, Requests};
use super::entry;
use super::failure::{Code, Failure};
use super::path;
use super::pump::{self, Pace};
use super::tree::{self, DEPTH_MAX};
use super::user::User;
use super::{Live, Stream, register};
use hyper::HeaderMap;
use hyper::body::Incoming;
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use rustix::fs::{self, FileType, Mode, OFlags};
use rustix::io::Errno;
use serde::Deserialize;
use serde_json::{Value, json};
use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::Rc;
use tokio::io::Interest;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// Watches at a time; the kernel gives a user about as many queues.
const WATCHES_MAX: usize = 64;
/// Directories of one watch, of which each takes some memory of the kernel.
const DIRECTORIES_MAX: usize = 8192;
/// Events that wait to be fetched. Who comes too late is told so.
const EVENTS_MAX: usize = 4096;
/// Events that are read at once.
const BATCH: usize = 256;
/// The name of the directory that is watched, as a path below itself; what envd says too.
const ITSELF: &str = ".";
/// Events that wait in a stream; behind it the kernel has a queue of its own.
const QUEUE: usize = 16;

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Asked {
    path: String,
    recursive: bool,
    #[serde(alias = "include_entry")]
    include_entry: bool,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct OfWatcher {
    #[serde(alias = "watcher_id")]
    watcher_id: String,
}

/// What the kernel told, copied out.
#[derive(Debug)]
struct Told {
    directory: i32,
    flags: ReadFlags,
    name: Option<String>,
}

/// A watch.
#[derive(Debug)]
struct Watch {
    queue: Stream,
    /// The watched directories by the kernel's number, as paths below the first one.
    directories: HashMap<i32, String>,
    root: String,
    asked: Asked,
    user: User,
    _slot: Rc<()>,
}

/// The watches whose events are fetched.
#[derive(Debug, Default)]
pub(super) struct Watchers {
    fetched: BTreeMap<String, Rc<Fetched>>,
    made: u64,
    slots: Rc<()>,
}

/// Events that wait to be fetched.
#[derive(Debug, Default)]
struct Fetched {
    events: RefCell<VecDeque<Value>>,
    failure: RefCell<Option<Failure>>,
    task: RefCell<Option<JoinHandle<()>>>,
}

impl Watch {
    fn new(live: &Live, headers: &HeaderMap, asked: Asked) -> Result<Watch, Failure> {
        let user = User::of(headers, &live.serve)?;
        let root = path::resolve(&asked.path, user.home)?;
        let slot = live.watchers.borrow().slots.clone();
        if Rc::strong_count(&slot) > WATCHES_MAX + 1 {
            let why = format!("there are {WATCHES_MAX} watches already");
            return Err(Failure::new(Code::ResourceExhausted, why));
        }
        let queue = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)
            .map_err(|errno| Failure::errno("watch", errno))?;
        let queue = register(queue, Interest::READABLE);
        let mut watch = Watch {
            queue: queue.map_err(|error| Failure::new(Code::Internal, error.to_string()))?,
            directories: HashMap::new(),
            root,
            asked,
            user,
            _slot: slot,
        };
        watch.begin()?;
        Ok(watch)
    }

    fn begin(&mut self) -> Result<(), Failure> {
        self.add("").map_err(|errno| match errno {
            Errno::NOTDIR => Failure::invalid(format!("path is not a directory: {}", self.root)),
            _ => Failure::errno(&self.root, errno),
        })?;
        if self.asked.recursive {
            // What cannot be watched, because it is another's or gone, is not.
            self.add_below("", 0, &mut Vec::new())?;
        }
        Ok(())
    }

    fn absolute(&self, below: &str) -> String {
        if below.is_empty() {
            self.root.clone()
        } else {
            format!("{}/{below}", self.root.trim_end_matches('/'))
        }
    }

    /// Watches one directory. By descriptor, so that it is the one that was looked at.
    fn add(&mut self, below: &str) -> Result<(), Errno> {
        let link = if below.is_empty() {
            OFlags::empty()
        } else {
            OFlags::NOFOLLOW
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY | link;
        let wanted = WatchFlags::CREATE
            | WatchFlags::MODIFY
            | WatchFlags::ATTRIB
            | WatchFlags::DELETE
            | WatchFlags::MOVED_FROM
            | WatchFlags::MOVED_TO
            | WatchFlags::EXCL_UNLINK;
        // Of a directory below, the one above tells.
        let wanted = if below.is_empty() {
            wanted | WatchFlags::DELETE_SELF | WatchFlags::MOVE_SELF
        } else {
            wanted
        };
        let number = self.user.act(|| {
            let directory = tree::open(&self.absolute(below), flags, Mode::empty())?;
            let own = format!("/proc/self/fd/{}", directory.as_raw_fd());
            inotify::add_watch(self.queue.get_ref(), own, wanted)
        })?;
        self.directories.insert(number, below.to_owned());
        Ok(())
    }

    /// Watches the directories below one, and tells what is there.
    fn add_below(
        &mut self,
        below: &str,
        depth: usize,
        found: &mut Vec<String>,
    ) -> Result<(), Failure> {
        if self.directories.len() >= DIRECTORIES_MAX || found.len() >= EVENTS_MAX {
            let why = format!("a watch has at most {DIRECTORIES_MAX} directories");
            return Err(Failure::new(Code::ResourceExhausted, why));
        }
        if depth >= DEPTH_MAX {
            return Ok(());
        }
        for (name, directory) in self.children(below).unwrap_or_default() {
            let child = join(below, &name);
            if depth > 0 || !below.is_empty() {
                found.push(child.clone());
            }
            if directory && self.add(&child).is_ok() {
                self.add_below(&child, depth + 1, found)?;
            }
        }
        Ok(())
    }

    /// The names in a directory, and which are directories.
    fn children(&self, below: &str) -> Result<Vec<(String, bool)>, Errno> {
        self.user.act(|| {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY;
            let directory = tree::open(&self.absolute(below), flags, Mode::empty())?;
            let mut names = Vec::new();
            let mut entries = fs::Dir::read_from(&directory)?;
            while let Some(entry) = entries.read() {
                let entry = entry?;
                let kind = entry.file_type();
                if let Ok(name) = entry.file_name().to_str()
                    && !matches!(name, "." | "..")
                    && names.len() < DIRECTORIES_MAX
                {
                    names.push((name.to_owned(), kind == FileType::Directory));
                }
            }
            Ok(names)
        })
    }

    /// The next events.
    async fn next(&mut self) -> Result<Vec<Value>, Failure> {
        let told = self
            .queue
            .async_io(Interest::READABLE, |queue| Ok(read(queue)?))
            .await;
        let told = told.map_err(|error| Failure::new(Code::Internal, error.to_string()))?;
        let mut events = Vec::new();
        for told in told {
            self.follow(told, &mut events)?;
        }
        Ok(events)
    }

    /// Goes after directories that come and go, and tells what happened.
    fn follow(&mut self, told: Told, events: &mut Vec<Value>) -> Result<(), Failure> {
        if told.flags.contains(ReadFlags::QUEUE_OVERFLOW) {
            let why = "more happened than could be told";
            return Err(Failure::new(Code::ResourceExhausted, why));
        }
        if told.flags.contains(ReadFlags::IGNORED) {
            self.directories.remove(&told.directory);
        }
        let Some(kind) = kind(told.flags) else {
            return Ok(());
        };
        if told
            .flags
            .intersects(ReadFlags::DELETE_SELF | ReadFlags::MOVE_SELF)
        {
            // Nothing comes after it but the kernel's word that it watches no more.
            events.push(self.event(ITSELF, kind));
            return Ok(());
        }
        let Some(name) = told.name else {
            return Ok(());
        };
        let Some(below) = self.directories.get(&told.directory) else {
            return Ok(()); // Of a directory that was moved away meanwhile.
        };
        let name = join(below, &name);
        events.push(self.event(&name, kind));
        if !self.asked.recursive || !told.flags.contains(ReadFlags::ISDIR) {
            return Ok(());
        }
        if told
            .flags
            .intersects(ReadFlags::CREATE | ReadFlags::MOVED_TO)
            && self.add(&name).is_ok()
        {
            // What was made in it before it was watched.
            let mut found = Vec::new();
            self.add_below(&name, 0, &mut found)?;
            events.extend(
                found
                    .iter()
                    .map(|name| self.event(name, "EVENT_TYPE_CREATE")),
            );
        } else if told.flags.contains(ReadFlags::MOVED_FROM) {
            self.forget(&name);
        }
        Ok(())
    }

    fn forget(&mut self, gone: &str) {
        let inside = format!("{gone}/");
        let queue = self.queue.get_ref();
        self.directories.retain(|number, below| {
            let keep = below != gone && !below.starts_with(&inside);
            if !keep {
                // It may be gone altogether, and its number with it.
                let _ = inotify::remove_watch(queue, *number);
            }
            keep
        });
    }

    fn event(&self, name: &str, kind: &str) -> Value {
        let mut event = json!({"name": name, "type": kind});
        if self.asked.include_entry
            && let Ok(entry) = self.user.act(|| entry::at(&self.absolute(name)))
            && let Some(event) = event.as_object_mut()
        {
            event.insert("entry".to_owned(), entry);
        }
        event
    }
}

fn join(below: &str, name: &str) -> String {
    if below.is_empty() {
        name.to_owned()
    } else {
        format!("{below}/{name}")
    }
}

fn read(queue: &OwnedFd) -> Result<Vec<Told>, Errno> {
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut reader = Reader::new(queue, &mut buffer);
    let mut told = Vec::new();
    while told.len() < BATCH {
        match reader.next() {
            Ok(event) => told.push(Told {
                directory: event.wd(),
                flags: event.events(),
                name: event
                    .file_name()
                    .and_then(|name| Some(name.to_str().ok()?.to_owned())),
            }),
            Err(Errno::AGAIN) if !told.is_empty() => break,
            Err(errno) => return Err(errno),
        }
    }
    Ok(told)
}

/// The name of what happened.
fn kind(flags: ReadFlags) -> Option<&'static str> {
    let kinds = [
        (ReadFlags::CREATE, "EVENT_TYPE_CREATE"),
        (ReadFlags::MOVED_TO, "EVENT_TYPE_CREATE"),
        (ReadFlags::MODIFY, "EVENT_TYPE_WRITE"),
        (ReadFlags::DELETE, "EVENT_TYPE_REMOVE"),
        (ReadFlags::MOVED_FROM, "EVENT_TYPE_RENAME"),
        (ReadFlags::DELETE_SELF, "EVENT_TYPE_REMOVE"),
        (ReadFlags::MOVE_SELF, "EVENT_TYPE_RENAME"),
        (ReadFlags::ATTRIB, "EVENT_TYPE_CHMOD"),
    ];
    kinds
        .into_iter()
        .find(|(flag, _)| flags.contains(*flag))
        .map(|(_, name)| name)
}

/// `WatchDir`: events as they come.
pub(super) async fn stream(
    live: &Rc<Live>,
    headers: &HeaderMap,
    body: Incoming,
) -> Result<Body, Failure> {
    let requests = Requests::new(body, BODY_PATIENCE);
    let pace = Pace::of(
        &live.clock,
        headers,
        connect::message(&json!({"keepalive": {}})),
    )?;
    let asked: Asked = requests.only().await?;
    let mut watch = Watch::new(live, headers, asked)?;
    let (sender, events) = mpsc::channel(QUEUE);
    tokio::task::spawn_local(async move {
        loop {
            let next = tokio::select! {
                next = watch.next() => next,
                () = sender.closed() => return,
            };
            let (events, last) = match next {
                Ok(events) => (events, None),
                Err(failure) => (Vec::new(), Some(connect::end_with(&failure))),
            };
            let over = last.is_some();
            let messages = events
                .iter()
                .map(|event| connect::message(&json!({"filesystem": event})));
            for message in messages.chain(last) {
                if sender.send(message).await.is_err() {
                    return;
                }
            }
            if over {
                return;
            }
        }
    });
    let first = connect::message(&json!({"start": {}}));
    Ok(pump::body(first, events, pace))
}

/// `CreateWatcher`, `GetWatcherEvents` and `RemoveWatcher`: events to be fetched.
pub(super) async fn unary(
    live: &Rc<Live>,
    method: &str,
    headers: &HeaderMap,
    body: &mut Incoming,
) -> Result<Value, Failure> {
    if method == "CreateWatcher" {
        let asked: Asked = connect::part(body).await?;
        return Ok(json!({"watcherId": create(live, Watch::new(live, headers, asked)?)}));
    }
    if !["GetWatcherEvents", "RemoveWatcher"].contains(&method) {
        return Err(super::rpc::unknown(method));
    }
    let OfWatcher { watcher_id } = connect::part(body).await?;
    let missing = || Failure::new(Code::NotFound, format!("watcher '{watcher_id}' not found"));
    if method == "RemoveWatcher" {
        let removed = live.watchers.borrow_mut().fetched.remove(&watcher_id);
        if let Some(task) = removed.ok_or_else(missing)?.task.take() {
            task.abort();
        }
        return Ok(json!({}));
    }
    let found = live.watchers.borrow().fetched.get(&watcher_id).cloned();
    let found = found.ok_or_else(missing)?;
    let events: Vec<Value> = found.events.borrow_mut().drain(..).collect();
    match found.failure.take() {
        Some(failure) if events.is_empty() => Err(failure),
        // It is told when what came before has been.
        failure => {
            *found.failure.borrow_mut() = failure;
            Ok(json!({"events": events}))
        }
    }
}

fn create(live: &Live, mut watch: Watch) -> String {
    let mut watchers = live.watchers.borrow_mut();
    watchers.made += 1;
    let id = format!("w{}", watchers.made);
    let fetched = Rc::new(Fetched::default());
    let into = Rc::downgrade(&fetched);
    let task = tokio::task::spawn_local(async move {
        loop {
            let next = watch.next().await;
            let Some(fetched) = into.upgrade() else {
                return;
            };
            let mut events = fetched.events.borrow_mut();
            match next {
                Ok(new) if events.len() + new.len() <= EVENTS_MAX => events.extend(new),
                Ok(_) => {
                    let why = "more happened than was fetched";
                    let late = Failure::new(Code::ResourceExhausted, why);
                    drop(fetched.failure.replace(Some(late)));
                    return;
                }
                Err(failure) => {
                    drop(fetched.failure.replace(Some(failure)));
                    return;
                }
            }
        }
    });
    drop(fetched.task.replace(Some(task)));
    watchers.fetched.insert(id.clone(), fetched);
    id
}
