//! `flip lsp` as an editor talks to it: over standard input and output.

mod process;

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Stdio};

use process::flip;
use serde_json::{json, Value};

struct Editor {
    child: Child,
    into: Option<ChildStdin>,
    from: BufReader<ChildStdout>,
    requests: u64,
}

impl Editor {
    fn start(folder: &Path, capabilities: Value) -> (Editor, Value) {
        let mut child =
            flip(folder, &["lsp"]).stdin(Stdio::piped()).stderr(Stdio::inherit()).spawn().unwrap();
        let (into, from) = (child.stdin.take(), BufReader::new(child.stdout.take().unwrap()));
        let mut editor = Editor { child, into, from, requests: 0 };
        let server = editor.ask("initialize", json!({ "processId": null, "capabilities": capabilities }));
        editor.tell("initialized", json!({}));
        (editor, server)
    }

    fn send(&mut self, message: &Value) {
        let text = json!(message).to_string();
        let into = self.into.as_mut().unwrap();
        write!(into, "Content-Length: {}\r\n\r\n{text}", text.len()).unwrap();
        into.flush().unwrap();
    }

    fn tell(&mut self, method: &str, parameters: Value) {
        self.send(&json!({ "jsonrpc": "2.0", "method": method, "params": parameters }));
    }

    fn message(&mut self) -> Value {
        let mut length = 0;
        loop {
            let mut line = String::new();
            assert!(self.from.read_line(&mut line).unwrap() > 0, "the server went away");
            match line.trim_end().split_once(": ") {
                Some(("Content-Length", number)) => length = number.parse().unwrap(),
                Some(_) => {}
                None => break,
            }
        }
        let mut body = vec![0; length];
        self.from.read_exact(&mut body).unwrap();
        serde_json::from_slice(&body).unwrap()
    }

    fn answer(&mut self, method: &str, parameters: Value) -> Value {
        self.requests += 1;
        let id = self.requests;
        self.send(&json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": parameters }));
        loop {
            let message = self.message();
            if message["id"] == id {
                return message;
            }
        }
    }

    #[track_caller]
    fn ask(&mut self, method: &str, parameters: Value) -> Value {
        let answer = self.answer(method, parameters);
        assert!(answer["error"].is_null(), "{answer}");
        answer["result"].clone()
    }

    /// Opens or changes a document; returns its diagnostics.
    fn write(&mut self, uri: &str, version: u64, text: &str) -> Vec<Value> {
        let document = json!({ "uri": uri, "languageId": "ron", "version": version, "text": text });
        match version {
            1 => self.tell("textDocument/didOpen", json!({ "textDocument": document })),
            _ => self.tell(
                "textDocument/didChange",
                json!({ "textDocument": document, "contentChanges": [{ "text": text }] }),
            ),
        }
        let message = self.message();
        assert_eq!(message["method"], "textDocument/publishDiagnostics");
        assert_eq!(
            (&message["params"]["uri"], &message["params"]["version"]),
            (&uri.into(), &version.into())
        );
        message["params"]["diagnostics"].as_array().unwrap().clone()
    }

    fn at(&mut self, method: &str, uri: &str, line: usize, character: usize) -> Value {
        let position = json!({ "line": line, "character": character });
        self.ask(method, json!({ "textDocument": { "uri": uri }, "position": position }))
    }
}

impl Drop for Editor {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn quickstart() -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("recipes/quickstart.ron")).unwrap()
}

/// Diagnostics of a document without mistakes.
const NO_MISTAKES: [Value; 0] = [];

/// Line and UTF-16 unit of a piece of text.
fn place(text: &str, piece: &str) -> (usize, usize) {
    let before = &text[..text.find(piece).unwrap_or_else(|| panic!("{piece}"))];
    let line = before.rsplit('\n').next().unwrap();
    (before.matches('\n').count(), line.encode_utf16().count())
}

fn labels(answer: &Value) -> Vec<&str> {
    answer["items"].as_array().unwrap().iter().map(|item| item["label"].as_str().unwrap()).collect()
}

#[test]
fn errors_stand_at_their_place_and_go_when_they_are_mended() {
    let there = tempfile::tempdir().unwrap();
    let (mut editor, server) = Editor::start(there.path(), json!({}));
    assert_eq!(server["capabilities"]["positionEncoding"], "utf-16");
    let uri = format!("file://{}/a%20recipe.ron", there.path().display());
    let good = quickstart();
    assert_eq!(editor.write(&uri, 1, &good), NO_MISTAKES);
    // Behind characters of one and of two UTF-16 units.
    let (line, _) = place(&good, "image_mask");
    let text = good.lines().nth(line).unwrap();
    let wrong = good.replacen(
        text,
        &format!("/* größer \u{1f600} */ {}", text.replacen("image_mask", "image_msak", 1)),
        1,
    );
    let diagnostics = editor.write(&uri, 2, &wrong);
    let (line, unit) = place(&wrong, "image_msak");
    let found = diagnostics.iter().find(|found| found["message"].as_str().unwrap().contains("image_msak"));
    let found = found.unwrap_or_else(|| panic!("{diagnostics:?}"));
    let expected = json!({
        "start": { "line": line, "character": unit }, "end": { "line": line, "character": unit + "image_msak".len() },
    });
    assert_eq!(found["range"], expected);
    assert!(found["message"].as_str().unwrap().contains("did you mean `image_mask`"), "{found}");
    // The syntax, a value, a file that is not there.
    let cut = &good[..good.len() / 2];
    assert!(!editor.write(&uri, 3, cut).is_empty());
    let minus = good.replacen("    name: \"quickstart\",", "    name: \"quickstart\",\n    seed: -1,", 1);
    let diagnostics = editor.write(&uri, 4, &minus);
    assert_eq!(diagnostics.len(), 1, "{diagnostics:?}");
    assert_eq!(diagnostics[0]["range"]["start"]["line"], place(&minus, "seed: -1").0);
    assert_eq!(editor.write(&uri, 5, &good), NO_MISTAKES);
    editor.tell("textDocument/didClose", json!({ "textDocument": { "uri": uri } }));
    assert_eq!(editor.message()["params"]["diagnostics"], json!([]));
    // A study is held against its own form, and logging is no recipe.
    let study = format!("file://{}/study.ron", there.path().display());
    let diagnostics = editor.write(&study, 1, "(recipe: \"quickstart.ron\", claim_: \"a\")");
    assert!(
        diagnostics.iter().any(|found| found["message"].as_str().unwrap().contains("claim_")),
        "{diagnostics:?}"
    );
    let logging = format!("file://{}/logging.ron", there.path().display());
    assert_eq!(editor.write(&logging, 1, "(level: Info)"), NO_MISTAKES);
}

#[test]
fn fields_variants_and_their_documentation_are_offered() {
    let there = tempfile::tempdir().unwrap();
    let snippets =
        json!({ "textDocument": { "completion": { "completionItem": { "snippetSupport": true } } } });
    for (capabilities, is_snippet) in [(snippets, true), (json!({}), false)] {
        let (mut editor, _) = Editor::start(there.path(), capabilities);
        let uri = "untitled:recipe";
        let text = "(\n    name: \"größer\",\n    stages: [Pretrain(ba, image_mask: )],\n)\n";
        assert!(!editor.write(uri, 1, text).is_empty());
        let (line, unit) = place(text, "ba,");
        let found = editor.at("textDocument/completion", uri, line, unit + 2);
        assert!(labels(&found).contains(&"batch") && !labels(&found).contains(&"image_mask"), "{found}");
        let batch = found["items"].as_array().unwrap().iter().find(|item| item["label"] == "batch").unwrap();
        let replaced = json!({ "start": { "line": line, "character": unit }, "end": { "line": line, "character": unit + 2 } });
        assert_eq!(batch["textEdit"]["range"], replaced);
        let new = if is_snippet { "batch: $0" } else { "batch: " };
        assert_eq!(batch["textEdit"]["newText"], new);
        assert!(batch["documentation"]["value"].as_str().unwrap().starts_with("**batch**"), "{batch}");

        let (line, unit) = place(text, ")],");
        let found = editor.at("textDocument/completion", uri, line, unit);
        assert!(labels(&found).contains(&"Keep") && labels(&found).contains(&"Random"), "{found}");
        let (line, unit) = place(text, "ame:");
        let hover = editor.at("textDocument/hover", uri, line, unit);
        assert!(hover["contents"]["value"].as_str().unwrap().contains("Names the run folder"), "{hover}");
        assert_eq!(hover["range"]["start"], json!({ "line": line, "character": unit - 1 }));
        assert_eq!(editor.at("textDocument/hover", uri, 0, 0), Value::Null);
        editor.ask("shutdown", Value::Null);
        editor.tell("exit", Value::Null);
        assert!(editor.child.wait().unwrap().success());
    }
}

#[test]
fn every_prefix_of_a_recipe_and_wrong_requests_are_answered() {
    let there = tempfile::tempdir().unwrap();
    let (mut editor, server) =
        Editor::start(there.path(), json!({ "general": { "positionEncodings": ["utf-8", "utf-16"] } }));
    assert_eq!(server["capabilities"]["positionEncoding"], "utf-8");
    let (uri, text) = ("untitled:a", quickstart());
    for (version, end) in (0..=text.len()).step_by(23).filter(|end| text.is_char_boundary(*end)).enumerate() {
        let begun = &text[..end];
        editor.write(uri, version as u64 + 1, begun);
        let line = begun.matches('\n').count();
        let column = begun.rsplit('\n').next().unwrap().len();
        editor.at("textDocument/completion", uri, line, column);
        editor.at("textDocument/hover", uri, line, column);
    }
    assert!(editor.at("textDocument/hover", uri, usize::MAX >> 1, usize::MAX >> 1).is_null());
    assert!(editor.at("textDocument/completion", "untitled:unknown", 0, 0).is_null());
    for wrong in [json!(null), json!({}), json!([1]), json!({ "textDocument": 1, "position": -1 })] {
        assert!(editor.ask("textDocument/completion", wrong.clone()).is_null());
        for method in ["textDocument/didOpen", "textDocument/didChange", "textDocument/didClose", "$/unknown"]
        {
            editor.tell(method, wrong.clone());
        }
    }
    assert_eq!(editor.answer("textDocument/rename", json!({}))["error"]["code"], -32601);
    let long = "a".repeat(3 << 20);
    assert_eq!(editor.write("untitled:long", 1, &long), NO_MISTAKES);
    // The editor is killed: its server ends too.
    drop(editor.into.take());
    let _ = editor.child.wait().unwrap();
}
