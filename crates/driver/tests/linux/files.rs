//! Files that are put in and got out: with the workload's rights, whatever trap it has laid.

use crate::world::{DEFAULTS, Live, say};
use driver::guest::Incoming;
use driver::guest::message::{FromGuest, Put, ToGuest};

/// The content of a file, or the error number that the guest told.
async fn get(live: &mut Live, path: &str) -> Result<Vec<u8>, i32> {
    let get = ToGuest::Get {
        path: path.to_owned(),
        max_bytes: 1 << 20,
    };
    say(&mut live.prepared, &get).await;
    let mut content = Vec::new();
    loop {
        let next = tokio::time::timeout(crate::world::PATIENCE, live.prepared.reader.next()).await;
        match next.expect("a guest that answers").expect("a guest") {
            Incoming::File(bytes) => content.extend_from_slice(&bytes),
            Incoming::Message(FromGuest::GetEnd { .. }) => return Ok(content),
            Incoming::Message(FromGuest::FileFailed { errno, .. }) => return Err(errno),
            Incoming::Message(_) | Incoming::Output(..) => {}
        }
    }
}

/// Attack: Whoever takes a file out is led by a link to a file of the host, or held up by a pipe or a device in its
/// place.
#[tokio::test]
async fn a_trap_for_whoever_takes_a_file_out_catches_nobody() {
    let world = world!();
    let script = "cd /home/user; echo good > good; ln -s good link; mkfifo pipe; mkdir dir; \
                  ln -s /proc/self/environ environ; ln -s /proc/self/fd/3 socket; \
                  ln -s /proc/1/root/etc/passwd magic; ln -s /dev/zero zero; ln -s loop loop; \
                  truncate -s 2M large; echo no > mine; chmod 0 mine; echo ready; sleep 30";
    let mut live = world.live(DEFAULTS, script).await;
    assert_eq!(get(&mut live, "good").await, Ok(b"good\n".to_vec()));
    assert_eq!(get(&mut live, "link").await, Ok(b"good\n".to_vec()));
    for (path, errno) in [
        ("pipe", libc::EINVAL),
        ("dir", libc::EISDIR),
        ("zero", libc::EINVAL),
        ("loop", libc::ELOOP),
        ("large", libc::EFBIG),
        ("mine", libc::EACCES),
        ("socket", libc::ELOOP),
        ("magic", libc::ELOOP),
        ("environ", libc::EACCES),
        ("/proc/self/mem", libc::EACCES),
        ("/etc/shadow", libc::ENOENT),
    ] {
        let got = get(&mut live, path).await;
        // A magic link may be refused before it is known to be one.
        let refused = got == Err(errno) || (errno == libc::ELOOP && got == Err(libc::EACCES));
        assert!(refused, "{path}: {got:?}");
    }
}

/// Attack: A file that is put in overwrites what the workload could not, by a link or by `..`.
#[tokio::test]
async fn a_file_is_put_only_where_the_workload_could_write_it() {
    let world = world!();
    let mut prepared = world.sandbox(DEFAULTS).await;
    for path in [
        "/etc/new",
        "/usr/bin/new",
        "/new",
        "/proc/sys/kernel/hostname",
        "/dev/null",
    ] {
        let put = Put {
            path: path.to_owned(),
            mode: 0o644,
            size_bytes: 0,
        };
        say(&mut prepared, &ToGuest::Put(put)).await;
        let answer = prepared.message().await.unwrap();
        assert!(
            matches!(answer, FromGuest::FileFailed { .. }),
            "{path}: {answer:?}"
        );
    }
    let large = Put {
        path: "/tmp/large".to_owned(),
        mode: 0o644,
        size_bytes: 1 << 40,
    };
    say(&mut prepared, &ToGuest::Put(large)).await;
    let answer = prepared.message().await.unwrap();
    let full = FromGuest::FileFailed {
        errno: libc::ENOSPC,
        step: "allocate".to_owned(),
    };
    assert_eq!(answer, full);
    world.destroy(&prepared).await;
}
