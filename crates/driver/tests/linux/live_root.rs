//! A root that can be written: by the sandbox's root, for this sandbox, within its quota.

use crate::live_client::{AS_ROOT, Served, base64, shell};
use crate::outside::{descriptors, guest_and_launcher, has_controller, program};
use crate::world::{DEFAULTS, World, text, until};
use driver::conformance::spec;
use driver::driver::{Driver as _, DriverError, Mode, Plan, Spec};
use driver::host::Host;
use driver::linux::Linger;
use model::spec::AskedLimits;
use serde_json::json;
use std::path::Path;

pub(crate) const MIB: u64 = 1 << 20;

/// A sandbox that lives on, with root.
pub(crate) fn with_root(limits: AskedLimits) -> Spec {
    Spec {
        mode: Mode::Live { allow_root: true },
        ..spec(limits)
    }
}

impl Served<'_> {
    /// What a script of root's writes, and its exit code.
    pub(crate) async fn as_root(&self, script: &str) -> (String, i64) {
        let request = json!({"process": shell(script), "stdin": false});
        self.start_with(request, &[AS_ROOT]).await.run().await
    }

    /// The same of one that must succeed.
    pub(crate) async fn root_sh(&self, script: &str) -> String {
        let (seen, code) = self.as_root(&format!("set -e\n{script}")).await;
        assert_eq!(code, 0, "{script}: {seen}");
        seen
    }
}

/// A world in which a root can be written.
macro_rules! writable_world {
    () => {{
        let world = world!();
        if let Some(why) = &world.host.no_writable_root {
            // An ordinary user's node has none, and says so.
            crate::live_root::is_said_to_be_read(&world).await;
            println!("the root cannot be written here: {why}");
            return;
        }
        world
    }};
}
pub(crate) use writable_world;

fn root_clause(plan: &Plan) -> (String, String) {
    let mut clauses = plan.enforced.iter();
    let root = clauses
        .find(|each| each.clause == "root")
        .expect("a clause");
    (root.how.clone(), root.value.clone().unwrap_or_default())
}

/// Nothing is promised and nothing is pretended.
pub(crate) async fn is_said_to_be_read(world: &World) {
    let spec = with_root(DEFAULTS);
    let plan = world.linux.plan(&spec, &world.host).expect("a plan");
    let (how, value) = root_clause(&plan);
    assert_eq!(how, "read-only mounts");
    assert!(value.contains("cannot be written"), "{value}");
    let layered = Spec {
        layers: vec!["/nowhere".into()],
        ..spec
    };
    let refused = world
        .linux
        .plan(&layered, &world.host)
        .expect_err("refused");
    assert_eq!(refused[0].clause, "layers");
}

#[tokio::test]
async fn a_login_shell_reads_what_was_put_there_for_it_and_nothing_of_the_host() {
    let world = writable_world!();
    let served = world.serve(true).await;
    let script = "ls /etc/profile.d; bash -lc 'echo -$OF_A_FILE-'; \
                  sudo sh -c 'echo OF_A_FILE=yes > /etc/profile.d/x.sh'; bash -lc 'echo -$OF_A_FILE-'";
    let (seen, _) = served.sh(script).await;
    assert_eq!(seen, "--\n-yes-\n");
    served.destroy().await;
}

#[tokio::test]
async fn root_writes_everywhere_and_nobody_else_does_or_sees_it() {
    let world = writable_world!();
    let served = world.serve(true).await;
    assert!(root_clause(&served.plan).0.contains("overlays"));
    let seen = served
        .root_sh(
            "cd /; stat -c %U:%G / /usr /usr/bin/env /etc /etc/passwd /var/lib /home | sort -u
            touch /usr/bin/cofferdam-x; echo '# changed' >> /etc/passwd; mkdir /app /srv/x /var/lib/x
            echo x > /etc/hosts; rm /usr/bin/env; mv /usr/bin/cofferdam-x /usr/bin/cofferdam-y
            ls /usr/bin/cofferdam-y; chown user /app; stat -c '%U %a' /home/user /root /tmp",
        )
        .await;
    assert_eq!(
        seen,
        "root:root\n/usr/bin/cofferdam-y\nuser 755\nroot 700\nroot 1777\n"
    );
    let script = "for p in /usr/bin/z /etc/z /z /srv/z /opt/z /var/lib/z /home/z /run/z /root/z \
        /proc/sys/z /sys/z /dev/z; do (: > $p) 2>/dev/null && echo $p; done; \
        (: >> /etc/passwd) 2>/dev/null && echo passwd; rm /usr/bin/awk 2>/dev/null && echo awk; \
        touch /app/mine ~/mine /tmp/mine /var/tmp/mine /dev/shm/mine; ls /usr/bin/cofferdam-y";
    let (seen, code) = served.sh(script).await;
    assert_eq!((&*seen, code), ("/usr/bin/cofferdam-y\n", 0));
    assert!(!Path::new("/usr/bin/cofferdam-y").exists() && Path::new("/usr/bin/env").exists());
    let other = world.serve(true).await;
    let look = "ls -d /usr/bin/cofferdam-y /app /home/user/mine 2>/dev/null; \
        grep -c changed /etc/passwd; ls /usr/bin/env";
    assert_eq!(other.as_root(look).await.0, "0\n/usr/bin/env\n");
    other.destroy().await;
    served.destroy().await;
}

#[tokio::test]
async fn whoever_is_in_the_list_of_users_can_be_asked_for_and_has_no_rights() {
    let world = writable_world!();
    let served = world.serve(true).await;
    let add = "printf 'web:x:1234:1235::/srv/web:/bin/sh\nroot2:x:0:0::/:/bin/sh\nbig:x:70000:1::/:/bin/sh\n' \
        >> /etc/passwd; mkdir /srv/web; chown 1234:1235 /srv/web; echo secret > /root/x; chmod 600 /root/x";
    served.root_sh(add).await;
    let of = |name: &str| format!("Basic {}", base64(format!("{name}:")));
    let run = async |name: &str, script: &str| {
        let request = json!({"process": shell(script), "stdin": false});
        let header = of(name);
        let headers = [("authorization", header.as_str())];
        served.start_with(request, &headers).await.run().await
    };
    let script = "id -u; id -g; id -G; pwd; echo $HOME $USER; touch mine && echo wrote; \
        grep -cE '^Cap(Inh|Prm|Eff|Bnd|Amb):.0000000000000000$' /proc/self/status; \
        cat /root/x ~user/x 2>/dev/null; sudo true 2>/dev/null || echo no sudo; kill -0 1 2>/dev/null || echo no kill";
    let (seen, code) = run("web", script).await;
    let expected = "1234\n1235\n1235\n/srv/web\n/srv/web web\nwrote\n\
        5\nno sudo\nno kill\n";
    assert_eq!((seen.as_str(), code), (expected, 0));
    assert_eq!(
        served.root_sh("stat -c %u:%g /srv/web/mine").await,
        "1234:1235\n"
    );
    assert_eq!(run("root2", "id -u").await, ("0\n".to_owned(), 0));
    served.destroy().await;
}

#[tokio::test]
async fn the_tools_of_a_distribution_work_for_root() {
    let world = writable_world!();
    let served = world.serve(true).await;
    let has = |tool: &str| {
        ["/usr/bin", "/usr/sbin"]
            .iter()
            .any(|dir| Path::new(dir).join(tool).exists())
    };
    if has("useradd") {
        served
            .root_sh("useradd -m bob && id -u bob && ls -d /home/bob && userdel bob")
            .await;
    }
    if has("ldconfig") {
        served.root_sh("ldconfig").await;
    }
    if has("dpkg-deb") {
        let script = "mkdir -p /tmp/p/DEBIAN /tmp/p/usr/bin /tmp/p/etc/tiny /tmp/p/opt/tiny; cd /tmp
            printf 'Package: tiny\\nVersion: 1\\nArchitecture: all\\nMaintainer: x <x@y.z>\\nDescription: x\\n' > p/DEBIAN/control
            printf '#!/bin/sh\\nset -e\\nupdate-alternatives --install /usr/bin/ti ti /usr/bin/tiny 5\\n' > p/DEBIAN/postinst
            printf '#!/bin/sh\\necho it runs\\n' > p/usr/bin/tiny; echo c > p/etc/tiny/conf; touch p/opt/tiny/f
            chmod 755 p/usr/bin/tiny p/DEBIAN/postinst; dpkg-deb -b p tiny.deb > /dev/null
            dpkg -i tiny.deb > /tmp/log 2>&1 || { cat /tmp/log; exit 1; }
            ti; dpkg -s tiny | grep Status; dpkg -S /usr/bin/tiny";
        let seen = served.root_sh(script).await;
        assert_eq!(
            seen,
            "it runs\nStatus: install ok installed\ntiny: /usr/bin/tiny\n"
        );
        assert!(!Path::new("/usr/bin/tiny").exists());
        let removed = "dpkg -r tiny > /dev/null 2>&1; ls /usr/bin/tiny 2>/dev/null || echo gone";
        assert_eq!(served.root_sh(removed).await, "gone\n");
    }
    if has("apt-get") {
        let apt = "apt-get check > /tmp/log 2>&1 || { cat /tmp/log; exit 1; }; apt-get clean; \
            touch /var/lib/apt/lists/x /var/cache/apt/archives/partial/x /var/log/apt/x";
        served.root_sh(apt).await;
    }
    served.destroy().await;
}

/// A wheel is a zip file with a few names in it.
const WHEEL: &str = "python3 - <<'E'
import zipfile
d='tiny_w-1.dist-info'
with zipfile.ZipFile('/tmp/tiny_w-1-py3-none-any.whl','w') as z:
    z.writestr('tiny_w.py','print(\"wheel\")\\n')
    z.writestr(d+'/METADATA','Metadata-Version: 2.1\\nName: tiny-w\\nVersion: 1\\n')
    z.writestr(d+'/WHEEL','Wheel-Version: 1.0\\nGenerator: x\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n')
    z.writestr(d+'/RECORD','tiny_w.py,,\\n')
E
";

#[tokio::test]
async fn a_wheel_is_installed_into_the_system_and_by_a_user_for_himself() {
    let world = writable_world!();
    let served = world.serve(true).await;
    if served.sh("python3 -m pip --version").await.1 != 0 {
        println!("skipped: there is no pip");
        return served.destroy().await;
    }
    let install = "PIP_NO_INDEX=1 PIP_BREAK_SYSTEM_PACKAGES=1 python3 -m pip -q install \
        --root-user-action=ignore --disable-pip-version-check";
    let user = format!(
        "{WHEEL}{install} --user /tmp/*.whl && python3 -m tiny_w && ls ~/.local/lib/*/*/tiny_w.py"
    );
    let (seen, code) = served.sh(&user).await;
    assert!(code == 0 && seen.contains("wheel\n"), "{seen}");
    let root = format!("cd /root; {WHEEL}{install} /tmp/*.whl; python3 -m tiny_w");
    assert!(served.root_sh(&root).await.contains("wheel\n"));
    let (seen, code) = served.sh("cd /; rm -r ~/.local; python3 -m tiny_w").await;
    assert_eq!((&*seen, code), ("wheel\n", 0));
    served.destroy().await;
}

/// The sandbox's root owns what the host's root owns, so what is only the host root's must not be there.
#[tokio::test]
async fn what_not_everybody_may_read_on_the_host_is_not_there() {
    let world = writable_world!();
    let served = world.serve(true).await;
    let find = program("find")
        .args([
            "/usr",
            "/var/lib/dpkg",
            "!",
            "-type",
            "l",
            "!",
            "-perm",
            "-o=r",
        ])
        .output()
        .expect("find");
    let hidden = text(&find.stdout);
    for path in hidden.lines().take(100) {
        let (seen, _) = served.as_root(&format!("ls -d '{path}' 2>&1")).await;
        assert!(seen.contains("No such file"), "{path}: {seen}");
    }
    let seen = served
        .root_sh("ls /etc/ssl/private /etc/ssh 2>/dev/null || echo none; grep -c : /etc/shadow")
        .await;
    assert_eq!(seen, "none\n2\n");
    // What is kept in /opt stays its owner's, who is nobody inside.
    if Path::new("/opt")
        .read_dir()
        .is_ok_and(|mut entries| entries.next().is_some())
    {
        let seen = served.root_sh("stat -c %u /opt/* | sort -u").await;
        assert_eq!(seen, "65534\n");
    }
    // The storage and the tree below are out of reach, by any name.
    let seen = served
        .root_sh("ls -A / /home | grep '^\\.' || echo none")
        .await;
    assert_eq!(seen, "none\n");
    served.destroy().await;
}

#[tokio::test]
async fn the_quota_holds_in_every_directory_and_what_is_written_is_counted() {
    let world = writable_world!();
    let limits = AskedLimits {
        disk_bytes: Some(32 * MIB),
        ..DEFAULTS
    };
    let served = world.serve_with(with_root(limits), true).await;
    let script = "head -c 20M /dev/zero > /usr/first && echo first; for d in /usr /etc /opt /var /home/user \
        /root /tmp /run /dev/shm / /var/lib/dpkg; do [ -d $d ] || continue; head -c 14M /dev/zero > $d/second \
        2>/dev/null && echo $d; rm -f $d/second; done; head -c 14M /dev/zero > /etc/x";
    let (seen, _) = served.as_root(script).await;
    assert!(
        seen.starts_with("first\n") && seen.contains("No space left"),
        "{seen}"
    );
    assert_eq!(seen.lines().count(), 2, "{seen}");
    if has_controller(&world.host, "memory") {
        let counted = world
            .linux
            .counted(&served.plan.handle)
            .await
            .expect("counters");
        let peak = counted.memory_peak_bytes.unwrap_or_default();
        assert!(peak >= 20 * MIB, "{peak}");
    }
    // 4096 files; some are the overlays' own.
    let script = "rm /usr/first /etc/x; i=0; cd /usr/local; while [ $i -lt 5000 ]; do true > $i || break; i=$((i+1)); done 2>/dev/null; echo $i";
    let made: u32 = served.as_root(script).await.0.trim().parse().unwrap_or(0);
    assert!((3000..4100).contains(&made), "{made}");
    served.destroy().await;
}

#[tokio::test]
async fn nothing_of_what_was_written_is_held_when_the_sandbox_is_gone() {
    let world = writable_world!();
    let first = world.serve(true).await;
    let pid_ns = first.root_sh("readlink /proc/self/ns/pid").await;
    let (_, launcher) = guest_and_launcher(pid_ns.trim());
    let before = descriptors(launcher).len();
    for _ in 0..5 {
        let served = world.serve(true).await;
        served.root_sh("head -c 1M /dev/zero > /usr/x").await;
        served.destroy().await;
    }
    assert!(until(|| descriptors(launcher).len() == before).await);
    first.destroy().await;
}

#[tokio::test]
async fn where_no_root_can_be_written_it_is_said_and_layers_are_refused() {
    let mut host = Host::probe();
    host.no_writable_root = Some("taken away for the test".to_owned());
    let world = match World::on(host, Linger::No) {
        Ok(world) => world,
        Err(why) => {
            println!("skipped: {why}");
            return;
        }
    };
    is_said_to_be_read(&world).await;
    if world.host.ids == driver::host::Ids::Single {
        return;
    }
    let served = world.serve(true).await;
    let script = "(: > /usr/x) 2>/dev/null || echo read-only";
    assert_eq!(served.as_root(script).await.0, "read-only\n");
    if world.linux.pause(&served.plan.handle, true).await.is_ok() {
        let to = world.dir.path().join("saved");
        let refused = world.linux.save(&served.plan.handle, &to).await;
        assert!(
            matches!(refused, Err(DriverError::CannotSave { .. })),
            "{refused:?}"
        );
    }
    served.destroy().await;
}

/// A root of its own needs a few programs, which are copied with what they are linked with.
const SMALL_ROOT: &str = "cd \"$1\"; mkdir -p usr/bin usr/lib usr/lib64 etc srv
    for p in sh ls touch cat stat; do cp -L /usr/bin/$p usr/bin/; done
    for l in $(ldd usr/bin/* | grep -o '/[^ ]*' | grep -v : | sort -u); do cp -L $l usr/lib/; cp -L $l usr/lib64/; done
    ln -s usr/bin bin; ln -s usr/lib lib; ln -s usr/lib64 lib64
    echo secret > etc/secret; chmod 600 etc/secret; echo s > srv/secret; chmod 600 srv/secret
    echo o > srv/open; echo k > etc/known; chmod 755 .";

#[tokio::test]
async fn a_root_of_the_operators_is_written_in_the_same_way() {
    let world = writable_world!();
    let dir = tempfile::tempdir_in("/var/tmp").expect("a directory");
    let made = program("sh")
        .args(["-c", SMALL_ROOT, "sh"])
        .arg(dir.path())
        .output()
        .expect("a root");
    let root = driver::host::Root::read(dir.path()).expect("a root");
    let spec = Spec {
        root: Some(root),
        ..with_root(DEFAULTS)
    };
    let served = world.serve_with(spec, true).await;
    let script = "ls /srv; ls /etc/secret /usr/bin/python3 2>/dev/null; cat /etc/known; \
        touch /srv/x /usr/bin/y /etc/z; stat -c %u /srv/open";
    let (seen, code) = served.as_root(script).await;
    assert_eq!((&*seen, code), ("open\nk\n0\n", 0), "{made:?}");
    assert!(!dir.path().join("srv/x").exists());
    served.destroy().await;
}
