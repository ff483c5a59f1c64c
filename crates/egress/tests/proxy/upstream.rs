//! Whatever is let out leaves through a SOCKS5 proxy that rules name, or not at all.

use crate::inspect::Outside;
use crate::world::{World, is_untouched, open, read_all, read_until, server, trap};
use egress::inspect::{Authority, Inspector, Roots};
use egress::record::Verdict;
use egress::upstream::Password;
use model::network::{NetworkRules, Order};
use std::net::SocketAddr;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;

/// A SOCKS5 proxy that answers with this code; what it was asked for comes out, with the login.
async fn proxy(login: bool, code: u8) -> (u16, mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("a port").port();
    let (tell, asked) = mpsc::channel(16);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let tell = tell.clone();
            tokio::spawn(async move { drop(serve(&mut stream, login, code, &tell).await) });
        }
    });
    (port, asked)
}

/// The same in TLS, with a login and a certificate for this name.
async fn secured(outside: &Outside, name: &str) -> (u16, mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("a port").port();
    let (tell, asked) = mpsc::channel(16);
    let acceptor = TlsAcceptor::from(outside.config(name));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (tell, acceptor) = (tell.clone(), acceptor.clone());
            tokio::spawn(async move {
                if let Ok(mut stream) = acceptor.accept(stream).await {
                    drop(serve(&mut stream, true, 0, &tell).await);
                }
            });
        }
    });
    (port, asked)
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    login: bool,
    code: u8,
    tell: &mpsc::Sender<String>,
) -> std::io::Result<()> {
    let mut said = String::new();
    let offered = if login { 2 } else { 0 };
    let mut hello = [0; 3];
    stream.read_exact(&mut hello).await?;
    assert_eq!(hello, [5, 1, offered]);
    stream.write_all(&[5, offered]).await?;
    if login {
        assert_eq!(stream.read_u8().await?, 1);
        for _ in 0..2 {
            let mut word = vec![0; usize::from(stream.read_u8().await?)];
            stream.read_exact(&mut word).await?;
            said += &String::from_utf8_lossy(&word);
            said += " ";
        }
        stream.write_all(&[1, 0]).await?;
    }
    let mut asked = [0; 10];
    stream.read_exact(&mut asked).await?;
    let [5, 1, 0, 1, a, b, c, d, high, low] = asked else {
        return Err(std::io::ErrorKind::InvalidData.into());
    };
    let port = u16::from_be_bytes([high, low]);
    let to = SocketAddr::from(([a, b, c, d], port));
    said += &to.to_string();
    drop(tell.send(said).await);
    stream.write_all(&[5, code, 0, 1, 0, 0, 0, 0, 0, 0]).await?;
    if code == 0 {
        let mut outside = TcpStream::connect(to).await?;
        drop(copy_bidirectional(stream, &mut outside).await);
    }
    Ok(())
}

fn through(text: &str) -> NetworkRules {
    NetworkRules {
        upstream: Some(text.parse().expect("a proxy")),
        ..open()
    }
}

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi";

#[tokio::test]
async fn what_is_let_out_leaves_through_the_proxy_and_by_its_address() {
    let (port, mut seen) = server(OK).await;
    let (via, mut asked) = proxy(false, 0).await;
    let rules = through(&format!("socks5://proxy.test:{via}"));
    let mut world = World::new(&["127.0.0.1"], rules);
    let answer = world.get(&format!("http://a.test:{port}/")).await;
    assert!(answer.ends_with("hi"), "{answer}");
    assert_eq!(
        asked.recv().await.expect("a question"),
        format!("127.0.0.1:{port}")
    );
    assert!(seen.recv().await.expect("a request").starts_with("GET / "));
    let record = world.next().await;
    assert_eq!(record.verdict, Verdict::Allowed);
    assert_eq!(record.address.expect("an address").port(), port);
    // A tunnel, too.
    let mut stream = world.connect();
    let head = format!("CONNECT a.test:{port} HTTP/1.1\r\nhost: a.test:{port}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.expect("a stream");
    assert!(
        read_until(&mut stream, "\r\n\r\n")
            .await
            .starts_with("HTTP/1.1 200")
    );
    asked.recv().await.expect("a question");
    let get = format!("GET /x HTTP/1.1\r\nhost: a.test:{port}\r\n\r\n");
    stream.write_all(get.as_bytes()).await.expect("a stream");
    assert!(read_all(&mut stream).await.ends_with("hi"));
}

#[tokio::test]
async fn the_password_is_told_to_the_proxy_and_to_nobody_else() {
    let (port, _seen) = server(OK).await;
    let (via, mut asked) = proxy(true, 0).await;
    let rules = through(&format!("socks5://me@127.0.0.1:{via}"));
    let world = World::new(&["127.0.0.1"], rules);
    // Without its password nothing leaves.
    let url = format!("http://a.test:{port}/");
    let answer = world.get(&url).await;
    assert!(
        answer.contains("x-proxy-error: upstream_failed\r\n"),
        "{answer}"
    );
    let authority = Authority::make(1_800_000_000).expect("an authority");
    let inspector = Inspector::new(Vec::new(), authority, &Roots::of_pem("")).expect("TLS");
    let password = Password::new(b"canary");
    assert_eq!(format!("{password:?}"), "Some(Password(..))");
    world.way.look_into(inspector.with_password(password));
    let answer = world.get(&url).await;
    assert!(
        answer.ends_with("hi") && !answer.contains("canary"),
        "{answer}"
    );
    let said = asked.recv().await.expect("a question");
    assert_eq!(said, format!("me canary 127.0.0.1:{port}"));
    assert!(Password::new(&[0; 256]).is_none() && Password::new(b"").is_none());
}

#[tokio::test]
async fn where_the_proxy_fails_or_is_closed_nothing_leaves_by_another_way() {
    let (port, trapped) = trap().await;
    for code in [1, 2, 5] {
        let (via, _asked) = proxy(false, code).await;
        let rules = through(&format!("socks5://127.0.0.1:{via}"));
        let world = World::new(&["127.0.0.1"], rules);
        let answer = world.get(&format!("http://a.test:{port}/")).await;
        let expect = if code == 5 {
            "unreachable"
        } else {
            "upstream_failed"
        };
        assert!(
            answer.contains(&format!("x-proxy-error: {expect}\r\n")),
            "{answer}"
        );
    }
    // Nobody knows its name.
    let world = World::new(&["127.0.0.1"], through("socks5://nobody.example:1080"));
    let answer = world.get(&format!("http://a.test:{port}/")).await;
    assert!(
        answer.contains("x-proxy-error: upstream_failed\r\n"),
        "{answer}"
    );
    // The addresses of a proxy are closed as all are, unless the operator opened them.
    let only = format!("127.0.0.1:{port}");
    let (via, mut asked) = proxy(false, 0).await;
    let world = World::new(&[&only], through(&format!("socks5://proxy.test:{via}")));
    let answer = world.get(&format!("http://a.test:{port}/")).await;
    assert!(
        answer.contains("x-proxy-error: address_loopback\r\n"),
        "{answer}"
    );
    assert!(asked.try_recv().is_err());
    // What is denied is not even asked of it.
    let world = World::new(&[], through(&format!("socks5://127.0.0.1:{via}")));
    let answer = world.get(&format!("http://a.test:{port}/")).await;
    assert!(
        answer.contains("x-proxy-error: address_loopback\r\n"),
        "{answer}"
    );
    assert!(asked.try_recv().is_err() && is_untouched(&trapped).await);
}

/// Attack: a range that a policy denies is dialled all the same, as a proxy that has a name there.
#[tokio::test]
async fn a_proxy_whose_address_is_denied_is_not_dialled_whatever_it_is_called() {
    let (port, trapped) = trap().await;
    for (deny, order) in [
        ("127.0.0.0/8", Order::DenyFirst),
        ("127.0.0.0/8", Order::AllowFirst),
        ("proxy.test", Order::DenyFirst),
    ] {
        let (via, mut asked) = proxy(false, 0).await;
        let mut rules = through(&format!("socks5://proxy.test:{via}"));
        let at_proxy = format!("{deny}:{via}");
        rules.deny = vec![at_proxy.parse().expect("an entry")];
        rules.allow = match order {
            Order::DenyFirst => Vec::new(),
            Order::AllowFirst => vec!["a.test".parse().expect("an entry")],
        };
        rules.order = order;
        let world = World::new(&["127.0.0.1"], rules);
        let answer = world.get(&format!("http://a.test:{port}/")).await;
        assert!(
            answer.contains("x-proxy-error: host_denied\r\n"),
            "{answer}"
        );
        assert!(asked.try_recv().is_err());
    }
    assert!(is_untouched(&trapped).await);
}

/// With a password, and whom the node trusts.
fn looks(world: &World, roots: &Roots) {
    let authority = Authority::make(1_800_000_000).expect("an authority");
    let inspector = Inspector::new(Vec::new(), authority, roots).expect("TLS");
    let password = Password::new(b"canary");
    world.way.look_into(inspector.with_password(password));
}

#[tokio::test]
async fn a_proxy_in_tls_is_told_the_password_once_it_has_shown_who_it_is() {
    let (port, _seen) = server(OK).await;
    let (ours, others) = (Outside::new(), Outside::new());
    let (via, mut asked) = secured(&ours, "proxy.test").await;
    let url = format!("http://a.test:{port}/");
    let of = |text: &str, ca: Option<&Outside>| NetworkRules {
        upstream_ca: ca.map(Outside::pem),
        ..through(text)
    };
    let by_name = format!("socks5+tls://me@proxy.test:{via}");
    let by_address = format!("socks5+tls://me@127.0.0.1:{via}?name=proxy.test");
    for (rules, roots) in [
        (of(&by_name, None), ours.roots()),
        (of(&by_address, None), ours.roots()),
        // Whom the rules name is believed in the place of whom the node trusts.
        (of(&by_name, Some(&ours)), others.roots()),
    ] {
        let world = World::new(&["127.0.0.1"], rules);
        looks(&world, &roots);
        let answer = world.get(&url).await;
        assert!(answer.ends_with("hi"), "{answer}");
        let said = asked.recv().await.expect("a question");
        assert_eq!(said, format!("me canary 127.0.0.1:{port}"));
    }
    for (rules, roots) in [
        (of(&by_name, None), others.roots()),
        (of(&by_name, Some(&others)), ours.roots()),
        (
            of(&format!("{by_name}?name=other.test"), None),
            ours.roots(),
        ),
        (
            of(&format!("socks5+tls://me@127.0.0.1:{via}"), None),
            ours.roots(),
        ),
        (of(&by_name, None), Roots::of_pem("")),
    ] {
        let world = World::new(&["127.0.0.1"], rules);
        looks(&world, &roots);
        let answer = world.get(&url).await;
        assert!(
            answer.contains("x-proxy-error: upstream_failed\r\n"),
            "{answer}"
        );
        assert!(!answer.contains("canary"), "{answer}");
    }
    // Who speaks no TLS at all learns nothing either.
    let (via, mut bare) = proxy(true, 0).await;
    let world = World::new(
        &["127.0.0.1"],
        of(&format!("socks5+tls://me@proxy.test:{via}"), None),
    );
    looks(&world, &ours.roots());
    let answer = world.get(&url).await;
    assert!(
        answer.contains("x-proxy-error: upstream_failed\r\n"),
        "{answer}"
    );
    assert!(asked.try_recv().is_err() && bare.try_recv().is_err());
}

#[tokio::test]
async fn a_tunnel_through_a_proxy_in_tls_carries_both_ways_to_its_end() {
    let (port, mut seen) = server(vec![b'x'; 300_000]).await;
    let ours = Outside::new();
    let (via, _asked) = secured(&ours, "proxy.test").await;
    let rules = through(&format!("socks5+tls://me@proxy.test:{via}"));
    let world = World::new(&["127.0.0.1"], rules);
    looks(&world, &ours.roots());
    let mut stream = world.connect();
    let head = format!("CONNECT a.test:{port} HTTP/1.1\r\nhost: a.test:{port}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.expect("a stream");
    assert!(
        read_until(&mut stream, "\r\n\r\n")
            .await
            .starts_with("HTTP/1.1 200")
    );
    let more = "y".repeat(200_000);
    let said = format!("GET /x HTTP/1.1\r\nhost: a.test:{port}\r\n\r\n{more}");
    let (mut from, mut to) = tokio::io::split(stream);
    let writing = async {
        to.write_all(said.as_bytes()).await.expect("a stream");
        to.shutdown().await.expect("a stream");
    };
    let (answer, ()) = tokio::join!(read_all(&mut from), writing);
    assert_eq!(answer.len(), 300_000);
    let heard = seen.recv().await.expect("a request");
    assert!(
        heard.len() >= said.len(),
        "{} of {}",
        heard.len(),
        said.len()
    );
}
