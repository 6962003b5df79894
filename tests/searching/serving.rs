//! `flip serve` over HTTP.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::Child;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::http::{get, raw, request};
use crate::process::{ends_with, flip, signal};
use crate::{names, There};

/// A server that is ended with the test.
struct Server {
    child: Child,
    address: String,
}

impl Server {
    fn start(there: &There, arguments: &[&str]) -> Server {
        let all = [&["serve", "run", "--images", "images", "--port", "0"], arguments].concat();
        let mut child = flip(there.path(), &all).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let address = line.split("http://").nth(1).and_then(|rest| rest.split('/').next());
        let address = address.map(str::to_owned).unwrap_or_else(|| {
            let mut said = String::new();
            child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
            panic!("{line}{said}")
        });
        Server { child, address }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Ten images, one of them broken.
fn there() -> There {
    let there = There::new(&["run"]);
    for number in 0..9 {
        there.draw(&format!("{number}.png"), number, &format!("caption {number}"));
    }
    fs::write(there.image("broken.png"), "no image").unwrap();
    there
}

fn scores(found: &Value) -> Vec<f64> {
    found["found"].as_array().unwrap().iter().map(|hit| hit["score"].as_f64().unwrap()).collect()
}

#[test]
fn texts_images_and_neighbours_are_answered_as_the_command_does() {
    let there = there();
    let server = Server::start(&there, &[]);
    let at = &*server.address;
    let info = get(at, "/info").json(200);
    assert_eq!((&info["images"], &info["left_out"], &info["embed_dim"]), (&9.into(), &1.into(), &16.into()));

    let (expected, _) = there.found(&["a red circle", "-k", "4"]);
    let found = get(at, "/search?text=a+red%20circle&k=4").json(200);
    assert_eq!(found["found"], expected["found"]);
    assert_eq!(found["note"], Value::Null);
    let long = get(at, &format!("/search?text={}", "word+".repeat(40))).json(200);
    assert!(long["note"].as_str().unwrap().contains("reads the first 12"), "{long}");

    let bytes = fs::read(there.image("4.png")).unwrap();
    let found = request(at, "POST", "/search?k=3", "", &bytes).json(200);
    assert_eq!((names(&found)[0].as_str(), scores(&found).len()), ("4.png", 3));
    assert!((scores(&found)[0] - 1.0).abs() < 1e-5);
    assert_eq!(found["found"][0]["caption"], "caption 4");

    let id = found["found"][0]["id"].as_u64().unwrap();
    let near = get(at, &format!("/neighbours?id={id}")).json(200);
    assert_eq!(names(&near).len(), 8);
    assert_eq!(names(&near)[0], names(&found)[1]);
    assert!(!names(&near).contains(&"4.png".to_owned()));

    let image = get(at, &format!("/image?id={id}"));
    assert!(image.status == 200 && image.body == bytes);
    for line in [
        "content-type: image/png",
        "x-content-type-options: nosniff",
        "content-security-policy: default-src 'none'",
    ] {
        assert!(image.head.contains(line), "{}", image.head);
    }
    let small = get(at, &format!("/thumbnail?id={id}"));
    assert_eq!(image::guess_format(&small.body).unwrap(), image::ImageFormat::Jpeg);
    for path in ["/", "/page.js", "/page.css"] {
        let page = get(at, path);
        assert!(page.status == 200 && page.body.len() > 500, "{path}");
    }
    let head = request(at, "HEAD", "/info", "", b"");
    assert!(head.status == 200 && head.body.is_empty());
}

#[test]
fn wrong_and_hostile_requests_get_an_answer_and_nothing_else() {
    let there = there();
    let server = Server::start(&there, &[]);
    let at = &*server.address;
    let refused = |status: u16, method: &str, path: &str, more: &str, body: &[u8], expected: &str| {
        let answer = request(at, method, path, more, body).json(status);
        let error = answer["error"].as_str().unwrap();
        assert!(error.contains(expected), "{method} {path}: {error}");
    };
    refused(400, "GET", "/search", "", b"", "expected a text");
    refused(400, "GET", "/search?text=%20", "", b"", "expected a text");
    refused(400, "GET", "/search?text=a&k=0", "", b"", "from 1 to");
    refused(400, "GET", "/search?text=a&k=1000000", "", b"", "from 1 to");
    refused(413, "GET", &format!("/search?text={}", "a".repeat(20_000)), "", b"", "at most");
    refused(400, "POST", "/search", "", b"no image", "not an image");
    refused(400, "POST", "/search", "", b"", "zero bytes");
    refused(405, "DELETE", "/search", "", b"", "GET, HEAD, POST");
    refused(405, "POST", "/info", "", b"", "GET, HEAD");
    for id in ["9", "-1", "1e1", "", "..%2f..%2fetc%2fpasswd", "18446744073709551616"] {
        refused(404, "GET", &format!("/image?id={id}"), "", b"", "below 9");
    }
    for path in [
        "/../run.ron",
        "/images/1.png",
        "/%2e%2e/run.ron",
        "//etc/passwd",
        "/image/../../run.ron",
        "/flip.index",
    ] {
        refused(404, "GET", path, "", b"", "no such path");
    }
    refused(403, "GET", "/info", "Origin: http://evil.example\r\n", b"", "its own page");
    let rebound = raw(at, b"GET /info HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n");
    assert!(rebound.status == 403 && !String::from_utf8_lossy(&rebound.body).contains("model"));
    let long = b"POST /search HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 99999999999\r\n\r\n";
    assert_eq!(raw(at, &[&long[..], &vec![0; 40 << 20]].concat()).status, 413);
    for garbage in [&b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03"[..], b"GET\r\n\r\n", &vec![b'a'; 1 << 20]] {
        assert!(matches!(raw(at, garbage).status, 0 | 400 | 414 | 431));
    }
    // What was an image when it was indexed, and is something else by now.
    let found = request(at, "POST", "/search?k=1", "", &fs::read(there.image("4.png")).unwrap()).json(200);
    let id = found["found"][0]["id"].as_u64().unwrap();
    fs::remove_file(there.image("4.png")).unwrap();
    std::os::unix::fs::symlink(there.path().join("run.ron"), there.image("4.png")).unwrap();
    for path in ["/image", "/thumbnail"] {
        refused(404, "GET", &format!("{path}?id={id}"), "", b"", "no image");
    }
    assert_eq!(get(at, "/info").status, 200);
}

#[test]
fn slow_clients_are_dropped_and_hold_nobody_up() {
    let there = there();
    let server = Server::start(&there, &[]);
    // More than connections are let in.
    let mut idle: Vec<TcpStream> = (0..70).map(|_| TcpStream::connect(&server.address).unwrap()).collect();
    for stream in &mut idle {
        let _ = stream.write_all(b"GET /info HTTP/1.1\r\nHost: localh");
    }
    let began = Instant::now();
    assert_eq!(get(&server.address, "/info").status, 200);
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
}

#[test]
fn ctrl_c_ends_it_well_and_nobody_else_gets_in_by_default() {
    let there = there();
    let mut server = Server::start(&there, &[]);
    assert!(server.address.starts_with("127.0.0.1:"), "{}", server.address);
    let port = server.address.rsplit(':').next().unwrap().to_owned();
    let taken = ["serve", "run", "--images", "images", "--port", &port];
    let said = ends_with(2, flip(there.path(), &taken));
    assert!(said.contains("cannot listen on 127.0.0.1") && said.contains("--port 0"), "{said}");
    let mut open = TcpStream::connect(&server.address).unwrap();
    signal(server.child.id(), "-INT");
    let began = Instant::now();
    while server.child.try_wait().unwrap().is_none() {
        assert!(began.elapsed() < Duration::from_secs(20), "it does not end");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(server.child.wait().unwrap().code(), Some(0));
    assert_eq!(open.read(&mut [0; 1]).unwrap_or(0), 0);
    // Asked for, and said.
    let mut wide = Server::start(&there, &["--host", "0.0.0.0"]);
    signal(wide.child.id(), "-TERM");
    let mut said = String::new();
    wide.child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(said.contains("warning: whoever reaches this address"), "{said}");
}
