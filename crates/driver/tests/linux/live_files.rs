//! A sandbox that lives on: its files.

use crate::live_client::{AS_ROOT, Served};
use crate::world::PATIENCE;
use bytes::Bytes;
use driver::driver::Driver as _;
use driver::host::Ids;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};

const RAW: (&str, &str) = ("content-type", "application/octet-stream");

async fn put(served: &Served<'_>, path: &str, content: impl Into<Bytes>) -> u16 {
    let path = format!("/files?path={path}");
    served.http("POST", &path, &[RAW], content).await.status
}

async fn call(served: &Served<'_>, method: &str, message: Value) -> Result<Value, String> {
    served
        .call(&format!("filesystem.Filesystem/{method}"), message)
        .await
}

fn code(code: &str) -> Result<Value, String> {
    Err(code.to_owned())
}

#[tokio::test]
async fn a_large_file_comes_back_as_it_was_put() {
    let world = world!();
    let served = world.serve(false).await;
    let mut content = Vec::new();
    for n in 0..(64 << 20) / 8_u64 {
        content.extend_from_slice(&n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
    }
    let digest = Sha256::digest(&content);
    let path = "/files?path=deep/er/large%20file";
    let put = served.http("POST", path, &[RAW], content).await;
    let told =
        json!([{"path": "/home/user/deep/er/large file", "name": "large file", "type": "file"}]);
    assert_eq!((put.status, put.json()), (200, told));
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    let (seen, _) = served
        .sh("sha256sum < 'deep/er/large file'; stat -c '%U %a' deep deep/er/*")
        .await;
    assert_eq!(seen, format!("{hex}  -\nuser 755\nuser 644\n"));
    let got = served.get("/files?path=~/deep/er/large%20file").await;
    assert_eq!(got.status, 200);
    assert_eq!(Sha256::digest(&got.body), digest);
    let name = got.head.get("content-disposition").unwrap();
    assert_eq!(name, "inline; filename*=utf-8''large%20file");
    served.destroy().await;
}

#[tokio::test]
async fn a_part_of_a_file_can_be_had() {
    let world = world!();
    let served = world.serve(false).await;
    assert_eq!(put(&served, "/tmp/f", "0123456789").await, 200);
    for (range, status, content, told) in [
        ("bytes=2-4", 206, "234", Some("bytes 2-4/10")),
        ("bytes=-2", 206, "89", Some("bytes 8-9/10")),
        ("bytes=20-", 416, "", Some("bytes */10")),
        ("nonsense", 200, "0123456789", None),
    ] {
        let got = served
            .http("GET", "/files?path=/tmp/f", &[("range", range)], "")
            .await;
        let head = got
            .head
            .get("content-range")
            .map(|value| value.to_str().unwrap());
        assert_eq!(
            (got.status, &*got.body, head),
            (status, content.as_bytes(), told),
            "{range}"
        );
    }
    served.destroy().await;
}

#[tokio::test]
async fn several_files_come_in_one_request_and_may_be_compressed() {
    let world = world!();
    let served = world.serve(false).await;
    let part = |name: &str, content: &str| {
        format!(
            "--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{name}\"\r\n\r\n{content}\r\n"
        )
    };
    let body = part("/tmp/a/one", "1\r\n--") + &part("two", "2") + "--b--\r\n";
    let multipart = ("content-type", "multipart/form-data; boundary=b");
    let put = served
        .http("POST", "/files", &[multipart], body.clone())
        .await;
    let told = json!([{"path": "/tmp/a/one", "name": "one", "type": "file"},
        {"path": "/home/user/two", "name": "two", "type": "file"}]);
    assert_eq!((put.status, put.json()), (200, told));
    let (seen, _) = served.sh("cat /tmp/a/one two").await;
    assert_eq!(seen, "1\r\n--2");
    // Cut off before the last line.
    let cut = body.strip_suffix("--b--\r\n").unwrap().to_owned();
    assert_eq!(
        served
            .http("POST", "/files", &[multipart], cut)
            .await
            .status,
        400
    );
    // What `printf hello | gzip` writes.
    let gzip: &[u8] = &[
        31, 139, 8, 0, 0, 0, 0, 0, 0, 3, 203, 72, 205, 201, 201, 7, 0, 134, 166, 16, 54, 5, 0, 0, 0,
    ];
    let encoded = [RAW, ("content-encoding", "gzip")];
    assert_eq!(
        served
            .http("POST", "/files?path=z", &encoded, gzip)
            .await
            .status,
        200
    );
    assert_eq!(served.get("/files?path=z").await.body, "hello");
    assert_eq!(
        served
            .http("POST", "/files?path=z", &encoded, "junk junk junk")
            .await
            .status,
        400
    );
    served.destroy().await;
}

#[tokio::test]
async fn a_file_is_compressed_on_its_way_for_those_who_like_that() {
    let world = world!();
    let served = world.serve(false).await;
    let script = "seq 1000000 > text; head -c 20000000 /dev/zero > zeros; : > empty; sha256sum *";
    let (sums, _) = served.sh(script).await;
    let likes = ("accept-encoding", "gzip");
    for name in ["text", "zeros", "empty"] {
        let path = format!("/files?path={name}");
        let range = ("range", "bytes=2-4");
        let got = served.http("GET", &path, &[likes, range], "").await;
        assert_eq!((got.status, got.head.get("content-length")), (200, None));
        assert_eq!(got.head["content-encoding"], "gzip");
        assert!(got.body.len() < 4_000_000, "{name} {}", got.body.len());
        // Back the same way, and as it is.
        let encoded = [RAW, ("content-encoding", "gzip")];
        let path = format!("/files?path=/tmp/{name}");
        let back = served.http("POST", &path, &encoded, got.body.clone()).await;
        assert_eq!(back.status, 200, "{name}");
        assert_eq!(
            put(&served, &format!("/tmp/z/{name}.gz"), got.body).await,
            200
        );
    }
    let (again, _) = served.sh("cd /tmp && sha256sum empty text zeros").await;
    assert_eq!(again, sums);
    let (again, _) = served.sh("cd /tmp/z && gunzip * && sha256sum *").await;
    assert_eq!(again, sums);
    let changed = [("range", "bytes=2-4"), ("if-range", "\"a\"")];
    let got = served.http("GET", "/files?path=text", &changed, "").await;
    assert_eq!((got.status, &got.body[..4]), (200, &b"1\n2\n"[..]));
    served.destroy().await;
}

/// Attack: An upload that is small until it is unpacked.
#[tokio::test]
async fn a_little_that_becomes_more_than_the_disk_ends_there() {
    let world = world!();
    let served = world.serve(false).await;
    let (_, code) = served
        .sh("head -c 700000000 /dev/zero | gzip -1 > bomb")
        .await;
    assert_eq!(code, 0);
    let bomb = served.get("/files?path=bomb").await.body;
    let encoded = [RAW, ("content-encoding", "gzip")];
    let put = served.http("POST", "/files?path=out", &encoded, bomb).await;
    assert_eq!(put.status, 507);
    assert_eq!(served.sh("rm out; echo on").await.0, "on\n");
    served.destroy().await;
}

#[tokio::test]
async fn files_are_put_together_into_one() {
    let world = world!();
    let served = world.serve(false).await;
    for (path, content) in [("a", "1"), ("b", "2"), ("whole", "old and longer")] {
        assert_eq!(put(&served, path, content).await, 200);
    }
    let kind = [("content-type", "application/json")];
    let ask =
        |sources: &[&str]| json!({"source_paths": sources, "destination": "whole"}).to_string();
    let missing = served
        .http("POST", "/files/compose", &kind, ask(&["a", "none"]))
        .await;
    assert_eq!(missing.status, 404);
    let done = served
        .http("POST", "/files/compose", &kind, ask(&["b", "a"]))
        .await;
    assert_eq!(
        (done.status, &done.json()["path"]),
        (200, &json!("/home/user/whole"))
    );
    assert_eq!(served.sh("cat whole; ls").await.0, "21whole\n");
    served.destroy().await;
}

#[tokio::test]
async fn the_file_system_is_told_about_and_changed() {
    let world = world!();
    let served = world.serve(false).await;
    assert_eq!(put(&served, "d/f", "text").await, 200);
    served
        .sh("chmod 600 d/f; ln -s d link; ln -s none broken")
        .await;
    let stat = call(&served, "Stat", json!({"path": "d/f"})).await.unwrap();
    let entry = &stat["entry"];
    for (key, value) in [
        ("name", json!("f")),
        ("path", json!("/home/user/d/f")),
        ("type", json!("FILE_TYPE_FILE")),
        ("size", json!("4")),
        ("mode", json!(0o600)),
        ("permissions", json!("-rw-------")),
        ("owner", json!("user")),
        ("group", json!("user")),
    ] {
        assert_eq!(entry[key], value, "{key}");
    }
    let link = call(&served, "Stat", json!({"path": "link"}))
        .await
        .unwrap();
    assert_eq!(link["entry"]["type"], "FILE_TYPE_DIRECTORY");
    assert_eq!(link["entry"]["symlinkTarget"], "/home/user/d");
    let list = call(&served, "ListDir", json!({"path": "~", "depth": 2}))
        .await
        .unwrap();
    let entries = list["entries"].as_array().unwrap();
    let names: Vec<&str> = entries
        .iter()
        .filter_map(|entry| entry["path"].as_str())
        .collect();
    assert_eq!(
        names,
        [
            "/home/user/broken",
            "/home/user/d",
            "/home/user/d/f",
            "/home/user/link"
        ]
    );
    let made = call(&served, "MakeDir", json!({"path": "x/y/z"}))
        .await
        .unwrap();
    assert_eq!(made["entry"]["type"], "FILE_TYPE_DIRECTORY");
    let moved = json!({"source": "d", "destination": "x/moved/e"});
    let moved = call(&served, "Move", moved).await.unwrap();
    assert_eq!(moved["entry"]["path"], "/home/user/x/moved/e");
    // To another mount of the same file system.
    let moved = json!({"source": "x/moved/e/f", "destination": "/tmp/f"});
    assert!(call(&served, "Move", moved).await.is_ok());
    assert_eq!(
        served
            .sh("cat /tmp/f; ls x/moved/e; stat -c %a /tmp/f")
            .await
            .0,
        "text600\n"
    );
    for path in ["x", "broken", "none"] {
        assert_eq!(
            call(&served, "Remove", json!({"path": path})).await,
            Ok(json!({}))
        );
    }
    assert_eq!(served.sh("ls").await.0, "link\n");
    served.destroy().await;
}

#[tokio::test]
async fn what_the_file_system_refuses_has_the_code_that_clients_know() {
    let world = world!();
    let served = world.serve(false).await;
    assert_eq!(put(&served, "f", "").await, 200);
    assert_eq!(
        call(&served, "MakeDir", json!({"path": "d"}))
            .await
            .map(drop),
        Ok(())
    );
    let there = call(&served, "MakeDir", json!({"path": "d"})).await;
    assert_eq!(there, code("already_exists"));
    for (method, message, expected) in [
        ("Stat", json!({"path": "none"}), "not_found"),
        ("ListDir", json!({"path": "none"}), "not_found"),
        ("ListDir", json!({"path": "f"}), "invalid_argument"),
        ("MakeDir", json!({"path": "f"}), "invalid_argument"),
        ("MakeDir", json!({"path": "f/x"}), "invalid_argument"),
        ("MakeDir", json!({"path": "/usr/x"}), "permission_denied"),
        (
            "Move",
            json!({"source": "none", "destination": "x"}),
            "not_found",
        ),
        ("Remove", json!({"path": "/usr/bin"}), "permission_denied"),
        ("Remove", json!({"path": "/"}), "invalid_argument"),
        ("Stat", json!({"path": "a\0"}), "invalid_argument"),
        (
            "Stat",
            json!({"path": "x".repeat(5000)}),
            "invalid_argument",
        ),
        ("RemoveWatcher", json!({"watcherId": "none"}), "not_found"),
        (
            "GetWatcherEvents",
            json!({"watcherId": "none"}),
            "not_found",
        ),
        ("CreateWatcher", json!({"path": "none"}), "not_found"),
        ("CreateWatcher", json!({"path": "f"}), "invalid_argument"),
        ("Nothing", json!({}), "unimplemented"),
    ] {
        assert_eq!(
            call(&served, method, message.clone()).await,
            code(expected),
            "{method} {message}"
        );
    }
    for (path, status) in [
        ("none", 404),
        ("d", 400),
        ("f&username=nobody", 401),
        ("f&username=root", 403),
    ] {
        assert_eq!(
            served.get(&format!("/files?path={path}")).await.status,
            status,
            "{path}"
        );
    }
    let refused = served.http(
        "GET",
        "/files?path=f",
        &[("accept-encoding", "br, identity;q=0")],
        "",
    );
    assert_eq!(refused.await.status, 406);
    served.destroy().await;
}

#[tokio::test]
async fn metadata_is_kept_with_the_file_where_the_file_system_can() {
    let world = world!();
    let served = world.serve(false).await;
    let head = [RAW, ("x-metadata-kind", "plot"), ("x-metadata-by", "me")];
    assert_eq!(
        served
            .http("POST", "/files?path=f", &head, "1")
            .await
            .status,
        200
    );
    let metadata = async || {
        let stat = call(&served, "Stat", json!({"path": "f"})).await.unwrap();
        stat["entry"]["metadata"].clone()
    };
    let kept = metadata().await;
    assert!(
        kept == json!({"kind": "plot", "by": "me"}) || kept == Value::Null,
        "{kept}"
    );
    // The next upload replaces all of it.
    assert_eq!(put(&served, "f", "2").await, 200);
    assert_eq!(metadata().await, Value::Null);
    served.destroy().await;
}

#[tokio::test]
async fn a_full_disk_is_said_and_leaves_the_guest_well() {
    let world = world!();
    let served = world.serve(false).await;
    served
        .sh("head -c 1000000000000 /dev/zero > /tmp/fill 2>/dev/null; true")
        .await;
    assert_eq!(put(&served, "f", vec![b'x'; 1 << 20]).await, 507);
    assert_eq!(
        call(&served, "Remove", json!({"path": "/tmp/fill"})).await,
        Ok(json!({}))
    );
    assert_eq!(put(&served, "f", vec![b'x'; 1 << 20]).await, 200);
    served.destroy().await;
}

/// Attack: Links, pipes and devices among the files of a sandbox that is asked for them.
#[tokio::test]
async fn a_trap_among_the_files_catches_nobody() {
    let world = world!();
    let served = world.serve(world.host.ids != Ids::Single).await;
    let script = "mkfifo pipe; ln -s /dev/zero zero; ln -s loop loop; ln -s /proc/self/mem mem; \
                  ln -s /proc/self/environ environ; ln -s /proc/1/root/etc/passwd magic; \
                  ln -s /proc/self/fd fd";
    served.sh(script).await;
    for name in [
        "pipe", "zero", "loop", "mem", "environ", "magic", "fd/3", "fd",
    ] {
        let got = served.get(&format!("/files?path={name}")).await;
        assert!([400, 403, 404].contains(&got.status), "{name}: {got:?}");
        let put = put(&served, name, "x").await;
        assert!([400, 403, 404].contains(&put), "{name}: {put}");
    }
    // Root of the sandbox does not reach the guest through proc either.
    if world.host.ids != Ids::Single {
        for name in [
            "mem",
            "environ",
            "magic",
            "fd/3",
            "/proc/1/mem",
            "/proc/self/environ",
        ] {
            let path = format!("/files?username=root&path=/home/user/{name}");
            let path = if name.starts_with('/') {
                format!("/files?username=root&path={name}")
            } else {
                path
            };
            assert_eq!(served.get(&path).await.status, 403, "{name}");
            assert_eq!(
                served.http("POST", &path, &[RAW], "x").await.status,
                403,
                "{name}"
            );
        }
        let listed = served
            .call_as(
                "filesystem.Filesystem/ListDir",
                json!({"path": "/proc/1/fd"}),
                &[AS_ROOT],
            )
            .await;
        assert_eq!(listed, code("permission_denied"));
        let own = served
            .http("POST", "/files?username=root&path=own", &[RAW], "x")
            .await;
        assert_eq!(own.json()[0]["path"], "/root/own");
    }
    served.destroy().await;
}

#[tokio::test]
async fn who_has_no_sudo_reads_and_writes_what_its_own_rights_allow() {
    let world = world!();
    let served = world.serve(false).await;
    let script = "mkdir mine; chmod 0 mine; echo 1 > secret; chmod 0 secret";
    served.sh(script).await;
    for name in ["mine/x", "secret", "/new", "/etc/passwd"] {
        assert_eq!(put(&served, name, "x").await, 403, "{name}");
    }
    let got = served.get("/files?path=secret").await;
    assert_eq!(got.status, 403);
    served.destroy().await;
}

#[tokio::test]
async fn what_the_kernel_says_about_itself_can_be_read_and_nothing_else_of_proc() {
    let world = world!();
    let served = world.serve(false).await;
    let asked = "/files?path=/proc/sys/kernel/random/boot_id";
    let (inside, _) = served.sh("cat /proc/sys/kernel/random/boot_id").await;
    let got = served.get(asked).await;
    assert_eq!(
        (got.status, String::from_utf8_lossy(&got.body).as_ref()),
        (200, &*inside)
    );
    for (path, status) in [
        ("/proc/sys/../self/environ", 403),
        ("/proc/sys/kernel/random", 400),
        ("/proc/sys", 403),
        ("/proc/sys/no/such", 404),
        ("/proc/self/environ", 403),
    ] {
        let got = served.get(&format!("/files?path={path}")).await;
        assert_eq!(got.status, status, "{path}");
    }
    assert_eq!(put(&served, "/proc/sys/kernel/hostname", "x").await, 403);
    served.destroy().await;
}

/// Attack: A tree so deep or so wide that whoever lists it does not come back.
#[tokio::test]
async fn deep_and_wide_trees_are_bounded() {
    let world = world!();
    let served = world.serve(false).await;
    let script = "mkdir wide; cd wide; seq 10001 | xargs touch; cd ..; \
                  (for i in $(seq 150); do mkdir d && cd d || exit; done); mkdir -p ok/a/b; touch ok/a/b/c";
    served.sh(script).await;
    let wide = call(&served, "ListDir", json!({"path": "wide"})).await;
    assert_eq!(wide, code("resource_exhausted"));
    let deep = call(
        &served,
        "ListDir",
        json!({"path": "d", "depth": 4_000_000_000_u32}),
    )
    .await
    .unwrap();
    assert!(deep["entries"].as_array().unwrap().len() < 100);
    assert_eq!(
        call(&served, "Remove", json!({"path": "d"})).await,
        code("resource_exhausted")
    );
    assert_eq!(
        call(&served, "Remove", json!({"path": "ok"})).await,
        Ok(json!({}))
    );
    assert_eq!(
        call(&served, "Remove", json!({"path": "wide"})).await,
        Ok(json!({}))
    );
    served.destroy().await;
}

#[tokio::test]
async fn who_has_sudo_writes_where_root_may_and_owns_what_it_has_written() {
    let world = crate::live_root::writable_world!();
    let served = world.serve(true).await;
    served
        .root_sh(
            "mkdir /locked; echo old > /locked/f; chmod 700 /locked; chmod 600 /locked/f
            printf 'web:x:1234:1235::/srv/web:/bin/sh\n' >> /etc/passwd",
        )
        .await;
    assert_eq!(put(&served, "/app/deep/new", "new").await, 200);
    assert_eq!(served.get("/files?path=/locked/f").await.body, "old\n");
    assert_eq!(put(&served, "/locked/f", "1").await, 200);
    let made = call(&served, "MakeDir", json!({"path": "/opt/made"})).await;
    assert_eq!(made.expect("a directory")["entry"]["owner"], "user");
    let moved = json!({"source": "/locked/f", "destination": "/srv/f"});
    assert!(call(&served, "Move", moved).await.is_ok());
    let there = call(&served, "Stat", json!({"path": "/root/nothing"})).await;
    assert_eq!(there, code("not_found"));
    let (seen, _) = served
        .sh("stat -c '%U %a %n' /app /app/deep/new /srv/f /opt/made; cat /app/deep/new /srv/f; ls /locked")
        .await;
    assert_eq!(
        seen,
        "user 755 /app\nuser 644 /app/deep/new\nuser 600 /srv/f\nuser 755 /opt/made\nnew1ls: cannot open directory '/locked': Permission denied\n"
    );
    // Nobody else's clients have more rights than it has itself.
    let as_web = "/files?path=/srv/x&username=web";
    assert_eq!(served.http("POST", as_web, &[RAW], "x").await.status, 403);
    let read = served.get("/files?path=/root/.profile&username=web").await;
    assert_eq!(read.status, 403);
    served.destroy().await;
}

#[tokio::test]
async fn of_two_files_of_one_path_in_one_request_neither_is_lost_without_a_word() {
    let world = world!();
    let served = world.serve(false).await;
    let part = |name: &str, content: &str| {
        format!(
            "--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{name}\"\r\n\r\n{content}\r\n"
        )
    };
    let body = format!("{}{}--b--\r\n", part("f", "1"), part("./f", "2"));
    let kind = ("content-type", "multipart/form-data; boundary=b");
    let got = served.http("POST", "/files", &[kind], body).await;
    assert_eq!(got.status, 400);
    served.destroy().await;
}

/// Attack: A command with a zero byte, which is another command to the kernel.
#[tokio::test]
async fn a_command_with_a_zero_byte_is_refused_and_not_another_command() {
    let world = world!();
    let served = world.serve(false).await;
    for process in [
        json!({"cmd": "/bin/echo", "args": ["a\0b"]}),
        json!({"cmd": "/bin/true", "envs": {"A": "a\0b"}}),
        json!({"cmd": "/bin/true\0"}),
    ] {
        let mut events = served.start_with(json!({"process": process}), &[]).await;
        let end = events.next().await;
        let refused = crate::live_client::Event::End(Some("invalid_argument".to_owned()));
        assert_eq!(end, refused, "{process}");
    }
    served.destroy().await;
}

/// Its server would send the next request over a connection that it believes to be good.
#[tokio::test]
async fn who_is_refused_before_it_has_said_all_can_ask_again_over_the_same_connection() {
    let world = world!();
    let served = world.serve(false).await;
    let message = r#"{"start":{"process":{"pid":99999}}}"#;
    let input = format!(
        "\0\0\0\0{}{message}",
        char::from(u8::try_from(message.len()).unwrap())
    );
    let stream = format!(
        "POST /process.Process/StreamInput HTTP/1.1\r\nhost: x\r\ncontent-type: application/connect+json\r\n\
         transfer-encoding: chunked\r\n\r\n{:x}\r\n{input}\r\n",
        input.len()
    );
    // The same, but for a user whom there is not: refused before anything of the body is read.
    let list = "POST /filesystem.Filesystem/ListDir HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\
                authorization: Basic bm9zdWNoOg==\r\ncontent-length: 2\r\n\r\n";
    for (first, rest, refused) in [
        (stream.as_str(), "0\r\n\r\n", "not_found"),
        (list, "{}", "unauthenticated"),
    ] {
        let stream = served.world.linux.connect(&served.plan.handle).await;
        let mut stream = stream.expect("a guest");
        stream.write_all(first.as_bytes()).await.unwrap();
        read_until(&mut stream, refused).await;
        let next = format!("{rest}GET /health HTTP/1.1\r\nhost: x\r\n\r\n");
        stream.write_all(next.as_bytes()).await.unwrap();
        read_until(&mut stream, " 204 ").await;
    }
    served.destroy().await;
}

async fn read_until(stream: &mut (impl AsyncRead + Unpin), wanted: &str) {
    let mut seen = Vec::new();
    while !String::from_utf8_lossy(&seen).contains(wanted) {
        let read = tokio::time::timeout(PATIENCE, stream.read_buf(&mut seen)).await;
        let n = read.expect("an answer in time").expect("an answer");
        assert_ne!(n, 0, "it was closed: {}", String::from_utf8_lossy(&seen));
    }
}
