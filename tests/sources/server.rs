//! A small http server on the loopback interface, with the faults of real ones.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// What the server does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    None,
    /// Every third connection ends in the middle of its answer.
    BreakEveryThird,
    /// Nothing comes behind the headers.
    Silent,
    /// So from then on: this many connections are answered first.
    SilentAfter(usize),
    /// The first connections are answered with this status.
    Status(u16, usize),
    /// The first connections are answered with a web page, as if it were the file.
    Page(usize),
    /// The length is not told, and on the first connections only the first bytes of the file come.
    Lengthless {
        cut: usize,
        bytes: usize,
    },
    /// The length is not told, and the file does not end.
    Endless,
    /// The first connection ends in the middle; from then on there is another file of the same length, which was
    /// changed within the same second. Its tag is weak.
    Changing,
}

/// What the server has seen.
#[derive(Debug, Clone, Copy, Default)]
pub struct Seen {
    pub connections: usize,
    /// Answers that ended in the middle.
    pub broken: usize,
    /// Requests for the rest of a file.
    pub continued: usize,
    /// Bytes of files that were sent whole.
    pub bytes: usize,
}

/// The server; it stops when it is dropped.
pub struct Server {
    address: SocketAddr,
    stopped: Arc<AtomicBool>,
    seen: Arc<Mutex<Seen>>,
    fault: Arc<Mutex<Fault>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Serves files by path, one request a connection.
    pub fn start(files: BTreeMap<String, Vec<u8>>, fault: Fault) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let stopped = Arc::new(AtomicBool::new(false));
        let seen = Arc::new(Mutex::new(Seen::default()));
        let fault = Arc::new(Mutex::new(fault));
        let (stop, counts, faults) = (stopped.clone(), seen.clone(), fault.clone());
        let thread = std::thread::spawn(move || {
            let files = &files;
            std::thread::scope(|scope| {
                for stream in listener.incoming() {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let (Ok(stream), stop, counts, faults) = (stream, &stop, &counts, &faults) else {
                        continue;
                    };
                    scope.spawn(move || {
                        // A client that goes away is none of the server's business.
                        let _ = answer(stream, files, faults, counts, stop);
                    });
                }
            });
        });
        Server { address, stopped, seen, fault, thread: Some(thread) }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From now on it does this wrong.
    pub fn set(&self, fault: Fault) {
        *self.fault.lock().unwrap() = fault;
    }

    pub fn seen(&self) -> Seen {
        *self.seen.lock().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        // Wakes the thread that waits for a connection.
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn answer(
    mut stream: TcpStream,
    files: &BTreeMap<String, Vec<u8>>,
    faults: &Mutex<Fault>,
    counts: &Mutex<Seen>,
    stop: &AtomicBool,
) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let request = lines.next().unwrap_or(Ok(String::new()))?;
    let mut first = 0;
    for line in lines {
        let line = line?.to_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(range) = line.strip_prefix("range: bytes=") {
            first = range.trim_end_matches('-').parse().unwrap();
        }
    }
    let path = request.split(' ').nth(1).unwrap_or_default();
    let fault = *faults.lock().unwrap();
    let (breaks, silent) = {
        let mut seen = counts.lock().unwrap();
        seen.connections += 1;
        seen.continued += usize::from(first > 0);
        let breaks = fault == Fault::BreakEveryThird && seen.connections.is_multiple_of(3);
        let silent = match fault {
            Fault::Silent => true,
            Fault::SilentAfter(answered) => seen.connections > answered,
            _ => false,
        };
        (breaks, silent)
    };
    let number = counts.lock().unwrap().connections;
    if let Some((bucket, query)) = path.split_once('?').filter(|(_, query)| query.contains("list-type=2")) {
        return list(stream, files, bucket, query);
    }
    let Some(file) = files.get(path.split('?').next().unwrap_or_default()) else {
        return stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    };
    const CLOSE: &str = "Connection: close\r\n\r\n";
    match fault {
        Fault::Status(status, times) if number <= times => {
            return write!(stream, "HTTP/1.1 {status} Told\r\nContent-Length: 0\r\n{CLOSE}");
        }
        Fault::Page(times) if number <= times => {
            let page = "<!DOCTYPE html><html><body>We are back soon.</body></html>";
            return write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n{CLOSE}{page}", page.len());
        }
        Fault::Lengthless { cut, bytes } => {
            write!(stream, "HTTP/1.1 200 OK\r\n{CLOSE}")?;
            return stream.write_all(if number <= cut { &file[..bytes] } else { file });
        }
        Fault::Endless => {
            write!(stream, "HTTP/1.1 200 OK\r\n{CLOSE}")?;
            // Far more than the cache of any test; who reads is to stop.
            return (0..1 << 14).try_for_each(|_| stream.write_all(&[7; 1 << 15]));
        }
        Fault::Changing => {
            let body: Vec<u8> =
                file.iter().map(|byte| if number == 1 { byte ^ 0x55 } else { *byte }).collect();
            let length = body.len() - first;
            let status = if first == 0 { "200 OK" } else { "206 Partial Content" };
            write!(
                stream,
                "HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\
                 Content-Range: bytes {first}-{}/{}\r\nETag: W/\"same\"\r\n\
                 Last-Modified: Wed, 25 Nov 2026 10:00:00 GMT\r\nDate: Wed, 25 Nov 2026 10:00:00 GMT\r\n{CLOSE}",
                body.len() - 1,
                body.len()
            )?;
            return stream.write_all(&body[first..if number == 1 { body.len() / 2 } else { body.len() }]);
        }
        _ => {}
    }
    let body = &file[first..];
    let status = match first {
        0 => "200 OK".to_owned(),
        _ => format!("206 Partial Content\r\nContent-Range: bytes {first}-{}/{}", file.len() - 1, file.len()),
    };
    let length = body.len();
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nETag: \"{}\"\r\n\
         Last-Modified: Wed, 25 Nov 2026 10:00:00 GMT\r\nConnection: close\r\n\r\n",
        file.len()
    )?;
    if silent {
        while !stop.load(Ordering::Relaxed) && *faults.lock().unwrap() == fault {
            std::thread::sleep(Duration::from_millis(10));
        }
        return Ok(());
    }
    if breaks {
        counts.lock().unwrap().broken += 1;
        return stream.write_all(&body[..length / 2]);
    }
    counts.lock().unwrap().bytes += length;
    stream.write_all(body)
}

/// As S3 lists the objects of a bucket.
fn list(
    mut stream: TcpStream,
    files: &BTreeMap<String, Vec<u8>>,
    bucket: &str,
    query: &str,
) -> std::io::Result<()> {
    let prefix = query.split('&').find_map(|field| field.strip_prefix("prefix=")).unwrap_or_default();
    let prefix = prefix.replace("%2F", "/");
    let mut body = String::from("<ListBucketResult><IsTruncated>false</IsTruncated>");
    for (path, file) in files {
        let Some(key) = path.strip_prefix(&format!("{}/", bucket.trim_end_matches('/'))) else { continue };
        if key.starts_with(&prefix) {
            body += &format!(
                "<Contents><Key>{key}</Key><LastModified>2026-11-25T10:00:00.000Z</LastModified>\
                 <ETag>&quot;{}&quot;</ETag><Size>{}</Size></Contents>",
                file.len(),
                file.len()
            );
        }
    }
    body += "</ListBucketResult>";
    write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())
}
