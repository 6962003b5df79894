//! `flip lsp`: recipes and studies checked, completed and explained in an editor, over the language server protocol.

mod answers;
mod documents;
mod position;

use std::io;

use lsp_server::{Connection, ErrorCode, Message, Notification, Request, Response};
use serde_json::{json, Value};

use super::{Failure, Outcome};
use documents::Documents;
use position::Encoding;

/// Serves the editor that started this process, until it says that it is enough.
pub fn lsp() -> Result<Outcome, Failure> {
    let (connection, threads) = Connection::stdio();
    serve(&connection)?;
    // The thread that writes ends with it.
    drop(connection);
    threads.join()?;
    Ok(Outcome::Done)
}

fn serve(connection: &Connection) -> Result<(), Failure> {
    let (id, parameters) = connection.initialize_start()?;
    let client = &parameters["capabilities"];
    let encoding = Encoding::of(&client["general"]["positionEncodings"]);
    let snippets =
        client["textDocument"]["completion"]["completionItem"]["snippetSupport"].as_bool().unwrap_or(false);
    connection.initialize_finish(id, capabilities(encoding))?;
    let mut documents = Documents::new(encoding, snippets);
    for message in &connection.receiver {
        match message {
            Message::Request(request) => {
                if connection.handle_shutdown(&request)? {
                    return Ok(());
                }
                send(connection, Message::Response(answer(&documents, request)))?;
            }
            Message::Notification(notification) => {
                if let Some(diagnostics) = notice(&mut documents, notification) {
                    send(connection, Message::Notification(diagnostics))?;
                }
            }
            // Nothing is asked of the editor.
            Message::Response(_) => {}
        }
    }
    Ok(())
}

fn send(connection: &Connection, message: Message) -> Result<(), Failure> {
    let gone = |_| io::Error::new(io::ErrorKind::BrokenPipe, "the editor went away");
    Ok(connection.sender.send(message).map_err(gone)?)
}

fn capabilities(encoding: Encoding) -> Value {
    json!({
        "capabilities": {
            "positionEncoding": encoding.name(),
            // Whole texts: a recipe is small.
            "textDocumentSync": { "openClose": true, "change": 1 },
            "completionProvider": { "triggerCharacters": ["(", "[", ":", ",", " "] },
            "hoverProvider": true,
        },
        "serverInfo": { "name": "flip", "version": env!("CARGO_PKG_VERSION") },
    })
}

fn answer(documents: &Documents, request: Request) -> Response {
    let answered = match &*request.method {
        "textDocument/completion" => documents.complete(&request.params),
        "textDocument/hover" => documents.hover(&request.params),
        method => {
            let message = format!("{method} is not offered");
            return Response::new_err(request.id, ErrorCode::MethodNotFound as i32, message);
        }
    };
    Response::new_ok(request.id, answered.unwrap_or(Value::Null))
}

/// A document as the editor told it, and the mistakes that the editor was told of.
fn notice(documents: &mut Documents, notification: Notification) -> Option<Notification> {
    let parameters = &notification.params;
    let document = &parameters["textDocument"];
    let diagnostics = match &*notification.method {
        "textDocument/didOpen" => documents.open(document, document["text"].as_str()?),
        "textDocument/didChange" => {
            let last = parameters["contentChanges"].as_array()?.last()?;
            documents.open(document, last["text"].as_str()?)
        }
        "textDocument/didClose" => documents.close(document),
        _ => None,
    }?;
    Some(Notification::new("textDocument/publishDiagnostics".into(), diagnostics))
}
