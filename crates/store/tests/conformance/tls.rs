//! A PostgreSQL that is reached through TLS.

use crate::cluster::Cluster;
use model::points::Points;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use std::error::Error;
use std::path::Path;
use store::Store;

/// A port that nobody listens on. Somebody may take it before we do; nobody here is that fast.
fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// An authority, and a certificate of it for `localhost` with its key, in files.
fn make(dir: &Path, name: &str) {
    let own = KeyPair::generate().unwrap();
    let certificate = of_authority().self_signed(&own).unwrap();
    std::fs::write(dir.join(format!("{name}.pem")), certificate.pem()).unwrap();
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(["localhost".to_owned()]).unwrap();
    let signed = params
        .signed_by(&key, &Issuer::new(of_authority(), own))
        .unwrap();
    std::fs::write(dir.join(format!("{name}.crt")), signed.pem()).unwrap();
    std::fs::write(dir.join(format!("{name}.key")), key.serialize_pem()).unwrap();
}

fn of_authority() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
}

/// PostgreSQL reads no key that others may read, or that is somebody else's.
fn give_to_postgres(path: &Path) {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
    if std::fs::metadata("/proc/self").unwrap().uid() != 0 {
        return;
    }
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap();
    let line = passwd.lines().find(|line| line.starts_with("postgres:"));
    let uid = line.and_then(|line| line.split(':').nth(2)).unwrap();
    chown(path, Some(uid.parse().unwrap()), None).unwrap();
}

fn causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}

#[test]
fn a_database_is_believed_by_its_name_and_its_authority_and_never_in_the_clear() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    make(dir.path(), "own");
    make(dir.path(), "other");
    give_to_postgres(&dir.path().join("own.key"));
    let (port, at) = (free_port(), dir.path().display());
    let clear = free_port();
    let options = format!(
        "-c listen_addresses=127.0.0.1 -c port={port} -c ssl=on -c ssl_cert_file={at}/own.crt \
         -c ssl_key_file={at}/own.key"
    );
    let cluster = match Cluster::start_with(&options) {
        Ok(cluster) => cluster,
        Err(why) => {
            println!("skipped: {why}");
            return;
        }
    };
    let plain =
        Cluster::start_with(&format!("-c listen_addresses=127.0.0.1 -c port={clear}")).unwrap();
    let address = |host: &str, port: u16, roots: &str| {
        format!(
            "host={host} hostaddr=127.0.0.1 port={port} user=postgres dbname=postgres \
             sslmode=verify-full sslrootcert={at}/{roots}.pem"
        )
    };
    let open = |address: &str| {
        let opened = Store::open_postgres(address, Points::none());
        opened.map_err(|error| causes(&error))
    };
    let store = open(&address("localhost", port, "own")).unwrap();
    let used = crate::db::wait(store.read(|tx| {
        let sql = "SELECT CAST(COUNT(*) AS BIGINT) AS n FROM pg_stat_ssl \
                   WHERE pid = pg_backend_pid() AND ssl";
        crate::db::count(tx, sql, &[])
    }));
    assert_eq!(used.unwrap(), 1);
    let wrong_name = open(&address("db.example", port, "own")).unwrap_err();
    assert!(wrong_name.contains("not valid for name"), "{wrong_name}");
    let wrong_authority = open(&address("localhost", port, "other")).unwrap_err();
    assert!(
        wrong_authority.contains("invalid peer certificate"),
        "{wrong_authority}"
    );
    let without = open(&address("localhost", clear, "own")).unwrap_err();
    assert!(without.contains("does not support TLS"), "{without}");
    drop((cluster, plain));
}

#[test]
fn a_place_says_whether_it_is_here_and_whether_it_is_encrypted() {
    let place = store::postgres_place("host=/run/postgresql").unwrap();
    assert!(place.is_local && !place.is_encrypted);
    let away = store::postgres_place("host=db.example sslmode=disable").unwrap();
    assert!(!away.is_local && !away.is_encrypted);
}
