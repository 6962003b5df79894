//! Evaluated images as a person wants to see them: answers of the model, and the right ones marked.

use maud::{html, Markup};

use super::evaluation::Subject;
use super::outline::title;
use super::page::Text;
use crate::record::{Answer, Example, Examples};

/// The examples of the last stage that has them, of every subject.
pub(super) fn show(all: &[Examples], titles: &[String]) -> Markup {
    let subject =
        |examples: &Examples| (examples.kind.clone(), examples.dataset.clone(), examples.task.clone());
    let shown = all.iter().enumerate().filter(|(at, examples)| {
        let superseded = all[at + 1..].iter().any(|later| subject(later) == subject(examples));
        !superseded && !examples.examples.is_empty()
    });
    html! {
        @for (_, examples) in shown { (of_subject(examples, titles)) }
    }
}

fn of_subject(of: &Examples, titles: &[String]) -> Markup {
    let Examples { kind, dataset, task, examples, stage } = of;
    let subject = Subject { kind, dataset, task };
    let when = title(titles, *stage);
    let retrieval = examples.iter().any(|example| !example.images.is_empty());
    html! {
        @if retrieval {
            h2 { "Top retrievals: " (Text(subject.to_string())) }
            p {
                "Measured " (Text(when)) ". A caption; left its image, beside it the images nearest to the caption, below \
                 the captions nearest to the image. Framed and bold: the right one."
            }
            div.retrievals { @for example in examples { (retrieved(example)) } }
        } @else {
            h2 { "Largest mistakes: " (Text(subject.to_string())) }
            p {
                "Measured " (Text(when)) ". The images whose nearest class leads the right one by most, with the nearest \
                 classes and their similarities."
            }
            div.mistakes { @for example in examples { (mistaken(example)) } }
        }
    }
}

fn retrieved(example: &Example<String>) -> Markup {
    html! {
        div.retrieval {
            p { (Text(&example.caption)) }
            (image(&example.image, "An image that is asked about", false))
            div.found {
                @for (rank, answer) in example.images.iter().enumerate() {
                    (image(&answer.what, &format!("Found {}, similarity {:.2}", rank + 1, answer.similarity), answer.right))
                }
            }
            (texts(&example.texts))
        }
    }
}

fn mistaken(example: &Example<String>) -> Markup {
    html! {
        figure {
            (image(&example.image, "An image that was taken for something else", false))
            figcaption { (Text(&example.caption)) }
            (texts(&example.texts))
        }
    }
}

fn texts(answers: &[Answer<String>]) -> Markup {
    html! {
        ol {
            @for answer in answers {
                li class=[class(answer.right)] {
                    (Text(&answer.what)) " " span { (format!("{:.2}", answer.similarity)) }
                }
            }
        }
    }
}

fn image(data: &str, alt: &str, right: bool) -> Markup {
    html! { img class=[class(right)] alt=(Text(alt)) src=(Text(data)); }
}

fn class(right: bool) -> Option<&'static str> {
    right.then_some("right")
}
