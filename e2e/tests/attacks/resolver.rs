//! Attacks by whoever answers for a name: the node asks a real server of DNS, in a namespace in which its
//! `resolv.conf` names ours.

use super::text;
use e2e::{Place, Server, no_sandbox};
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Where our server of DNS answers; hardly anybody else does.
const ADDRESS: &str = "127.0.0.77";

/// A server whose names are the attacker's, and a sandbox with all of the internet.
struct Inside {
    place: Place,
    _server: Server,
    id: String,
    /// How often the name that changes was asked for.
    asked: Arc<AtomicUsize>,
    /// A server that the operator opened.
    open: u16,
    /// Where nobody may come.
    trap: TcpListener,
}

impl Inside {
    fn new(socket: UdpSocket) -> Inside {
        let asked = Arc::<AtomicUsize>::default();
        let counting = asked.clone();
        std::thread::spawn(move || {
            let mut question = [0; 512];
            while let Ok((length, from)) = socket.recv_from(&mut question) {
                if let Some(answer) = answer(&question[..length], &counting) {
                    // Whoever asked may be gone.
                    drop(socket.send_to(&answer, from));
                }
            }
        });
        let place = Place::new();
        let resolv = place.work().join("resolv.conf");
        std::fs::write(
            &resolv,
            format!("nameserver {ADDRESS}\noptions timeout:2 attempts:1\n"),
        )
        .expect("a file");
        let open = server();
        let allow = format!("127.0.0.1:{open}");
        let up = ["--spares", "0", "--egress-allow", &allow];
        let server = place.up_resolving(&resolv, &up);
        let made = place.json(&["sandbox", "create", "--json", "--internet"]);
        let id = made["id"].as_str().expect("an id").to_owned();
        let trap = TcpListener::bind("127.0.0.1:0").expect("a port");
        trap.set_nonblocking(true).expect("a listener");
        Inside {
            place,
            _server: server,
            id,
            asked,
            open,
            trap,
        }
    }

    fn trap(&self) -> u16 {
        self.trap.local_addr().expect("an address").port()
    }

    /// What a request for this name is answered, by the proxy: its status and its word.
    fn get(&self, name: &str, port: u16) -> String {
        let script = format!(
            "curl -s -m 20 -o /dev/null -w '%{{http_code}} ' -D /tmp/head http://{name}:{port}/; sed -n 's/^x-proxy-error: //p' /tmp/head | tr -d '\\r'"
        );
        let ran = self
            .place
            .run(&["sandbox", "exec", &self.id, "--", "sh", "-c", &script]);
        text(&ran.stdout).trim().to_owned()
    }
}

/// A server that answers everything with `ok`.
fn server() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            drop(stream.read(&mut [0; 4096]));
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok";
            drop(stream.write_all(answer));
        }
    });
    port
}

/// What our server says to a question: addresses by the first label, after as many aliases as it has.
fn answer(question: &[u8], asked: &AtomicUsize) -> Option<Vec<u8>> {
    let end = 12 + question.get(12..)?.iter().position(|byte| *byte == 0)? + 1;
    let kind = question.get(end..end + 2)?;
    let label = question.get(13..13 + usize::from(*question.get(12)?))?;
    let is_address = kind == [0, 1];
    let (aliases, address): (usize, [u8; 4]) = match label {
        b"chain" => (3, [10, 0, 0, 1]),
        b"alias" => (1, [127, 0, 0, 1]),
        b"rebind" if is_address && asked.fetch_add(1, Ordering::Relaxed) == 0 => {
            (0, [127, 0, 0, 1])
        }
        b"rebind" => (0, [10, 0, 0, 1]),
        _ => (0, [169, 254, 169, 254]),
    };
    let count = u8::try_from(aliases + usize::from(is_address)).ok()?;
    let mut all = [
        question.get(..2)?,
        &[0x81, 0x80, 0, 1, 0, count, 0, 0, 0, 0],
    ]
    .concat();
    all.extend_from_slice(question.get(12..end + 4)?);
    // Each alias is the next one's name; the first one's is the question's.
    let mut name = vec![0xc0, 12];
    for number in 0..aliases {
        let next = format!("hop{number}");
        let next = [&[4][..], next.as_bytes(), &[4], b"test", &[0]].concat();
        all.extend_from_slice(&name);
        all.extend_from_slice(&[0, 5, 0, 1, 0, 0, 0, 0, 0]);
        all.push(u8::try_from(next.len()).ok()?);
        all.extend_from_slice(&next);
        name = next;
    }
    if is_address {
        all.extend_from_slice(&name);
        // For no time at all.
        all.extend_from_slice(&[0, 1, 0, 1, 0, 0, 0, 0, 0, 4]);
        all.extend_from_slice(&address);
    }
    Some(all)
}

#[test]
fn whoever_answers_for_a_name_leads_nobody_inside() {
    if let Some(why) = no_sandbox() {
        println!("skipped: {why}");
        return;
    }
    let socket = UdpSocket::bind((ADDRESS, 53));
    let (true, Ok(socket)) = (rustix::process::geteuid().is_root(), socket) else {
        println!("skipped: only root can name another resolver");
        return;
    };
    let inside = Inside::new(socket);
    tries!(inside: a_chain_of_aliases, an_alias_of_the_loopback, an_answer_for_no_time, a_name_of_credentials);
    let came = inside.trap.accept();
    assert!(came.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock));
}

/// A chain of CNAME records whose end is in a private network.
/// > The addresses at its end are what is checked: `address_private`.
fn a_chain_of_aliases(inside: &Inside) {
    assert_eq!(
        inside.get("chain.test", inside.trap()),
        "403 address_private"
    );
}

/// One CNAME record to a name of the loopback.
/// > `address_loopback`.
fn an_alias_of_the_loopback(inside: &Inside) {
    assert_eq!(
        inside.get("alias.test", inside.trap()),
        "403 address_loopback"
    );
}

/// Rebinding by a real server of DNS: an open address for no time at all, and then one of the inside.
/// > The address that was checked is dialled; the next request is checked anew.
fn an_answer_for_no_time(inside: &Inside) {
    assert_eq!(inside.get("rebind.test", inside.open), "200");
    assert_eq!(
        inside.get("rebind.test", inside.open),
        "403 address_private"
    );
    assert_eq!(inside.asked.load(Ordering::Relaxed), 2);
}

/// A name of the attacker's whose address is where clouds answer with credentials.
/// > `address_metadata`.
fn a_name_of_credentials(inside: &Inside) {
    assert_eq!(
        inside.get("latest.test", inside.trap()),
        "403 address_metadata"
    );
}
