//! Secrets in URLs: a signature in the query, a user with a password.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;

use super::{files, flip, said, shard, RECIPE};

const SECRET: &str = "s3cr3tsignature";

/// Answers every request as `answer` says, which is given the first line of the request, until the test ends.
fn server(answer: impl Fn(&str) -> Vec<u8> + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { continue };
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            let request = lines.next().and_then(Result::ok).unwrap_or_default();
            while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
            // A client that goes away is none of the server's business.
            let _ = stream.write_all(&answer(&request));
        }
    });
    address
}

fn found(body: &[u8]) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nETag: \"1\"\r\nConnection: close\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

const REFUSED: &[u8] = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

#[track_caller]
fn holds_no_secret(folder: &Path) {
    for path in files(folder) {
        let bytes = fs::read(&path).unwrap();
        let found = bytes.windows(SECRET.len()).any(|window| window == SECRET.as_bytes());
        assert!(!found, "{} holds the secret", path.display());
    }
}

/// A recipe that trains on shards behind a URL.
fn recipe(folder: &Path, url: &str) {
    let storage = "storage: (cache: \"cache\", attempts: 1, stall_warning_s: 2.0, stall_limit_s: 5.0)";
    let source = format!("WebDataset(shards: \"{url}\"), {storage}");
    let text = RECIPE.replace("train: Scenes(size: 32, split: Train)", &format!("train: {source}"));
    assert!(text.contains(url));
    fs::write(folder.join("recipe.ron"), text).unwrap();
}

#[test]
fn a_run_on_signed_urls_keeps_no_secret_and_goes_on_with_another_signature() {
    let there = tempfile::tempdir().unwrap();
    let samples: Vec<_> = (0..40).map(|at| (format!("k{at}"), format!("image number {at}"))).collect();
    let samples: Vec<_> = samples.iter().map(|(key, caption)| (&**key, &**caption)).collect();
    let body = shard(&samples);
    let address = server(move |request| match request.contains(SECRET) {
        true => found(&body),
        false => REFUSED.to_vec(),
    });
    let url = format!("http://user:{SECRET}@{address}/{{0..1}}.tar?sig={SECRET}");
    recipe(there.path(), &url);
    let run = |recipe: &str, more: &[&str]| {
        let arguments = [&["run", recipe, "--out", "run"], more].concat();
        let done = flip(there.path(), &arguments).output().unwrap();
        assert!(!said(&done).contains(SECRET), "{}", said(&done));
        done
    };
    let done = run("recipe.ron", &[]);
    assert!(done.status.success(), "{}", said(&done));
    holds_no_secret(&there.path().join("run"));
    let stored = fs::read_to_string(there.path().join("run/recipe.ron")).unwrap();
    let shown = format!("http://{address}/{{0..1}}.tar?...");
    assert!(stored.contains(&shown), "{stored}");

    for command in ["validate", "card", "compare"] {
        let of = if command == "validate" { "recipe.ron" } else { "run" };
        let done = flip(there.path(), &[command, of]).output().unwrap();
        assert!(done.status.success(), "{command}: {}", said(&done));
        assert!(!said(&done).contains(SECRET), "{command}: {}", said(&done));
    }
    holds_no_secret(&there.path().join("run"));
    let page = fs::read_to_string(there.path().join("compare.html")).unwrap();
    assert!(!page.contains(SECRET));

    // The signature of another day: the same data.
    recipe(there.path(), &url.replace("?sig=", "?day=2&sig="));
    let again = run("recipe.ron", &["--resume"]);
    assert!(again.status.success(), "{}", said(&again));
    // Another file: not the same.
    recipe(there.path(), &url.replace("{0..1}", "{0..2}"));
    let other = run("recipe.ron", &["--resume"]);
    assert_eq!(other.status.code(), Some(2), "{}", said(&other));
    assert!(said(&other).contains("different recipe"), "{}", said(&other));
}

#[test]
fn a_stored_recipe_says_what_to_do_about_the_query_that_it_does_not_hold() {
    let there = tempfile::tempdir().unwrap();
    recipe(there.path(), "http://127.0.0.1:9/a.tar?...");
    let done = flip(there.path(), &["run", "recipe.ron", "--out", "run"]).output().unwrap();
    assert!(!done.status.success());
    let said = said(&done);
    assert!(said.contains("http://127.0.0.1:9/a.tar?...: a run folder does not keep the query"), "{said}");
    assert!(said.contains("--set") && said.contains("${NAME}"), "{said}");
}

#[test]
fn a_signature_can_come_from_the_environment() {
    let there = tempfile::tempdir().unwrap();
    let body = shard(&[("a", "one image"), ("b", "two images"), ("c", "three images")]);
    let address = server(move |request| match request.contains(&format!("/a.tar?sig={SECRET} ")) {
        true => found(&body),
        false => REFUSED.to_vec(),
    });
    let url = format!("http://{address}/a.tar?sig=${{FLIP_TEST_SIGNATURE}}");
    recipe(there.path(), &url);
    let run = |out: &str, recipe: &str| {
        let mut command = flip(there.path(), &["run", recipe, "--out", out]);
        command.env("FLIP_TEST_SIGNATURE", SECRET).output().unwrap()
    };
    let done = run("run", "recipe.ron");
    assert!(done.status.success(), "{}", said(&done));
    holds_no_secret(&there.path().join("run"));
    // The stored recipe names the variable, so it can be run as it is.
    assert!(fs::read_to_string(there.path().join("run/recipe.ron")).unwrap().contains(&url));
    let again = run("again", "run/recipe.ron");
    assert!(again.status.success(), "{}", said(&again));

    let unset = flip(there.path(), &["run", "recipe.ron", "--out", "unset"]).output().unwrap();
    assert!(!unset.status.success());
    assert!(
        said(&unset).contains("the environment variable FLIP_TEST_SIGNATURE is not set"),
        "{}",
        said(&unset)
    );
}

#[test]
fn errors_of_connections_and_redirects_hold_no_secret() {
    let there = tempfile::tempdir().unwrap();
    let refusing = server(|_| REFUSED.to_vec());
    let moving = server(|_| {
        let to = format!("Location: /again.tar?sig={SECRET}");
        format!("HTTP/1.1 302 Found\r\n{to}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").into_bytes()
    });
    let nobody = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap();
    for (case, address) in [("refused", refusing), ("redirected", moving), ("unreachable", nobody)] {
        recipe(there.path(), &format!("http://user:{SECRET}@{address}/a.tar?sig={SECRET}"));
        let done = flip(there.path(), &["run", "recipe.ron", "--out", case]).output().unwrap();
        let said = said(&done);
        assert!(!done.status.success(), "{case}: {said}");
        assert!(said.contains("a.tar?..."), "{case}: {said}");
        assert!(!said.contains(SECRET), "{case}: {said}");
    }
    for run in ["refused", "redirected", "unreachable"] {
        holds_no_secret(&there.path().join(run));
    }
}
