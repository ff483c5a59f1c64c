//! What was sealed last, signed, in a file beside the database: who can write to the database and not to this
//! directory can cut the end of the record off, but not so that nobody sees it.

use crate::hex::{hex, unhex};
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::ops::RangeInclusive;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use store::audit::Seal;

/// The newest file is put in the place of the one before when it has this many bytes: 12,000 heads, a week of a
/// tenant with something new in each minute. The newest head of each tenant goes with it, so that the busy ones do not
/// push out that of a quiet one.
const FILE_BYTES_MAX: u64 = 4 << 20;
/// A key, in PKCS #8 (RFC 5958), takes less than a hundred bytes.
const KEY_BYTES_MAX: u64 = 1024;
/// Tenants whose newest heads go from one file into the next: as many as there can be, some 350 kB.
const CARRIED_MAX: usize = 1000;
/// So that no signature of something else can be taken for one of these.
const DOMAIN: &str = "cofferdam.audit.head.v2";

/// The last seal of a tenant at some time, signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// The number of the seal.
    pub number: u64,
    /// Its digest.
    pub digest: String,
    /// When it was signed, in milliseconds since 1970.
    pub at_ms: u64,
    /// Whether the signature is that of this directory's key, Ed25519 (RFC 8032).
    pub is_ours: bool,
}

/// The directory with the key and the heads.
#[derive(Debug, Clone)]
pub(crate) struct Heads {
    dir: PathBuf,
}

impl Heads {
    pub(super) fn new(dir: PathBuf) -> Heads {
        Heads { dir }
    }

    /// Adds the heads of these seals and returns when they are on the disk.
    pub(super) fn add(&self, seals: &[Seal], at_ms: u64) -> io::Result<()> {
        let key = self.key()?;
        let mut lines = String::new();
        for seal in seals {
            let tenant = seal.tenant.as_str();
            let signature = key.sign(&message(tenant, seal.number, &seal.digest, at_ms));
            let line = json!({
                "tenant": tenant, "number": seal.number, "digest": seal.digest, "at_ms": at_ms,
                "key": hex(key.public_key().as_ref()), "signature": hex(signature.as_ref()),
            });
            lines.push_str(&line.to_string());
            lines.push('\n');
        }
        let path = self.file();
        if std::fs::metadata(&path).is_ok_and(|meta| meta.len() >= FILE_BYTES_MAX) {
            append(&path, &self.carried()?)?;
            std::fs::rename(&path, self.older())?;
        }
        append(&path, &lines)
    }

    /// The newest lines of the tenants that have none in the newest file, as they were signed. If we die before the
    /// file that got them is in the place of the other, they are there already.
    fn carried(&self) -> io::Result<String> {
        let (older, newer) = (tail(&self.older())?, tail(&self.file())?);
        let there = newest_lines(&newer);
        let mut lines: Vec<_> = newest_lines(&older).into_iter().collect();
        lines.retain(|(tenant, _)| !there.contains_key(tenant));
        // Of tenants that are gone some are here; those whose last head is the oldest go first.
        lines.sort_by_key(|(_, line)| std::cmp::Reverse(line.at_ms));
        lines.truncate(CARRIED_MAX);
        let lines = lines.iter().map(|(_, line)| format!("{}\n", line.text));
        Ok(lines.collect())
    }

    /// The heads of a tenant whose seals have these numbers, and its newest. A line that was cut by a power failure
    /// is passed over.
    pub(super) fn of(
        &self,
        tenant: &str,
        numbers: &RangeInclusive<u64>,
    ) -> io::Result<BTreeMap<u64, Head>> {
        if !self.file().exists() {
            return Ok(BTreeMap::new());
        }
        let key = self.key()?;
        let key = UnparsedPublicKey::new(&ED25519, key.public_key().as_ref());
        let mut heads = BTreeMap::new();
        for path in [self.older(), self.file()] {
            for (head, signature) in tail(&path)?.lines().filter_map(|line| parse(line, tenant)) {
                // What was signed first counts: a later line of the same number says that somebody has made
                // another record of what was signed.
                heads.entry(head.number).or_insert((head, signature));
            }
        }
        let newest = heads.keys().next_back().copied();
        let wanted = |number: &u64| numbers.contains(number) || newest == Some(*number);
        let heads = heads.into_iter().filter(|(number, _)| wanted(number));
        // Looked at only here: a signature takes fifty times what a line takes.
        let verified = heads.map(|(number, (mut head, signature))| {
            let message = message(tenant, head.number, &head.digest, head.at_ms);
            head.is_ours = key.verify(&message, &signature).is_ok();
            (number, head)
        });
        Ok(verified.collect())
    }

    /// The number and the digest of the newest head of a tenant that this directory's key has signed.
    pub(super) fn newest(&self, tenant: &str) -> io::Result<Option<(u64, String)>> {
        let mut heads = self.of(tenant, &RangeInclusive::new(1, 0))?;
        let newest = heads.pop_last().filter(|(_, head)| head.is_ours);
        Ok(newest.map(|(number, head)| (number, head.digest)))
    }

    fn file(&self) -> PathBuf {
        self.dir.join("heads.jsonl")
    }

    fn older(&self) -> PathBuf {
        self.dir.join("heads.1.jsonl")
    }

    /// The key of this directory, made on first use. Two processes may come here at once, and one key must win: a
    /// link is made only where nothing is.
    fn key(&self) -> io::Result<Ed25519KeyPair> {
        let path = self.dir.join("key.pk8");
        if !path.exists() {
            std::fs::create_dir_all(&self.dir)?;
            let made = Ed25519KeyPair::generate().map_err(io::Error::other)?;
            let made = made.to_pkcs8().map_err(io::Error::other)?;
            let name = self.dir.join(format!("key.{}", std::process::id()));
            let mut options = File::options();
            let options = options.write(true).create(true).truncate(true).mode(0o600);
            let mut file = options.open(&name)?;
            file.write_all(made.as_ref())?;
            file.sync_all()?;
            let linked = std::fs::hard_link(&name, &path);
            std::fs::remove_file(&name)?;
            let is_there = |error: &io::Error| error.kind() == io::ErrorKind::AlreadyExists;
            if let Err(error) = linked
                && !is_there(&error)
            {
                return Err(error);
            }
            File::open(&self.dir)?.sync_all()?;
        }
        let mut bytes = Vec::new();
        File::open(&path)?
            .take(KEY_BYTES_MAX)
            .read_to_end(&mut bytes)?;
        Ed25519KeyPair::from_pkcs8(&bytes).map_err(io::Error::other)
    }
}

/// Adds lines to a file, which are on the disk then.
fn append(path: &Path, lines: &str) -> io::Result<()> {
    let mut options = File::options();
    let mut file = options.append(true).create(true).mode(0o600).open(path)?;
    file.write_all(lines.as_bytes())?;
    file.sync_all()
}

/// A line of a tenant, as it stands in the file.
struct Line<'t> {
    number: u64,
    at_ms: u64,
    text: &'t str,
}

/// The line with the highest number of each tenant; of two with one number the first, as everywhere.
fn newest_lines(text: &str) -> BTreeMap<String, Line<'_>> {
    let mut newest: BTreeMap<String, Line<'_>> = BTreeMap::new();
    for text in text.lines() {
        let Some((tenant, head)) = parse_any(text) else {
            continue;
        };
        let (number, at_ms) = (head.number, head.at_ms);
        if newest.get(&tenant).is_none_or(|line| line.number < number) {
            newest.insert(
                tenant,
                Line {
                    number,
                    at_ms,
                    text,
                },
            );
        }
    }
    newest
}

/// The end of a file, as much as one may have; nothing of one that is not there.
fn tail(path: &Path) -> io::Result<String> {
    let mut file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(String::new()),
        file => file?,
    };
    let skipped = file.metadata()?.len().saturating_sub(2 * FILE_BYTES_MAX);
    file.seek(SeekFrom::Start(skipped))?;
    let mut bytes = Vec::new();
    file.take(2 * FILE_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn message(tenant: &str, number: u64, digest: &str, at_ms: u64) -> Vec<u8> {
    // None of these has a line feed.
    format!("{DOMAIN}\n{tenant}\n{number}\n{digest}\n{at_ms}").into_bytes()
}

/// A head of this tenant, and its signature, which nobody has looked at.
fn parse(line: &str, tenant: &str) -> Option<(Head, Vec<u8>)> {
    let line: Value = serde_json::from_str(line).ok()?;
    let (of, head) = head(&line)?;
    let signature = line.get("signature")?.as_str()?;
    (of == tenant).then(|| (head, unhex(signature).unwrap_or_default()))
}

/// A head, and whose it is.
fn parse_any(line: &str) -> Option<(String, Head)> {
    head(&serde_json::from_str(line).ok()?)
}

fn head(line: &Value) -> Option<(String, Head)> {
    let text = |name: &str| line.get(name)?.as_str();
    let number = |name: &str| line.get(name)?.as_u64();
    let head = Head {
        number: number("number")?,
        digest: text("digest")?.to_owned(),
        at_ms: number("at_ms")?,
        is_ours: false,
    };
    Some((text("tenant")?.to_owned(), head))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seal(tenant: &str, number: u64) -> Seal {
        Seal {
            tenant: tenant.parse().unwrap(),
            number,
            from_mark: 0,
            to_mark: 1,
            events: 1,
            total: 1,
            sealed_at_ms: 0,
            before: String::new(),
            content: String::new(),
            digest: String::new(),
            retired: false,
        }
    }

    #[test]
    fn busy_tenants_do_not_push_out_the_newest_head_of_a_quiet_one() {
        let dir = tempfile::tempdir().unwrap();
        let heads = Heads::new(dir.path().to_owned());
        heads.add(&[seal("ten_quiet", 7)], 1).unwrap();
        heads.add(&[seal("ten_quiet", 8)], 2).unwrap();
        // Three files' worth and more of another one.
        for pass in 0..40 {
            let numbers = pass * 1000 + 1..=(pass + 1) * 1000;
            let seals: Vec<Seal> = numbers.map(|number| seal("ten_busy", number)).collect();
            heads.add(&seals, 3 + pass).unwrap();
        }
        let known = heads.of("ten_busy", &(1..=1)).unwrap();
        assert!(!known.contains_key(&1), "the files have been turned");
        let newest = heads.newest("ten_quiet").unwrap();
        assert_eq!(newest.map(|(number, _)| number), Some(8));
        let bytes = |path: PathBuf| std::fs::metadata(path).unwrap().len();
        assert!(bytes(heads.older()) < 2 * FILE_BYTES_MAX);
    }
}
