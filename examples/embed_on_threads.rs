//! Image files embedded on a thread of their own while this one waits for the next: a model can be sent to another thread, and
//! lent to several.
//!
//!     cargo run --release --example embed_on_threads -- runs/quickstart image.png another.png

use std::error::Error;
use std::sync::mpsc::channel;

use flip::trained::Trained;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let trained = Trained::open(arguments.next().ok_or("expected: MODEL IMAGE [IMAGE ...]")?)?;
    let (ask, asked) = channel::<String>();
    let worker = std::thread::spawn(move || {
        for image in asked {
            match trained.embed_image(&image) {
                Ok(embedding) => println!("{image}: {:.3?} ...", &embedding[..embedding.len().min(4)]),
                Err(error) => println!("{error}"),
            }
        }
    });
    arguments.try_for_each(|image| ask.send(image))?;
    drop(ask);
    worker.join().map_err(|_| "the worker panicked")?;
    Ok(())
}
